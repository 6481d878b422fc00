"""`mulligan edit`: what operators changed by hand on providers, images and machines, outside of any run."""

from __future__ import annotations

import click

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.output import listing, value_of, word, words
from mulligan.api.cli.text import ago, clean
from mulligan.v1 import inventory_pb2

HEAD = ("when", "kind", "name", "project", "who", "what", "why")
SHOWN = 3
"""How many are shown beside a provider."""


@click.group()
def edit() -> None:
    """See what operators changed by hand: who, when and why."""


@edit.command("list")
@click.option("--kind", type=click.Choice(words(inventory_pb2.EditKind)), help="Only these. Default: all.")
@click.option("--name", help="Only of this provider, image or machine, also when it is gone.")
@click.option("--project", help="Only of machines of this project.")
@click.option("--limit", type=int, help="At most so many, the newest. Default 100.")
@api_command
def list_edits(session: Session, kind: str | None, name: str | None, project: str | None, limit: int | None) -> None:
    """List what was changed by hand on providers, images and machines, the newest first."""
    request = inventory_pb2.ListEditsRequest(
        kind=value_of(inventory_pb2.EditKind, kind or "unspecified"),
        name=name or "",
        project=project or "",
        limit=limit or 0,
    )
    stream = session.inventory.ListEdits(request, timeout=session.deadline())
    listing(session, (response.edit for response in stream), HEAD, _row)


def edits_of(session: Session, provider: str) -> list[inventory_pb2.Edit]:
    """The newest changes of a provider."""
    kind = inventory_pb2.EDIT_KIND_PROVIDER
    request = inventory_pb2.ListEditsRequest(kind=kind, name=provider, limit=SHOWN)
    return [response.edit for response in session.inventory.ListEdits(request, timeout=session.deadline())]


def edit_text(found: inventory_pb2.Edit) -> str:
    """One change in a line."""
    why = f" ({found.reason})" if found.reason else ""
    return clean(f"{ago(found.at)} ago by {found.actor}: {found.what}{why}")


def _row(found: inventory_pb2.Edit) -> tuple[str, ...]:
    kind = word(inventory_pb2.EditKind, found.kind)
    return ago(found.at), kind, found.name, found.project, found.actor, found.what, found.reason
