"""`mulligan`: where the command line begins and ends.

Commands are imported when they are used, so that help and completion answer at once; every error that is expected
becomes a message, the next command to try, and a named exit code.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

import click

from mulligan.api.cli import exit_codes
from mulligan.api.cli.exit_codes import ExitCode

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
"""Why a write to standard output fails, but for a reader who has left."""

REPLAYS = "mulligan.api.cli.replaying"
"""The module that replays: a command that has it ran Temporal's core."""


class Lazy(NamedTuple):
    """Where a command is, and what the overview says of it."""

    where: str
    help: str


COMMANDS: Mapping[str, Lazy] = {
    "machine": Lazy("mulligan.api.cli.machine:machine", "Ask for machines, look at them, give them back."),
    "run": Lazy("mulligan.api.cli.run:run", "Watch, look into and steer what makes and takes down machines."),
    "top": Lazy("mulligan.api.cli.top.command:top", "Watch and steer runs in flight on a full screen."),
    "provider": Lazy("mulligan.api.cli.provider:provider", "Register hypervisors and servers, and look after them."),
    "bmc": Lazy("mulligan.api.cli.bmc:bmc", "See how the BMCs of servers answer."),
    "image": Lazy("mulligan.api.cli.image:image", "Register and build what machines run."),
    "agent": Lazy("mulligan.api.cli.agent:agent", "Build the deploy agent, which writes and erases servers' disks."),
    "suspect": Lazy(
        "mulligan.api.cli.suspect:suspect", "See what runs failed on, the provider or the image, and put it back."
    ),
    "edit": Lazy("mulligan.api.cli.edit:edit", "See what operators changed by hand: who, when and why."),
    "claim": Lazy("mulligan.api.cli.claim:claim", "Ask why a machine would fit, or not, and list what is claimed."),
    "partition": Lazy("mulligan.api.cli.partition:partition", "Add and list the sites that providers belong to."),
    "up": Lazy("mulligan.api.cli.up:up", "Start everything on this host, with embedded defaults."),
    "down": Lazy("mulligan.api.cli.up:down", "Stop what `mulligan up` started."),
    "server": Lazy("mulligan.api.cli.server:server", "Start an API server."),
    "worker": Lazy("mulligan.api.cli.worker:worker", "Start a control worker or a partition's worker."),
    "demo": Lazy("mulligan.api.cli.demo:demo", "Provision a first machine on this host."),
    "doctor": Lazy("mulligan.api.cli.doctor:doctor", "Say what is missing here, and the command that mends it."),
}


class LazyGroup(click.Group):
    """A group that imports the module of a command only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands' names, in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, imported now; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].where.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes and what the environment may say."""
        with formatter.section("Exit codes"):
            formatter.write_dl(exit_codes.table())
        with formatter.section("Environment"):
            formatter.write_dl([("MULLIGAN_API", "Where the API answers, host:port. Default 127.0.0.1:7420.")])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="mulligan")
def cli() -> None:
    """One request, one machine: claimed, imaged, booted, and proved to be up.

    Data goes to standard output, progress and messages to standard error. Every command takes `--output json`.
    """


def main() -> None:
    """Run the command that was given, and exit."""
    code = run(sys.argv[1:])
    if REPLAYS in sys.modules:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> None:
    """Exit without taking Python down first: threads of Temporal's core, which a replay leaves behind, may still want
    it, and one replay of twenty was aborted so after its verdict."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # what is left has nowhere to go
        code = ExitCode.UNEXPECTED
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run the command that these arguments name; returns its exit code."""
    if sys.stdout is None:
        click.echo("error: standard output is closed, so there is nowhere to answer; nothing was done", err=True)
        return ExitCode.UNEXPECTED
    try:
        result = cli.main(args=arguments, prog_name="mulligan", standalone_mode=False)
    except click.Abort:
        click.echo("interrupted", err=True)
        return ExitCode.DETACHED
    except BrokenPipeError:
        return _drop_output()  # whoever read our output has left
    except Exception as error:  # noqa: BLE001 - the process boundary: known errors are rendered, all others raised on
        return _failed(error, arguments)
    return result if isinstance(result, int) else ExitCode.OK


def _drop_output() -> int:
    """What is still buffered has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.UNEXPECTED


def _failed(error: Exception, arguments: list[str]) -> int:
    from mulligan.api.cli import errors  # noqa: PLC0415 - brings gRPC, which help does not need

    known = errors.explain(error, noun=arguments[0] if arguments else "")
    if known is None and isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename is None:
        click.echo(f"error: the output could not be written: {error.strerror}", err=True)
        return _drop_output()
    if known is None:
        raise error
    errors.render(known, as_json=_wants_json(arguments))
    return known.code


def _wants_json(arguments: list[str]) -> bool:
    """Whether JSON was asked for; read here because the arguments may be what is wrong."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    return any(word == "--output=json" or (word == "--output" and value == "json") for word, value in pairs)
