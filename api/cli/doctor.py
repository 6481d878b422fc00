"""`mulligan doctor`: what is missing or misconfigured here, and the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click
import grpc

from mulligan.api.cli.client import Session
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.settings import load_settings
from mulligan.v1 import inventory_pb2

if TYPE_CHECKING:
    from mulligan.api.processes.findings import Finding

_ASK_SECONDS = 5
_MARKS = {"fine": ("ok", "green"), "note": ("--", "yellow"), "wrong": ("!!", "red")}


@click.command()
@click.option("--mend", is_flag=True, help="Start libvirt's daemons and open /dev/kvm to QEMU where that is needed.")
@click.option("--simulated", is_flag=True, help="Look only at what the simulation needs: no libvirt, no image builds.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(mend: bool, simulated: bool, output: str) -> int:
    """Look at this host, and say what is missing and what mends it. Exit code 0 only when nothing is wrong."""
    from mulligan.api.processes.checks_host import mend_host  # noqa: PLC0415 - only this command needs it

    if mend:
        for line in mend_host() or ["nothing had to be mended"]:
            click.echo(line, err=True)
    wrong = 0
    for finding in _findings(simulated=simulated):
        wrong += finding.state.value == "wrong"
        click.echo(json.dumps(asdict(finding)) if output == "json" else _line(finding))
    if output != "json":
        click.echo("nothing is wrong" if not wrong else f"{wrong} of these must be mended first")
    return ExitCode.NOT_READY if wrong else ExitCode.OK


def _findings(*, simulated: bool) -> Iterator[Finding]:
    from mulligan.activities.drivers.registry import lane_of  # noqa: PLC0415 - only this command needs it
    from mulligan.api.processes.checks import stack_checks  # noqa: PLC0415
    from mulligan.api.processes.checks_host import host_checks  # noqa: PLC0415
    from mulligan.api.processes.checks_lanes import lane_findings  # noqa: PLC0415
    from mulligan.api.processes.findings import not_needed  # noqa: PLC0415

    settings = load_settings()
    for check in stack_checks(settings):
        yield check()
    if simulated:
        return
    providers = _providers(settings.api)
    if partitions := {each.partition for each in providers if lane_of(each.url)}:
        yield from lane_findings(settings, partitions)
    is_needed = _uses_libvirt(providers)
    for check in host_checks():
        yield check() if is_needed else not_needed(check(), "libvirt providers, and to build images")


def _providers(api: str) -> list[inventory_pb2.Provider]:
    """All that are registered; none where the API does not answer."""
    try:
        with Session(api) as session:
            stream = session.inventory.ListProviders(inventory_pb2.ListProvidersRequest(), timeout=_ASK_SECONDS)
            return [each.provider for each in stream]
    except grpc.RpcError:  # nothing answers: then only what is installed tells
        return []


def _uses_libvirt(providers: Sequence[inventory_pb2.Provider]) -> bool:
    """Whether a provider is, or may yet be, reached through libvirt: where there is none at all, the binding says so,
    which an installation for the simulation alone lacks."""
    if not providers:
        return find_spec("libvirt") is not None
    return any(each.url.startswith("qemu") for each in providers)


def _line(finding: Finding) -> str:
    word, colour = _MARKS[finding.state.value]
    lines = [f"{click.style(word, fg=colour)}  {finding.name}: {finding.asked} {finding.found}"]
    if finding.remedy:
        lines.append(f"      mend: {finding.remedy}")
    return "\n".join(lines)
