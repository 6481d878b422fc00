"""What a run's workflow id says of it."""

from __future__ import annotations

from mulligan.api.enums import RunKind


def parse_id(workflow_id: str) -> tuple[RunKind, str, str] | None:
    """(kind, project, machine) of a run's workflow id; a reclaim and an enrolment name neither. None for what is no run
    of ours."""
    kind, *rest = workflow_id.split(":")
    if kind in (RunKind.PROVISION, RunKind.RELEASE) and len(rest) == 2 and all(rest):
        return RunKind(kind), rest[0], rest[1]
    if kind in (RunKind.RECLAIM, RunKind.ENROL) and len(rest) == 1 and rest[0]:
        return RunKind(kind), "", ""
    return None


def provider_of(workflow_id: str) -> str:
    """The provider that an enrolment's id names; empty for every other run."""
    kind, _, rest = workflow_id.partition(":")
    return rest if kind == RunKind.ENROL else ""
