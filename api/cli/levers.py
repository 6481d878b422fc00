"""The levers of `mulligan run`: what an operator can do to a run. The run answers each, and its history keeps it."""

from __future__ import annotations

import click
from google.protobuf.message import Message

from mulligan.activities.levers import GIVEN_UP, HOLDABLE
from mulligan.api.cli.actor import ACTOR, REASON
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import CliError, tell_next
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.follow import follow
from mulligan.api.cli.naming import outcome_of
from mulligan.api.cli.output import print_json
from mulligan.api.cli.steering import (
    ID,
    known_so_far,
    steers,
    still_up,
    tell_undo,
    watch_on,
    watch_option,
    watched,
)
from mulligan.api.cli.summary import finish
from mulligan.api.cli.text import Duration, clean
from mulligan.api.cli.view import RunView
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import run_pb2

LEFT = "what is left, and will be quarantined unless its last attempt undoes it:"
STEP = click.Choice(HOLDABLE)

AGAIN = (run_pb2.RUN_OUTCOME_FAILED, run_pb2.RUN_OUTCOME_CANCELLED)
"""How a run ended that can be retried, whatever it left; after any other end it is to be looked at first."""


@click.command()
@ID
@click.option("--run-id", default="", help="Refuse if this is not the newest run of the id, which is the one retried.")
@REASON
@ACTOR
@watch_option("the new run")
@api_command
def retry(session: Session, *, workflow_id: str, run_id: str, reason: str, actor: str, watching: bool) -> ExitCode:
    """Make a machine afresh whose run failed or was cancelled: the same request, in a new run of the same id."""
    if run_id:
        _require_newest(session, workflow_id, run_id)
    request = pb.RetryRunRequest(workflow_id=workflow_id, reason=reason, actor=actor)
    response = session.provisioning.RetryRun(request, timeout=session.deadline())
    _answered(session, response, f"{workflow_id}: a new run has begun", watch=not watching)
    if not watching:
        return ExitCode.OK
    view = RunView()
    asked = pb.WatchRunRequest(workflow_id=workflow_id, run_id=response.run.run_id)
    stopped = follow(session, view, lambda timeout: watched(session, asked, timeout), until_held=True)
    return stopped or finish(session, view)


@click.command("retry-now")
@steers
@api_command
def retry_now(session: Session, lever: pb.LeverRequest) -> None:
    """Begin the next attempt of what a run is trying now, also out of a long back-off."""
    response = session.provisioning.RetryRunNow(pb.RetryRunNowRequest(lever=lever), timeout=session.deadline())
    _answered(session, response, _said(response.answer), watch=True)


@click.command()
@steers
@click.option("--before", type=STEP, help="Hold before this step. Default: before the next one; with --off: any.")
@click.option("--off", is_flag=True, help="Take back what was asked for, and not reached yet.")
@api_command
def hold(session: Session, lever: pb.LeverRequest, before: str | None, off: bool) -> None:
    """Hold a run before a step begins: everything stays as it is until it is resumed, aborted or cancelled.

    All that operators asked for is kept: of two, each before another step, it is held twice.
    """
    request = pb.HoldRunRequest(lever=lever, before_step=before or "", off=off)
    response = session.provisioning.HoldRun(request, timeout=session.deadline())
    _answered(session, response, _said(response.answer), watch=True)


@click.command()
@steers
@click.option("--from", "from_step", type=STEP, help="Go on with this step. Default: the one at which it is held.")
@click.option(
    "--held",
    type=click.IntRange(min=1),
    help="How often it had been held when you decided, as `next:` says: refused if it was held anew since.",
)
@watch_option("how it goes on")
@api_command
def resume(
    session: Session, lever: pb.LeverRequest, from_step: str | None, held: int | None, watching: bool
) -> ExitCode:
    """Go on with a held run. What was made by steps after the one that it goes on with is undone first."""
    view = known_so_far(session, lever.workflow_id, lever.run_id)
    request = pb.ResumeRunRequest(lever=lever, from_step=from_step or "", times_held=held or 0)
    response = session.provisioning.ResumeRun(request, timeout=session.deadline())
    _answered(session, response, _said(response.answer), watch=not watching)
    return _watched_on(session, view) if watching else ExitCode.OK


