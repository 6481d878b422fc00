"""`mulligan run`: watch, look into and steer what makes and takes down machines."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click
import grpc

from mulligan.api.cli.capsule import export, replay
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import status_of, tell_next
from mulligan.api.cli.exit_codes import ExitCode, of_outcome
from mulligan.api.cli.follow import follow
from mulligan.api.cli.levers import LEVERS
from mulligan.api.cli.naming import named, of_its_machine, outcome_of
from mulligan.api.cli.output import details, listing, print_json, value_of, word, words
from mulligan.api.cli.steering import (
    ID,
    RUN_ID,
    known_so_far,
    release_command,
    steers,
    still_up,
    tell_undo,
    watch_on,
    watch_option,
    watched,
)
from mulligan.api.cli.story import story_lines
from mulligan.api.cli.summary import finish, next_after
from mulligan.api.cli.text import clean, clock, elapsed, seconds, shorten
from mulligan.api.cli.view import RunView
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2

REASON_WIDTH = 60
"""Characters of a reason that a table shows on a terminal; `run show` and JSON have it all."""

GONE = (machine_pb2.MACHINE_STATE_RELEASED, machine_pb2.MACHINE_STATE_FAILED)

HEAD = ("id", "kind", "provider", "outcome", "started", "took", "reason")


@click.group()
def run() -> None:
    """Watch, look into and steer what makes and takes down machines."""


for command in (*LEVERS, export, replay):
    run.add_command(command)


@run.command("list")
@click.option("--project", help="Only runs of this project.")
@click.option("--machine", help="Only runs of this machine.")
@click.option("--outcome", type=click.Choice(words(run_pb2.RunOutcome)), help="Only runs that ended so, or are open.")
@click.option("--limit", type=click.IntRange(1, 10000), default=100, show_default=True, help="The newest so many.")
@api_command
def list_runs(session: Session, project: str | None, machine: str | None, outcome: str | None, limit: int) -> None:
    """List runs, newest first."""
    request = provisioning_pb2.ListRunsRequest(
        project=project or "",
        machine=machine or "",
        outcome=value_of(run_pb2.RunOutcome, outcome or "unspecified"),
        limit=limit,
    )
    stream = session.provisioning.ListRuns(request, timeout=session.deadline())
    listing(session, (response.run for response in stream), HEAD, _row, whole=("id",))


@run.command()
@ID
@RUN_ID
@api_command
def show(session: Session, workflow_id: str, run_id: str) -> None:
    """Tell the story of a run: what it did, when, and what it saw."""
    request = provisioning_pb2.GetRunRequest(workflow_id=workflow_id, run_id=run_id)
    response = session.provisioning.GetRun(request, timeout=session.deadline())
    if session.as_json:
        print_json(response)
        return
    details(session, response.run, lambda run: (*_facts(run), *of_its_machine(response.others, run.kind)))
    click.echo()
    for line in story_lines(response):
        click.echo(line)


@run.command()
@ID
@RUN_ID
@click.option("--from", "cursor", metavar="CURSOR", help="Only what happened after this cursor (see --output json).")
@api_command
def watch(session: Session, workflow_id: str, run_id: str, cursor: str | None) -> ExitCode:
    """Watch a run to its end, whether it is open or long over. Ctrl-C stops the watching, not the run."""
    request = provisioning_pb2.WatchRunRequest(workflow_id=workflow_id, run_id=run_id, cursor=cursor or "")
    view = RunView()
    view.cursor = request.cursor
    return follow(session, view, lambda timeout: watched(session, request, timeout)) or finish(session, view)


@run.command()
@steers
@watch_option("the undo")
@api_command
def cancel(session: Session, lever: provisioning_pb2.LeverRequest, watching: bool) -> ExitCode:
    """Stop a run that makes a machine; it undoes what it did. Ends well when nothing of the machine is left.

    A run that takes a machine down cannot be stopped.
    """
    workflow_id = lever.workflow_id
    view = known_so_far(session, workflow_id, lever.run_id)
    before = view.run or run_pb2.Run()
    request = provisioning_pb2.CancelRunRequest(
        workflow_id=workflow_id, run_id=before.run_id, reason=lever.reason, actor=lever.actor
    )
    response = session.provisioning.CancelRun(request, timeout=session.deadline())
    if session.as_json:
        print_json(response)
    if before.outcome != run_pb2.RUN_OUTCOME_OPEN:
        return _was_over(session, response.run, response.said, view)
    if not session.as_json:
        click.echo(clean(f"{workflow_id}: {response.said}"))
        tell_undo(response.undo)
    if not watching:
        if not session.as_json:
            tell_next((f"mulligan run watch {workflow_id}",))
        return ExitCode.OK
    stopped = watch_on(session, view, until_held=False)
    if stopped is None and view.outcome == "READY":
        return still_up(session, view)
    if stopped is None and view.outcome == "CANCELLED":
        if not session.as_json:
            click.echo(f"{workflow_id}: cancelled; everything that was made has been undone")
        return ExitCode.OK
    return stopped or finish(session, view)


def _was_over(session: Session, found: run_pb2.Run, said: str, view: RunView) -> ExitCode:
    """Say how a run had ended before it could be cancelled. A machine that is there makes that a conflict; what a run
    left behind without undo is told like the end of that run."""
    if not session.as_json:
        click.echo(clean(f"{found.workflow_id} {said}"), err=True)
    if found.outcome == run_pb2.RUN_OUTCOME_READY and not _is_there(session, found):
        if not session.as_json:
            click.echo(f"its machine {found.machine} was released since: there is nothing to take down", err=True)
        return ExitCode.OK
    if found.outcome == run_pb2.RUN_OUTCOME_READY:
        if not session.as_json:
            tell_next((release_command(found),))
        return ExitCode.CONFLICT
    if found.outcome not in (run_pb2.RUN_OUTCOME_QUARANTINED, run_pb2.RUN_OUTCOME_TERMINATED):
        return ExitCode.OK
    if not session.as_json:
        tell_next(next_after(view))
    return of_outcome(view.outcome)


def _is_there(session: Session, found: run_pb2.Run) -> bool:
    """Whether the machine that this run made is still there, and not another one by its name."""
    asked = provisioning_pb2.GetMachineRequest(project=found.project, name=found.machine)
    try:
        now = session.provisioning.GetMachine(asked, timeout=session.deadline()).machine
    except grpc.RpcError as error:
        if status_of(error) is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return now.id == found.machine_id and now.state not in GONE


def _took(found: run_pb2.Run) -> str:
    return elapsed(seconds(found.ended_at) - seconds(found.started_at)) if found.ended_at.seconds else ""


def _row(found: run_pb2.Run) -> tuple[str, ...]:
    kind = word(run_pb2.RunKind, found.kind)
    reason = shorten(found.reason, REASON_WIDTH) if sys.stdout.isatty() else found.reason
    return named(found), kind, found.provider, outcome_of(found), clock(found.started_at), _took(found), reason


def _facts(found: run_pb2.Run) -> Iterator[tuple[str, str]]:
    yield "id", found.workflow_id
    yield "kind", word(run_pb2.RunKind, found.kind)
    yield "machine", f"{found.machine} of project {found.project}" if found.machine else ""
    yield "provider", found.provider
    yield "outcome", outcome_of(found)
    yield "why", found.reason
    yield "started", clock(found.started_at)
    yield "took", _took(found)
    yield "run id", found.run_id
