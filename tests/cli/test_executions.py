"""Of several executions that have one id, each command says which one it means."""

from __future__ import annotations

import pytest

from mulligan.api.cli.exit_codes import ExitCode
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import run_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ID, ScriptedApi, event, run_update, watches

OLDER = f"{ID} --run-id first"


def executions(api: ScriptedApi, newest: str, *, asked: str = "TERMINATED") -> None:
    """A run of two executions: one that is asked for as `first`, and the newest, which ended so."""
    shows = [f"mulligan run show {ID}", f"mulligan run retry {ID}", "mulligan machine show web-1"]
    older, newer = run_update(asked).run, run_update(newest).run
    older.run_id, older.superseded = "first", True
    last = event(9, "RUN_FINISHED", message="it ended", outcome=older.outcome, suggestions=shows)
    told = {"first": pb.GetRunResponse(run=older, events=[last.event]), "": pb.GetRunResponse(run=newer)}
    api.handlers["GetRun"] = lambda request, context: told[request.run_id]
    api.handlers["CancelRun"] = lambda request, context: pb.CancelRunResponse(run=older, said="had ended before")
    api.handlers["WatchRun"] = watches([run_pb2.RunUpdate(run=older), last])
    api.handlers["RetryRun"] = lambda request, context: pb.RetryRunResponse(run=run_update().run)


@pytest.mark.parametrize("verb", ["show", "watch", "cancel"])
def test_what_is_advised_for_an_older_run_is_about_that_one(api: ScriptedApi, mulligan: Mulligan, verb: str) -> None:
    """Its page is named with its run id, and no retry is advised: that would be one of the newest."""
    executions(api, "READY")
    done = mulligan("run", verb, ID, "--run-id", "first")
    said = done.stdout + done.stderr
    assert "mulligan machine show web-1" in said
    assert f"mulligan run show {OLDER}" in said or verb == "show"
    assert said.count(f"run show {ID}") == said.count(f"run show {OLDER}")
    assert "run retry" not in said


@pytest.mark.parametrize(("newest", "then"), [("FAILED", "retry"), ("READY", "show"), ("OPEN", "show")])
def test_only_the_newest_run_of_an_id_is_retried(api: ScriptedApi, mulligan: Mulligan, newest: str, then: str) -> None:
    """An older one that is named is refused, with how the newest is, and what can be done about that."""
    executions(api, newest)
    done = mulligan("run", "retry", ID, "--run-id", "first", "--no-watch")
    assert done.returncode == ExitCode.CONFLICT
    assert f"{OLDER} is an older run of this id, and only the newest can be retried" in done.stderr
    assert f"which is {newest.lower()}" in done.stderr
    assert f"next: mulligan run {then} {ID}\n" in done.stderr
    assert "RetryRun" not in dict(api.asked)


def test_the_newest_run_is_retried_by_its_run_id_too(api: ScriptedApi, mulligan: Mulligan) -> None:
    """As it is named by whoever was shown its run id."""
    executions(api, "FAILED")
    failed = api.handlers["GetRun"](pb.GetRunRequest(), None)  # type: ignore[arg-type]
    api.handlers["GetRun"] = lambda request, context: failed
    done = mulligan("run", "retry", ID, "--run-id", failed.run.run_id, "--no-watch")
    assert done.returncode == ExitCode.OK
    assert "RetryRun" in dict(api.asked)


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
