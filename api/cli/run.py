"""`mulligan run`: watch, look into and cancel what makes and takes down machines."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.display import event_lines, progress_text
from mulligan.api.cli.errors import tell_next
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.follow import Updates, follow
from mulligan.api.cli.output import details, listing, print_json, value_of, word, words
from mulligan.api.cli.summary import finish
from mulligan.api.cli.text import clock, elapsed, seconds
from mulligan.api.cli.view import RunView
from mulligan.v1 import provisioning_pb2, run_pb2

HEAD = ("id", "kind", "outcome", "started", "took", "reason")


@click.group()
def run() -> None:
    """Watch, look into and cancel what makes and takes down machines."""


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
    listing(session, (response.run for response in stream), HEAD, _row)


@run.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="One execution of several. Default: the newest.")
@api_command
def show(session: Session, workflow_id: str, run_id: str | None) -> None:
    """Tell the story of a run: what it did, when, and what it saw."""
    request = provisioning_pb2.GetRunRequest(workflow_id=workflow_id, run_id=run_id or "")
    response = session.provisioning.GetRun(request, timeout=session.deadline())
    if session.as_json:
        print_json(response)
        return
    details(session, response.run, _facts)
    click.echo()
    for event in response.events:
        for line in event_lines(event):
            click.echo(line)
    for progress in response.progress:
        click.echo(f"now: {progress.step}/{progress.action}: {progress_text(progress)}")


@run.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="One execution of several. Default: the newest.")
@click.option("--from", "cursor", metavar="CURSOR", help="Only what happened after this cursor (see --output json).")
@api_command
def watch(session: Session, workflow_id: str, run_id: str | None, cursor: str | None) -> ExitCode:
    """Watch a run to its end, whether it is open or long over. Ctrl-C stops the watching, not the run."""
    request = provisioning_pb2.WatchRunRequest(workflow_id=workflow_id, run_id=run_id or "", cursor=cursor or "")
    view = RunView()
    view.cursor = request.cursor
    return follow(session, view, lambda timeout: _watched(session, request, timeout)) or finish(session, view)


@run.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="One execution of several. Default: the newest.")
@click.option("--reason", default="", help="Why, for the history.")
@click.option("--watch/--no-watch", "watching", default=True, help="Watch the undo. Default: watch.")
@api_command
def cancel(session: Session, workflow_id: str, run_id: str | None, reason: str, watching: bool) -> ExitCode:
    """Stop a run that makes a machine; it undoes what it did. Ends well when nothing of the machine is left.

    A run that takes a machine down cannot be stopped.
    """
    view, limit = RunView(), session.deadline()
    asked = provisioning_pb2.GetRunRequest(workflow_id=workflow_id, run_id=run_id or "")
    story = session.provisioning.GetRun(asked, timeout=limit)
    view.feed(run_pb2.RunUpdate(run=story.run))
    for event in story.events:
        view.event(event)
    request = provisioning_pb2.CancelRunRequest(workflow_id=workflow_id, run_id=story.run.run_id, reason=reason)
    cancelled = session.provisioning.CancelRun(request, timeout=limit).run
    if story.run.outcome != run_pb2.RUN_OUTCOME_OPEN:
        return _was_over(session, cancelled)
    if not watching:
        return _asked(session, cancelled)
    watched = provisioning_pb2.WatchRunRequest(workflow_id=workflow_id, run_id=story.run.run_id, cursor=view.cursor)
    view.held = None
    stopped = follow(session, view, lambda timeout: _watched(session, watched, timeout))
    if stopped is None and view.outcome == "CANCELLED":
        if not session.as_json:
            click.echo(f"{workflow_id}: cancelled; everything that was made has been undone")
        return ExitCode.OK
    return stopped or finish(session, view)


def _watched(session: Session, request: provisioning_pb2.WatchRunRequest, timeout: float | None) -> Updates:
    return (response.update for response in session.provisioning.WatchRun(request, timeout=timeout))


def _asked(session: Session, found: run_pb2.Run) -> ExitCode:
    if session.as_json:
        print_json(found)
    else:
        click.echo(f"{found.workflow_id}: cancel requested")
        tell_next((f"mulligan run watch {found.workflow_id}",))
    return ExitCode.OK


def _was_over(session: Session, found: run_pb2.Run) -> ExitCode:
    """Say how a run had ended before it could be cancelled; only a machine that is there makes that a conflict."""
    if session.as_json:
        print_json(found)
    else:
        click.echo(f"{found.workflow_id} had ended before: {word(run_pb2.RunOutcome, found.outcome)}", err=True)
    if found.outcome == run_pb2.RUN_OUTCOME_READY:
        project = "" if found.project in ("", "default") else f" --project {found.project}"
        tell_next((f"mulligan machine release {found.machine}{project}",))
        return ExitCode.CONFLICT
    return ExitCode.QUARANTINED if found.outcome == run_pb2.RUN_OUTCOME_QUARANTINED else ExitCode.OK


def _took(found: run_pb2.Run) -> str:
    return elapsed(seconds(found.ended_at) - seconds(found.started_at)) if found.ended_at.seconds else ""


def _row(found: run_pb2.Run) -> tuple[str, ...]:
    kind, outcome = word(run_pb2.RunKind, found.kind), word(run_pb2.RunOutcome, found.outcome)
    if found.cancel_requested and found.outcome == run_pb2.RUN_OUTCOME_OPEN:
        outcome = "open, cancelling"
    return found.workflow_id, kind, outcome, clock(found.started_at), _took(found), found.reason


def _facts(found: run_pb2.Run) -> Iterator[tuple[str, str]]:
    _, kind, outcome, started, took, reason = _row(found)
    yield "id", found.workflow_id
    yield "kind", kind
    yield "machine", f"{found.machine} of project {found.project}"
    yield "outcome", outcome
    yield "why", reason
    yield "started", started
    yield "took", took
    yield "run id", found.run_id
