"""`mulligan agent`: build and look at the image that writes the disks of bare-metal servers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.settings import load_settings
from mulligan.api.cli.text import size

if TYPE_CHECKING:
    from pathlib import Path

    from mulligan.activities.agent.image import AgentImage

OUTPUT = click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="json: one object."
)


@click.group()
def agent() -> None:
    """Build the deploy agent, which writes and erases servers' disks."""


@agent.command()
@click.option(
    "--firmware/--no-firmware",
    default=True,
    show_default=True,
    help="Include what drivers load into network cards and controllers, from Debian's non-free-firmware.",
)
@OUTPUT
def build(firmware: bool, output: str) -> ExitCode:
    """Build the deploy agent's kernel, initrd and ISO on this host, which must run a partition's worker.

    The build that was there stays in use until the new one is complete; building again is always safe.
    """
    from mulligan.activities.agent.build import build_agent  # noqa: PLC0415 - building brings much that show does not need
    from mulligan.api.cli.building import reporting  # noqa: PLC0415

    settings = load_settings()
    with reporting("building the deploy agent") as report:
        workdir = settings.cache_dir / "agent-build"
        image = build_agent(settings.agent_dir, workdir=workdir, progress=report, firmware=firmware)
    _show(image, output)
    return ExitCode.OK


@agent.command()
@OUTPUT
def show(output: str) -> ExitCode:
    """Show the deploy agent that is built here, after reading all of it to see that it is whole."""
    from mulligan.activities.agent.image import AgentImage  # noqa: PLC0415 - only where it is used

    image = AgentImage.load(load_settings().agent_dir)
    image.check()
    _show(image, output)
    return ExitCode.OK


def _show(image: AgentImage, output: str) -> None:
    sizes = {name: path.stat().st_size for name, path in _files(image).items()}
    if output == "json":
        files = {name: {"path": str(path), "size_bytes": sizes[name]} for name, path in _files(image).items()}
        click.echo(json.dumps({"version": image.version, "linux": image.linux, "firmware": image.firmware, **files}))
        return
    click.echo(f"version  {image.version}")
    click.echo(f"linux    {image.linux}")
    click.echo(f"firmware {f'{image.firmware} files' if image.firmware else 'none: built with --no-firmware'}")
    for name, path in _files(image).items():
        click.echo(f"{name:<8} {size(sizes[name]):<9} {path}")


def _files(image: AgentImage) -> dict[str, Path]:
    return {"kernel": image.kernel, "initrd": image.initrd, "iso": image.iso}