@click.command()
@steers
@click.option("--by", "seconds", type=Duration(), required=True, help="How much more, e.g. 600, 10m or 2h.")
@click.option("--run", "whole_run", is_flag=True, help="The deadline of the whole run only, not that of its step.")
@api_command
def extend(session: Session, lever: pb.LeverRequest, seconds: int, whole_run: bool) -> None:
    """Give a run's step, or the whole run, more time."""
    request = pb.ExtendRunRequest(lever=lever, seconds=seconds, whole_run=whole_run)
    response = session.provisioning.ExtendRun(request, timeout=session.deadline())
    _answered(session, response, _said(response.answer), watch=True)


@click.command()
@steers
@watch_option("how it goes on")
@api_command
def mulligan(session: Session, lever: pb.LeverRequest, watching: bool) -> ExitCode:
    """Give a run's provider up, undo what was made there, and try another. Refused where there is no other."""
    view = known_so_far(session, lever.workflow_id, lever.run_id)
    response = session.provisioning.TakeMulligan(pb.TakeMulliganRequest(lever=lever), timeout=session.deadline())
    _answered(session, response, _said(response.answer), watch=not watching)
    return _watched_on(session, view) if watching else ExitCode.OK


@click.command()
@steers
@watch_option("the undo")
@api_command
def abort(session: Session, lever: pb.LeverRequest, watching: bool) -> ExitCode:
    """Stop trying: a run fails now and is undone; what cannot be undone is quarantined now.

    Ends well when nothing of the machine is left.
    """
    view = known_so_far(session, lever.workflow_id, lever.run_id)
    response = session.provisioning.AbortRun(pb.AbortRunRequest(lever=lever), timeout=session.deadline())
    _answered(session, response, _said(response.answer), watch=not watching)
    if not session.as_json:
        if response.answer.said == GIVEN_UP:
            tell_undo(response.undo, title=LEFT)
        else:
            tell_undo(response.undo)
    if not watching:
        return ExitCode.OK
    stopped = watch_on(session, view, until_held=False)
    if stopped is not None:
        return stopped
    if view.outcome == "READY":
        return still_up(session, view)
    if view.outcome == "FAILED":
        if not session.as_json:
            click.echo(f"{lever.workflow_id}: aborted; everything that was made has been undone")
        return ExitCode.OK
    return finish(session, view)


LEVERS = (retry, retry_now, hold, resume, extend, mulligan, abort)


def _require_newest(session: Session, workflow_id: str, run_id: str) -> None:
    """Refuse to retry an older run of an id: what it failed to make, a newer one was to make."""
    asked, newest = (
        session.provisioning.GetRun(pb.GetRunRequest(workflow_id=workflow_id, run_id=each), timeout=session.deadline())
        for each in (run_id, "")
    )
    if asked.run.run_id != newest.run.run_id:
        verb = "retry" if newest.run.outcome in AGAIN else "show"
        raise CliError(
            f"{workflow_id} --run-id {run_id} is an older run of this id, and only the newest can be retried, which is "
            f"{outcome_of(newest.run)}",
            ExitCode.CONFLICT,
            next_commands=(f"mulligan run {verb} {workflow_id}",),
        )


def _said(answer: pb.LeverAnswer) -> str:
    return f"{answer.run.workflow_id}: {answer.said}"


def _answered(session: Session, response: Message, said: str, *, watch: bool) -> None:
    """Write what the run answered; `watch` says how to watch what comes of it."""
    if session.as_json:
        print_json(response)
        return
    click.echo(clean(said))
    if watch:
        tell_next((f"mulligan run watch {said.partition(': ')[0]}",))


def _watched_on(session: Session, view: RunView) -> ExitCode:
    return watch_on(session, view) or finish(session, view)
