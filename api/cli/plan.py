"""`mulligan machine plan`: what a run would do, before it is asked for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

import click

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import tell_next
from mulligan.api.cli.estimates import usual_text
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.explanation import mended_by, pinned_to, show_explanation, what_helps
from mulligan.api.cli.output import details, print_json, show, table
from mulligan.api.cli.spec_options import CLAIM_OPTIONS, RUN_OPTIONS, options, wanted_spec
from mulligan.api.cli.text import size
from mulligan.api.cli.typed import as_provision
from mulligan.v1 import inventory_pb2, provisioning_pb2

STEPS_HEAD = ("step", "does", "at most", "usually", "undone by")
NOT_NOW = inventory_pb2.Explanation.VERDICT_NOT_NOW


@click.command()
@click.argument("name", required=False)
@options((*CLAIM_OPTIONS, *RUN_OPTIONS))
@api_command
def plan(session: Session, name: str | None, **flags: Any) -> ExitCode:
    """Say what `provision` with the same flags would do, step by step. Claims nothing and changes nothing.

    The plan has a hash: `mulligan machine provision ... --plan HASH` does just that, or says what has changed since.
    """
    spec = wanted_spec(flags, name=name, command="plan")
    request = provisioning_pb2.PlanMachineRequest(spec=spec)
    made = session.provisioning.PlanMachine(request, timeout=session.deadline()).plan
    if session.as_json:
        print_json(made)
    else:
        _show(session, made)
        tell_next(_next(made))
    if not made.provider:
        return ExitCode.NO_ROOM
    return ExitCode.NOT_READY if made.lacks else ExitCode.OK


def _show(session: Session, made: provisioning_pb2.Plan) -> None:
    details(session, made, _choice)
    click.echo()
    show_explanation(made.explanation)
    click.echo()
    show(table(STEPS_HEAD, (_row(step) for step in made.steps)))
    click.echo()
    details(session, made, _consequences)


def _choice(made: provisioning_pb2.Plan) -> Iterator[tuple[str, str]]:
    yield "machine", f"{made.spec.name} of project {made.spec.project}"
    yield "provider", f"{made.provider or 'none'}: {made.why or 'no provider fits'}"


def _consequences(made: provisioning_pb2.Plan) -> Iterator[tuple[str, str]]:
    yield "image", f"{made.spec.image} {made.image_digest}"
    if made.provider:
        yield "to move", moved_text(made)
        yield "destroys", "\n".join(made.destroys) or "nothing"
        yield "lacks", "\n".join(made.lacks) or "nothing"
    yield "plan", made.hash or "it cannot be applied as things are"


def moved_text(made: provisioning_pb2.Plan) -> str:
    """The bytes to move against those that are where they are needed already."""
    moves = [f"{size(made.download_bytes)} to be downloaded"] if made.download_bytes else []
    moves += [f"{size(made.place_bytes)} to be put on {made.provider}"] if made.place_bytes else []
    there = f"{size(made.cached_bytes)} are there already" if made.cached_bytes else ""
    if not moves and not there:
        return "the image's size is not known before it is there"
    return "; ".join(part for part in (", ".join(moves) or "nothing", there) if part)


def _row(step: provisioning_pb2.PlanStep) -> Sequence[str]:
    usually = usual_text(step.estimate) if step.HasField("estimate") else "not known yet"
    if step.HasField("estimate"):
        usually += f" ({step.estimate.runs} runs: {step.estimate.basis})"
    undo = "; ".join(f"{each.action}: {each.description}" for each in step.undo) or "nothing to undo"
    return step.step, step.description, _duration(step.deadline_seconds), usually, undo


def _duration(seconds: int) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _next(made: provisioning_pb2.Plan) -> tuple[str, ...]:
    """The command that applies the plan, or that waits where nothing has room now: what was typed, as a provision."""
    if made.there:
        show = shlex.join(["mulligan", "machine", "show", made.spec.name, "--project", made.spec.project])
        return (show, f"mulligan run show {made.there}")
    if made.hash:
        return (as_provision("--plan", made.hash),)
    if made.provider:
        return ()
    is_out_of_service = pinned_to(made.explanation) and mended_by(made.explanation)
    waits_for_nothing = made.explanation.verdict != NOT_NOW or is_out_of_service
    waits = () if waits_for_nothing else (as_provision("--wait-for-room"),)
    return (*waits, *what_helps(made.explanation))
