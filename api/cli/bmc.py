"""`mulligan bmc`: how the management controllers of servers answer."""

from __future__ import annotations

import click
import grpc

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.output import as_dict, listing, word
from mulligan.api.cli.text import ago, clock
from mulligan.v1 import inventory_pb2

HEAD = ("bmc", "partition", "providers", "state", "answered", "silent", "asked", "failed", "error")
LIST_SECONDS, PROBE_SECONDS = 40, 120
SHOW_SECONDS = 15
"""How long what is shown of a provider waits for its partition."""


@click.group()
def bmc() -> None:
    """See how the BMCs of servers answer."""


@bmc.command("list")
@click.option("--partition", help="Only those in this partition.")
@click.option("--provider", help="Only the one behind this provider.")
@click.option("--probe", is_flag=True, help="Ask each of them now; it changes nothing, and may take a minute.")
@api_command
def list_bmcs(session: Session, partition: str | None, provider: str | None, probe: bool) -> None:
    """List BMCs: when each answered last, since when it is silent, and why.

    ASKED and FAILED count what was asked of it within the last hour in which it was.
    """
    request = inventory_pb2.ListBmcsRequest(partition=partition or "", provider=provider or "", probe=probe)
    stream = session.inventory.ListBmcs(request, timeout=session.deadline(PROBE_SECONDS if probe else LIST_SECONDS))
    listing(session, (response.bmc for response in stream), HEAD, _row, whole=("bmc",))


def bmc_of(session: Session, provider: inventory_pb2.Provider) -> inventory_pb2.Bmc | None:
    """The BMC behind a provider that is a server; None for any other, and where the API does not say."""
    if provider.kind != inventory_pb2.PROVIDER_KIND_SERVER:
        return None
    request = inventory_pb2.ListBmcsRequest(provider=provider.name)
    try:
        stream = session.inventory.ListBmcs(request, timeout=session.deadline(SHOW_SECONDS))
        return next((response.bmc for response in stream), None)
    except grpc.RpcError:  # what is known of the provider itself is shown all the same
        return None


def health(found: inventory_pb2.Bmc | None) -> str:
    """One line on how a BMC answers; empty where there is none."""
    if found is None:
        return ""
    state, said = found.state, word(inventory_pb2.BmcState, found.state).replace("-", " ")
    if state == inventory_pb2.BMC_STATE_SILENT:
        said += f" since {clock(found.silent_since)}"
    if state == inventory_pb2.BMC_STATE_BUSY:
        said += f" until {clock(found.busy_until)}"
    if found.answered_at.seconds:
        said += f", answered {ago(found.answered_at)} ago"
    return f"{found.name} {said}{f': {found.error}' if found.error else ''}"


def health_as_dict(found: inventory_pb2.Bmc | None) -> dict[str, object]:
    """The same for programs: under `bmc`, where there is one."""
    return {"bmc": as_dict(found)} if found is not None else {}


def _row(found: inventory_pb2.Bmc) -> tuple[str, ...]:
    state = word(inventory_pb2.BmcState, found.state)
    if found.busy_until.seconds:
        state += f" until {clock(found.busy_until)}"
    times = ago(found.answered_at), ago(found.silent_since)
    counts = (str(found.asked), str(found.failed)) if found.counted_since.seconds else ("-", "-")
    return found.name, found.partition, ", ".join(found.providers), state, *times, *counts, found.error or "-"
