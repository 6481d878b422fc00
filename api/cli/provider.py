"""`mulligan provider`: register hypervisors and servers, and look after them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import click

from mulligan.api.cli.actor import ACTOR, REASON
from mulligan.api.cli.bmc import bmc_of, health, health_as_dict
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.edit import edit_text, edits_of
from mulligan.api.cli.errors import usage
from mulligan.api.cli.output import as_dict, details, listing, pairs, print_json, word
from mulligan.api.cli.suspect import suspicion
from mulligan.v1 import inventory_pb2

LOOK_SECONDS = 600
"""How long looking at a provider may take: it boots something there, to prove the accelerator."""

TELL_SECONDS = 30
"""How long a change may take: runs under way are told of it, and each may take a while to answer."""

FOUND = "(as found when it was added last; what was set since is not in them)"
"""What is to be known of facts: `provider set` looks at nothing."""

HEAD = ("name", "partition", "kind", "state", "vcpu", "memory", "disk", "url")


@click.group()
def provider() -> None:
    """Register hypervisors and servers, and look after them."""


@provider.command()
@click.argument("name")
@click.argument("url")
@click.option("--partition", help="The site that it is in. Default: default.")
@click.option(
    "--set",
    "settings",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting of its driver, e.g. accelerator=tcg. Repeatable.",
)
@click.option(
    "--credential",
    metavar="REFERENCE",
    help="Its entry in credentials.yaml on the partition's worker. Never the credential.",
)
@api_command
def add(
    session: Session, *, name: str, url: str, partition: str | None, settings: tuple[str, ...], credential: str | None
) -> None:
    """Look at a provider and register what was found. Repeated, it looks again.

    URL is e.g. qemu:///system, qemu+ssh://user@host/system, redfish://bmc/redfish/v1/Systems/1,
    ipmi://bmc or simulated://fleet/host.
    """
    request = inventory_pb2.AddProviderRequest(
        name=name,
        partition=partition or "",
        url=url,
        settings=dict(pairs(settings, "--set")),
        credential=credential or "",
    )
    with _busy(f"looking at {url}; this may take a minute", quiet=session.as_json):
        response = session.inventory.AddProvider(request, timeout=session.deadline(LOOK_SECONDS))
    _changed(session, response)


@provider.command("list")
@click.option("--partition", help="Only providers in this partition.")
@api_command
def list_providers(session: Session, partition: str | None) -> None:
    """List providers."""
    request = inventory_pb2.ListProvidersRequest(partition=partition or "")
    stream = session.inventory.ListProviders(request, timeout=session.deadline())
    listing(session, (response.provider for response in stream), HEAD, _row)


@provider.command()
@click.argument("name")
@api_command
def show(session: Session, name: str) -> None:
    """Show one provider: what it has, what it can, what was measured, and what failed on it."""
    request = inventory_pb2.GetProviderRequest(name=name)
    found = session.inventory.GetProvider(request, timeout=session.deadline())
    bmc, edits = bmc_of(session, found.provider), edits_of(session, name)
    if session.as_json:
        suspect = as_dict(found.suspect) if found.HasField("suspect") else None
        said = [as_dict(each) for each in edits]
        print_json(found.provider, suspect=suspect, edits=said, **health_as_dict(bmc))
        return
    more = (("bmc", health(bmc)), ("edited", "\n".join(edit_text(each) for each in edits)))
    details(session, found.provider, lambda provider: (*_facts(provider), *more, *suspicion(found.suspect)))


@provider.command()
@click.argument("name")
@click.option("--forget", is_flag=True, help="Ask nothing of it: it is gone for good.")
@REASON
@ACTOR
@api_command
def remove(session: Session, name: str, forget: bool, reason: str, actor: str) -> None:
    """Forget a provider, and remove the images that are kept there. Refused while a machine holds something of it."""
    request = inventory_pb2.RemoveProviderRequest(name=name, forget=forget, reason=reason, actor=actor)
    with _busy(f"removing what is kept on {name}", quiet=session.as_json or forget):
        response = session.inventory.RemoveProvider(request, timeout=session.deadline(LOOK_SECONDS))
    if session.as_json:
        print_json(response)
        return
    kept = "what is kept there for images stays there" if forget else f"{len(response.removed)} image base(s) removed"
    click.echo(f"provider {name} is forgotten; {kept}")


@provider.command("set")
@click.argument("name")
@click.option("--enable/--disable", "enabled", default=None, help="Whether new claims may be made on it.")
@click.option("--reserve", metavar="RESOURCE=N", multiple=True, help="Keep back for itself, e.g. vcpu=2. Repeatable.")
@click.option(
    "--overcommit", metavar="RESOURCE=PERCENT", multiple=True, help="E.g. vcpu=400 for four times as much. Repeatable."
)
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="A setting of its driver. Repeatable.")
@click.option("--clear-quarantine", is_flag=True, help="Put it back into service.")
@click.option("--clear-suspect", is_flag=True, help="Forget its failures.")
@click.option("--clear-dirty", is_flag=True, help="Take it as erased.")
@REASON
@ACTOR
@api_command
def set_provider(
    session: Session,
    *,
    name: str,
    enabled: bool | None,
    reserve: tuple[str, ...],
    overcommit: tuple[str, ...],
    settings: tuple[str, ...],
    clear_quarantine: bool,
    clear_suspect: bool,
    clear_dirty: bool,
    reason: str,
    actor: str,
) -> None:
    """Change a provider. What is not named stays; fails when someone else changes it at the same time."""
    request = inventory_pb2.UpdateProviderRequest(
        name=name,
        enabled=enabled,
        reserved=dict(_amounts(reserve, "--reserve")),
        overcommit_percent=dict(_amounts(overcommit, "--overcommit")),
        settings=dict(pairs(settings, "--set")),
        clear_quarantine=clear_quarantine,
        clear_suspect=clear_suspect,
        clear_dirty=clear_dirty,
    )
    if request == inventory_pb2.UpdateProviderRequest(name=name):
        raise usage(f"nothing to change on {name} was named", "mulligan provider set --help")
    request.reason, request.actor = reason, actor
    request.generation = _read(session, name).generation
    response = session.inventory.UpdateProvider(request, timeout=session.deadline(TELL_SECONDS))
    _changed(session, response)


def _changed(
    session: Session, response: inventory_pb2.AddProviderResponse | inventory_pb2.UpdateProviderResponse
) -> None:
    if session.as_json:
        print_json(response.provider, told=[as_dict(each) for each in response.told])
        return
    told = "\n".join(f"{each.workflow_id}: {each.said}" for each in response.told)
    details(session, response.provider, lambda provider: (*_facts(provider), ("told", told)))


def _read(session: Session, name: str) -> inventory_pb2.Provider:
    request = inventory_pb2.GetProviderRequest(name=name)
    return session.inventory.GetProvider(request, timeout=session.deadline()).provider


def _amounts(texts: tuple[str, ...], option: str) -> Iterator[tuple[str, int]]:
    for resource, amount in pairs(texts, option):
        if not amount.isdecimal():
            raise click.BadParameter(f"{amount!r} is not a whole number", param_hint=option)
        yield resource, int(amount)


@contextlib.contextmanager
def _busy(message: str, *, quiet: bool) -> Iterator[None]:
    """Say on standard error that something takes its time: by a spinner on a terminal, and not to programs."""
    if quiet:
        yield
        return
    if not sys.stderr.isatty():
        click.echo(message, err=True)
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only where there is a terminal

    with Console(stderr=True, markup=False, highlight=False).status(message):
        yield


def _state(found: inventory_pb2.Provider) -> str:
    states = [] if found.enabled else ["disabled"]
    states += ["quarantined"] if found.quarantined else []
    states += ["dirty"] if found.dirty else []
    states += [f"suspect ({found.suspect_count})"] if found.suspect_count else []
    return ", ".join(states) or "in service"


def _row(found: inventory_pb2.Provider) -> tuple[str, ...]:
    rows = {row.resource: f"{row.used}/{_capacity(row)}" for row in found.inventory}
    kind = word(inventory_pb2.ProviderKind, found.kind)
    used = (rows.get(resource, "-") for resource in ("vcpu", "memory_mib", "disk_gib"))
    return found.name, found.partition, kind, _state(found), *used, found.url


def _capacity(row: inventory_pb2.InventoryRow) -> int:
    return (row.total - row.reserved) * row.overcommit_percent // 100


def _facts(found: inventory_pb2.Provider) -> Iterator[tuple[str, str]]:
    yield "name", found.name
    yield "partition", found.partition
    yield "kind", word(inventory_pb2.ProviderKind, found.kind)
    yield "url", found.url
    yield "state", _state(found)
    yield "quarantined", found.quarantined
    for row in found.inventory:
        kept = f", {row.reserved} reserved" if row.reserved else ""
        over = f", {row.overcommit_percent} % overcommit" if row.overcommit_percent != 100 else ""
        yield row.resource, f"{row.used} of {_capacity(row)} used ({row.total} in all{kept}{over})"
    yield "capabilities", "\n".join(found.capabilities)
    yield "settings", "\n".join(f"{key}={value}" for key, value in sorted(found.settings.items()))
    yield "credential", found.credential
    facts = [f"{key}: {value}" for key, value in sorted(found.facts.items())]
    yield "facts", "\n".join([*facts, FOUND] if facts else [])
    yield "generation", str(found.generation)
