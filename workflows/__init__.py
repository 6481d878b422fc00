"""Deterministic workflow code: provision, release, reclaim and enrol, and the table of steps with their undo."""

from __future__ import annotations


def all_workflows() -> list[type]:
    """Every workflow, for a worker to register."""
    from mulligan.workflows.enrol import EnrolProvider  # noqa: PLC0415 - keeps `import mulligan.workflows` light
    from mulligan.workflows.provision import ProvisionMachine  # noqa: PLC0415
    from mulligan.workflows.release import ReclaimClaim, ReleaseMachine  # noqa: PLC0415

    return [ProvisionMachine, ReleaseMachine, ReclaimClaim, EnrolProvider]
