"""`mulligan edit`: what operators changed by hand on providers and images, outside of any run."""

from __future__ import annotations

import click

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.output import listing, value_of, word, words
from mulligan.api.cli.text import ago, clean
from mulligan.v1 import inventory_pb2

HEAD = ("when", "kind", "name", "who", "what", "why")
SHOWN = 3
"""How many are shown beside a provider."""


@click.group()
def edit() -> None:
    """See what operators changed by hand: who, when and why."""


@edit.command("list")
@click.option("--kind", type=click.Choice(words(inventory_pb2.SuspectKind)), help="Only these. Default: both.")
@click.option("--name", help="Only of this provider or image.")
@click.option("--limit", type=int, help="At most so many, the newest. Default 100.")
@api_command
def list_edits(session: Session, kind: str | None, name: str | None, limit: int | None) -> None:
    """List what was changed by hand on providers and images, the newest first."""
    number = value_of(inventory_pb2.SuspectKind, kind or "unspecified")
    request = inventory_pb2.ListEditsRequest(kind=number, name=name or "", limit=limit or 0)
    stream = session.inventory.ListEdits(request, timeout=session.deadline())
    listing(session, (response.edit for response in stream), HEAD, _row)


def edits_of(session: Session, provider: str) -> list[inventory_pb2.Edit]:
    """The newest changes of a provider."""
    kind = inventory_pb2.SUSPECT_KIND_PROVIDER
    request = inventory_pb2.ListEditsRequest(kind=kind, name=provider, limit=SHOWN)
    return [response.edit for response in session.inventory.ListEdits(request, timeout=session.deadline())]


def edit_text(found: inventory_pb2.Edit) -> str:
    """One change in a line."""
    why = f" ({found.reason})" if found.reason else ""
    return clean(f"{ago(found.at)} ago by {found.actor}: {found.what}{why}")


def _row(found: inventory_pb2.Edit) -> tuple[str, ...]:
    kind = word(inventory_pb2.SuspectKind, found.kind)
    return ago(found.at), kind, found.name, found.actor, found.what, found.reason
