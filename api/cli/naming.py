"""How runs are named, so that the name can be given to `mulligan run show`, and told beside what they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from mulligan.api.cli.ending import ending
from mulligan.api.cli.output import word
from mulligan.v1 import run_pb2

_DID = {
    run_pb2.RUN_KIND_PROVISION: "made by",
    run_pb2.RUN_KIND_RELEASE: "taken down by",
    run_pb2.RUN_KIND_RECLAIM: "reclaimed by",
}


def named(found: run_pb2.Run) -> str:
    """Its workflow id; with its run id where a newer run has that too."""
    return f"{found.workflow_id} --run-id {found.run_id}" if found.superseded else found.workflow_id


def of_this_run(commands: Iterable[str], run: run_pb2.Run) -> tuple[str, ...]:
    """The commands, so that they mean this run where a newer one has its id: that one alone can be retried."""
    if not run.superseded:
        return tuple(commands)
    left = (command for command in commands if not command.startswith("mulligan run retry "))
    ours = re.compile(rf"mulligan run \S+ {re.escape(run.workflow_id)}(?!\S)")
    return tuple(f"{command} --run-id {run.run_id}" if ours.match(command) else command for command in left)


def outcome_of(found: run_pb2.Run) -> str:
    """How it ended, or what is to be known of it while it is open."""
    if found.outcome != run_pb2.RUN_OUTCOME_OPEN:
        return word(run_pb2.RunOutcome, found.outcome)
    state = ending(found) or ("held" if found.held else "")
    return f"open, {state}" if state else "open"


def of_its_machine(
    runs: Iterable[run_pb2.Run], beside: run_pb2.RunKind.ValueType = run_pb2.RUN_KIND_UNSPECIFIED
) -> Iterator[tuple[str, str]]:
    """The other runs of a machine, as the rows of its details, or of those of a run of such a kind."""
    for run in runs:
        did = _DID.get(run.kind, "run")
        if run.kind == run_pb2.RUN_KIND_PROVISION and (run.superseded or run.kind == beside):
            did = "before a reset" if run.superseded else "after a reset"  # else a machine has one run that makes it
        yield did, f"{named(run)}, {outcome_of(run)}"
