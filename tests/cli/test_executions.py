"""Of several executions that have one id, each command says which one it means."""

from __future__ import annotations

from mulligan.v1 import provisioning_pb2 as pb
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ID, ScriptedApi, run_update


def test_of_a_run_that_was_reset_only_one_made_the_machine(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Each of the two leads to the other, as what was before the reset, or after it."""
    older, newer = run_update("TERMINATED").run, run_update("READY").run
    older.run_id, older.superseded = "first", True
    for shown, other, told in (
        (newer, older, f"before a reset {ID} --run-id first, terminated"),
        (older, newer, f"after a reset {ID}, ready"),
    ):
        response = pb.GetRunResponse(run=shown, others=[other])
        api.handlers["GetRun"] = lambda request, context, response=response: response  # type: ignore[misc]
        rows = [" ".join(line.split()) for line in mulligan("run", "show", ID).stdout.splitlines()]
        assert told in rows
        assert not [row for row in rows if row.startswith("made by")]
