"""`mulligan partition`: the sites that providers, claims and machines belong to."""

from __future__ import annotations

import click

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.output import listing, print_json
from mulligan.v1 import inventory_pb2


@click.group()
def partition() -> None:
    """Add and list the sites that providers belong to."""


@partition.command()
@click.argument("name")
@api_command
def add(session: Session, name: str) -> None:
    """Add a partition. Harmless when repeated."""
    request = inventory_pb2.AddPartitionRequest(name=name)
    response = session.inventory.AddPartition(request, timeout=session.deadline())
    if session.as_json:
        print_json(response)
    else:
        click.echo(f"partition {response.name} is there; start its worker with `mulligan worker`")


@partition.command("list")
@api_command
def list_partitions(session: Session) -> None:
    """List partitions."""
    stream = session.inventory.ListPartitions(inventory_pb2.ListPartitionsRequest(), timeout=session.deadline())
    listing(session, stream, ("name",), lambda response: (response.name,))
