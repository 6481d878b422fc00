"""`mulligan suspect`: what runs failed on, and who is to blame: the provider or the image."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mulligan.api.cli.actor import ACTOR, REASON
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import tell_next
from mulligan.api.cli.output import listing, print_json, value_of, word, words
from mulligan.api.cli.text import ago
from mulligan.v1 import inventory_pb2

HEAD = ("kind", "name", "failures", "state", "last", "runs", "verdict")
RUNS = 5
"""How many of the failures are shown beside a provider or an image."""


@click.group()
def suspect() -> None:
    """See what runs failed on, the provider or the image, and put it back."""


@suspect.command("list")
@click.option("--kind", type=click.Choice(words(inventory_pb2.SuspectKind)), help="Only these. Default: both.")
@api_command
def list_suspects(session: Session, kind: str | None) -> None:
    """List what runs failed on since one succeeded, the worst first."""
    request = inventory_pb2.ListSuspectsRequest(kind=value_of(inventory_pb2.SuspectKind, kind or "unspecified"))
    stream = session.inventory.ListSuspects(request, timeout=session.deadline())
    found = [response.suspect for response in stream]
    listing(session, found, HEAD, _row)
    if found and not session.as_json:
        named = word(inventory_pb2.SuspectKind, found[0].kind), found[0].name
        clear_it = ("mulligan suspect clear {} {}".format(*named),) if found[0].quarantined else ()
        tell_next(("mulligan {} show {}".format(*named), *clear_it))


@suspect.command()
@click.argument("kind", type=click.Choice(words(inventory_pb2.SuspectKind)))
@click.argument("name")
@REASON
@ACTOR
@api_command
def clear(session: Session, kind: str, name: str, reason: str, actor: str) -> None:
    """Forget the failures of a provider or an image, and put it back into service if they had quarantined it.

    Each failure is held against a provider and an image: it is forgotten for both. Who did so, and why, is in
    `mulligan edit list`.
    """
    number = value_of(inventory_pb2.SuspectKind, kind)
    request = inventory_pb2.ClearSuspectRequest(kind=number, name=name, reason=reason, actor=actor)
    response = session.inventory.ClearSuspect(request, timeout=session.deadline())
    if session.as_json:
        print_json(response)
        return
    click.echo(f"nothing is held against {kind} {name} any more")
    if response.also:
        others = ", ".join(f"{word(inventory_pb2.SuspectKind, each.kind)} {each.name}" for each in response.also)
        click.echo(f"its failures were held against {others} too, and are no more")


def suspicion(found: inventory_pb2.Suspect) -> Iterator[tuple[str, str]]:
    """What is held against one provider or image, as the rows of its details."""
    if not found.failures and not found.quarantined:
        return
    if found.kind == inventory_pb2.SUSPECT_KIND_IMAGE:  # a provider says so by itself
        yield "quarantined", found.quarantined
    yield "suspect", f"{found.failures} failure(s): {found.verdict}"
    told = [f"{ago(one.at)} ago, {_run(one)}: {_place(one)}{one.reason}" for one in found.evidence]
    more = [f"and {found.failures - RUNS} more"] if found.failures > RUNS else []
    yield "failed", "\n".join([*told[:RUNS], *more])


def _run(one: inventory_pb2.Blame) -> str:
    """The run, as `mulligan run show` takes it: its workflow id may have been used again since."""
    if not one.workflow_id:
        return "no run"
    return f"{one.workflow_id} --run-id {one.run_id}" if one.run_id else one.workflow_id


def _place(one: inventory_pb2.Blame) -> str:
    parts = [part for part in (one.step, f"on {one.provider}", f"with {one.image}" if one.image else "") if part]
    return f"{' '.join(parts)}: "


def _row(found: inventory_pb2.Suspect) -> tuple[str, ...]:
    state = "quarantined" if found.quarantined else "suspect"
    last = ago(found.evidence[0].at) if found.evidence else "-"
    kind = word(inventory_pb2.SuspectKind, found.kind)
    return kind, found.name, str(found.failures), state, last, _runs(found), found.verdict


def _runs(found: inventory_pb2.Suspect) -> str:
    """The newest run that failed, as `mulligan run show` takes it, and how many more there are."""
    runs = list(dict.fromkeys(_run(one) for one in found.evidence if one.workflow_id))
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return f"{runs[0]}{more}" if runs else "-"
