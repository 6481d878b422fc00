"""`mulligan doctor`: what is missing or misconfigured here, and the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.settings import load_settings

if TYPE_CHECKING:
    from mulligan.api.processes.findings import Finding

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
    from mulligan.api.processes.checks import stack_checks  # noqa: PLC0415 - only this command needs it
    from mulligan.api.processes.checks_host import host_checks  # noqa: PLC0415

    for check in stack_checks(load_settings()):
        yield check()
    if not simulated:
        for check in host_checks():
            yield check()


def _line(finding: Finding) -> str:
    word, colour = _MARKS[finding.state.value]
    lines = [f"{click.style(word, fg=colour)}  {finding.name}: {finding.asked} {finding.found}"]
    if finding.remedy:
        lines.append(f"      mend: {finding.remedy}")
    return "\n".join(lines)
