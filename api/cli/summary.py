"""What is said when a run has ended: how it was proved and how to log in, or why it failed and what to do next."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mulligan.api.cli.client import Session
from mulligan.api.cli.display import evidence_text
from mulligan.api.cli.errors import CliError, render, tell_next
from mulligan.api.cli.exit_codes import NO_ROOM_REASONS, ExitCode, of_outcome
from mulligan.api.cli.explanation import what_helps
from mulligan.api.cli.naming import of_this_run
from mulligan.api.cli.text import clean, outcome_text
from mulligan.api.cli.typed import as_provision, asks_for_a_machine
from mulligan.api.cli.view import RunView
from mulligan.v1 import inventory_pb2, machine_pb2, run_pb2

WHAT_IS_LEFT = {
    "FAILED": "everything that was made has been undone",
    "CANCELLED": "everything that was made has been undone",
    "QUARANTINED": "something could not be undone; its claim is quarantined so that nobody gets it",
    "TERMINATED": "it was terminated from outside; what it holds is reclaimed when its lease has passed",
}


def finish(session: Session, view: RunView) -> ExitCode:
    """Say how the run ended; returns the exit code that says it too."""
    reason, message = view.failure
    if view.held is not None and not view.ended:
        return _held(session, view)
    code = of_outcome(view.outcome, reason)
    if code is not ExitCode.OK:
        nothing_was_made = reason in NO_ROOM_REASONS and view.try_number == 1
        left = "" if nothing_was_made else WHAT_IS_LEFT.get(view.outcome, "")
        says_it = any(words in message for words in ("undone", "mended since: ", "what it holds is reclaimed"))
        told = message if says_it else "; ".join(part for part in (message, left) if part)
        error = CliError(
            f"{view.workflow_id}: {outcome_text(view.outcome.lower(), told)}",
            code,
            reason=reason,
            metadata={"workflow_id": view.workflow_id, "outcome": f"RUN_OUTCOME_{view.outcome}"},
            explanation=view.explanation if reason in NO_ROOM_REASONS else None,
            next_commands=next_after(view),
        )
        render(error, as_json=session.as_json)
    elif not session.as_json:
        _succeeded(view)
    return code


def finish_release(session: Session, view: RunView, *, forgotten: bool = False) -> ExitCode:
    """Say how a release ended. A machine that is gone is what was asked for, also when its own run was undone for it,
    or had ended before."""
    gone = (machine_pb2.MACHINE_STATE_RELEASED, machine_pb2.MACHINE_STATE_FAILED)
    if view.machine is None or view.machine.state not in gone:
        return finish(session, view)
    if not session.as_json and forgotten:
        name, provider = view.machine.name, view.machine.provider
        click.echo(clean(f"machine {name} is forgotten; nothing was asked of {provider}, and nothing removed there"))
    elif not session.as_json:
        _gone(view)
    return ExitCode.OK


def next_after(view: RunView) -> Sequence[str]:
    """The commands to try after this run ended badly."""
    return of_this_run(_next_after(view), view.run or run_pb2.Run())


def _next_after(view: RunView) -> Sequence[str]:
    show = f"mulligan run show {view.workflow_id}"
    if view.failure[0] == "NOT_NOW":
        waits = as_provision("--wait-for-room") if asks_for_a_machine() else f"mulligan run retry {view.workflow_id}"
        return (*_what_helps(view), waits)
    if view.failure[0] == "NEVER_FITS":
        return _what_helps(view)
    if view.finished is not None and view.finished.suggestions:
        return tuple(view.finished.suggestions)
    if view.outcome in ("QUARANTINED", "TERMINATED"):
        return ("mulligan claim list", show)
    return (show,)


def _what_helps(view: RunView) -> tuple[str, ...]:
    return what_helps(view.explanation or inventory_pb2.Explanation())


def ssh_command(machine: machine_pb2.Machine) -> str:
    """The command that logs in; empty where there is no address, or no key was given."""
    if not machine.addresses or not machine.spec.ssh_keys:
        return ""
    return clean(f"ssh {machine.login}@{machine.addresses[0]}" if machine.login else f"ssh {machine.addresses[0]}")


def _succeeded(view: RunView) -> None:
    if view.outcome == "RELEASED":
        _gone(view)
        return
    machine = view.machine
    if view.outcome == "ENROLLED":
        click.echo(clean(f"{view.workflow_id}: {view.finished.message if view.finished else ''}"))
        return
    if machine is None:
        click.echo(f"{view.workflow_id}: ready")
        return
    where = f"on {machine.provider}: {', '.join(machine.addresses) or 'no address'}"
    asked_before = " (the same was asked for before)" if view.joined else ""
    click.echo(clean(f"machine {machine.name} is up {where}{asked_before}"))
    for item in machine.evidence:
        click.echo(f"  verified {evidence_text(item)}")
    if command := ssh_command(machine):
        click.echo(f"  {command}")


def _gone(view: RunView) -> None:
    click.echo(clean(f"machine {view.run.machine if view.run else ''} is gone; nothing of it is left"))


def _held(session: Session, view: RunView) -> ExitCode:
    assert view.held is not None
    message = view.held.message or "held for inspection"
    cancel = f"mulligan run cancel {view.workflow_id}"
    commands = (*(view.held.suggestions or (f"mulligan run show {view.workflow_id}",)), cancel)
    if session.as_json:
        held = CliError(message, ExitCode.HELD, reason=view.held.reason or "HELD", next_commands=commands)
        render(held, as_json=True)
        return ExitCode.HELD
    click.echo(clean(f"held, and everything is kept as it is: {message}; cancelling the run undoes it"), err=True)
    tell_next(commands)
    return ExitCode.HELD
