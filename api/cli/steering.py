"""What the commands that steer a run have in common: who asks and why, the undo list, and watching what comes of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import click

from mulligan.api.cli.actor import ACTOR, REASON
from mulligan.api.cli.client import Session
from mulligan.api.cli.errors import tell_next
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.follow import Updates, follow
from mulligan.api.cli.text import clean
from mulligan.api.cli.view import RunView
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import run_pb2

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

ID = click.argument("workflow_id", metavar="ID")
RUN_ID = click.option("--run-id", default="", help="One execution of several. Default: the newest.")


def steers(function: Command) -> Command:
    """Give a command the options that say which run, who asks and why; it takes them as its `lever`."""

    @ID
    @RUN_ID
    @REASON
    @ACTOR
    @functools.wraps(function)
    def command(*args: Any, workflow_id: str, run_id: str, reason: str, actor: str, **kwargs: Any) -> Any:
        lever = pb.LeverRequest(workflow_id=workflow_id, run_id=run_id, reason=reason, actor=actor)
        return function(*args, lever=lever, **kwargs)

    return command


def watch_option(what: str) -> Decorator:
    """`--watch/--no-watch`."""
    return click.option("--watch/--no-watch", "watching", default=True, help=f"Watch {what}. Default: watch.")


def watched(session: Session, request: pb.WatchRunRequest, timeout: float | None) -> Updates:
    """The stream of a run."""
    return (response.update for response in session.provisioning.WatchRun(request, timeout=timeout))


def known_so_far(session: Session, workflow_id: str, run_id: str) -> RunView:
    """The run with all that it has told; what it tells next follows its cursor."""
    view = RunView()
    asked = pb.GetRunRequest(workflow_id=workflow_id, run_id=run_id)
    story = session.provisioning.GetRun(asked, timeout=session.deadline())
    view.feed(run_pb2.RunUpdate(run=story.run))
    for event in story.events:
        view.event(event)
    return view


def watch_on(session: Session, view: RunView, *, until_held: bool = True) -> ExitCode | None:
    """Watch what a run tells from now on, to its end, or until it is held; None unless the watching stopped before."""
    assert view.run is not None
    view.held = None
    request = pb.WatchRunRequest(workflow_id=view.workflow_id, run_id=view.run.run_id, cursor=view.cursor)
    return follow(session, view, lambda timeout: watched(session, request, timeout), until_held=until_held)


def tell_undo(undo: Iterable[pb.UndoAction], *, title: str = "will be undone, in this order:") -> None:
    """Write what will be undone, if anything."""
    for number, each in enumerate(undo, 1):
        if number == 1:
            click.echo(title)
        click.echo(clean(f"  {number}. {each.action}: {each.description} (undoes {each.undoes})"))


def still_up(session: Session, view: RunView) -> ExitCode:
    """Say that a run could not be stopped any more: its machine is up."""
    run = view.run or run_pb2.Run()
    if not session.as_json:
        click.echo(f"{run.workflow_id}: it was too late: the machine is up", err=True)
        tell_next((release_command(run),))
    return ExitCode.CONFLICT


def release_command(run: run_pb2.Run) -> str:
    """The command that takes down what a run made."""
    project = "" if run.project in ("", "default") else f" --project {run.project}"
    return f"mulligan machine release {run.machine}{project}"
