"""`mulligan up` and `mulligan down`: the embedded stack, started and stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click
import grpc

from mulligan.api.cli.settings import load_settings

if TYPE_CHECKING:
    from mulligan.api.config import Settings

_COUNT_SECONDS = 3

_output = click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)


@click.command()
@click.option("--detach", is_flag=True, help="Run in the background; returns when everything is healthy.")
@click.option("--simulated", type=click.IntRange(min=1), metavar="N", help="Add a fleet of N simulated hosts.")
@_output
def up(detach: bool, simulated: int | None, output: str) -> None:
    """Start Temporal, the API server and a worker, with all state in one directory.

    A process that dies is started again. Everything ends with this command; what was done is kept, and the next
    `mulligan up` goes on where this one was.
    """
    from mulligan.api.processes.background import start_stack  # noqa: PLC0415 - only this command needs it
    from mulligan.api.processes.stack import run_stack  # noqa: PLC0415

    settings = load_settings()
    if detach:
        start_stack(settings)
        _seed(settings, simulated)
        _announce(settings, "Mulligan is up, in the background. Stop it with `mulligan down`.", output)
        return

    async def when_healthy() -> None:
        await asyncio.to_thread(_seed, settings, simulated)
        _announce(settings, "Mulligan is up. Stop it with Ctrl-C.", output)

    _tell(f"starting the embedded stack; state and logs are in {settings.state_dir}")
    asyncio.run(run_stack(settings, say=_tell, when_healthy=when_healthy))
    _tell("everything has stopped")


@click.command()
@_output
def down(output: str) -> None:
    """Stop the embedded stack of this state directory; what it knows is kept."""
    from mulligan.api.processes.background import stop_stack  # noqa: PLC0415 - only this command needs it

    settings = load_settings()
    pid = stop_stack(settings, _tell_stopping(settings))
    if output == "json":
        click.echo(json.dumps({"stopped": pid is not None, "pid": pid, "state_dir": str(settings.state_dir)}))
    elif pid is None:
        click.echo(f"nothing to stop: no stack of {settings.state_dir} runs")
    else:
        said = f"the stack of {settings.state_dir} (process {pid}) has stopped; machines run on"
        click.echo(f"{said}, and `mulligan up` goes on where it was")


def _tell_stopping(settings: Settings) -> Callable[[str], None]:
    """Says what is stopped; after the first line also what becomes of the runs that are open now."""
    from mulligan.api.cli.client import Session  # noqa: PLC0415 - only `down` needs it
    from mulligan.v1 import provisioning_pb2, run_pb2  # noqa: PLC0415

    open_runs = 0
    asked = provisioning_pb2.ListRunsRequest(outcome=run_pb2.RUN_OUTCOME_OPEN, limit=10_000)
    with Session(settings.api) as session, suppress(grpc.RpcError):  # it is stopped all the same
        open_runs = sum(1 for _ in session.provisioning.ListRuns(asked, timeout=_COUNT_SECONDS))
    told = [f"  open runs: {open_runs}; each goes on where it was with the next `mulligan up`"] if open_runs else []

    def say(line: str) -> None:
        _tell(line)
        while told:
            _tell(told.pop())

    return say


def _seed(settings: Settings, simulated: int | None) -> None:
    from mulligan.api.processes.fleet import add_fleet, add_partition  # noqa: PLC0415 - only `up` needs it
    from mulligan.api.processes.stack import PARTITION  # noqa: PLC0415

    add_partition(settings, PARTITION)
    if simulated:
        add_fleet(settings, simulated, PARTITION, say=_tell)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _announce(settings: Settings, headline: str, output: str) -> None:
    from mulligan.api.processes.listeners import BOOT_PORT, fixed_addresses  # noqa: PLC0415 - only `up` needs it

    boot = ", ".join(fixed_addresses(settings.boot_listen))
    if output == "json":
        facts = {"api": settings.api, "web_ui": f"http://{settings.temporal_ui}", "boot_server": boot}
        click.echo(json.dumps({**facts, "state_dir": str(settings.state_dir)}))
        return
    bridges = f" (and port {BOOT_PORT} of libvirt's bridges)" if settings.boot_listen == "auto" else ""
    click.echo(headline)
    click.echo(f"  API          {settings.api}")
    click.echo(f"  Web UI       http://{settings.temporal_ui}")
    click.echo(f"  boot server  {boot}{bridges}")
    click.echo(f"  state        {settings.state_dir}")
