"""Deterministic workflow code: provision, release, reclaim, enrol and plan, and the table of steps with their undo."""

from __future__ import annotations


def all_workflows() -> list[type]:
    """Every workflow, for a worker to register."""
    from mulligan.workflows.bmcs import ListBmcs  # noqa: PLC0415 - keeps `import mulligan.workflows` light
    from mulligan.workflows.enrol import EnrolProvider  # noqa: PLC0415
    from mulligan.workflows.plan import PlanMachine  # noqa: PLC0415
    from mulligan.workflows.provision import ProvisionMachine  # noqa: PLC0415
    from mulligan.workflows.release import ReclaimClaim, ReleaseMachine  # noqa: PLC0415
    from mulligan.workflows.remove import RemoveProvider, SpareImage  # noqa: PLC0415

    makes = [ProvisionMachine, ReleaseMachine, ReclaimClaim]
    return [*makes, EnrolProvider, RemoveProvider, SpareImage, PlanMachine, ListBmcs]
