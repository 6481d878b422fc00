"""The API as the commands call it: one channel, the three services, and the options that every command takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import click
import grpc
from pydantic import ValidationError

from mulligan.activities.errors import MulliganError
from mulligan.api.cli.errors import CliError, explain, of_rpc, usage
from mulligan.api.cli.flags import flags_of
from mulligan.api.cli.settings import load_settings
from mulligan.api.cli.text import Duration
from mulligan.api.config import Settings
from mulligan.v1 import images_pb2_grpc, inventory_pb2_grpc, provisioning_pb2_grpc

PATIENCE_SECONDS = 30
"""How long an answer that is not a run may take, unless the command or `--timeout` says otherwise."""

LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")


class Session:
    """One command's connection to the API, and how it shall answer. Use it as a context."""

    def __init__(self, api: str, *, timeout: int | None = None, as_json: bool = False) -> None:
        self.api = api
        self.timeout = timeout
        self.as_json = as_json
        self.channel = grpc.insecure_channel(api, options=channel_options(api))
        self.provisioning = provisioning_pb2_grpc.ProvisioningServiceStub(self.channel)
        self.inventory = inventory_pb2_grpc.InventoryServiceStub(self.channel)
        self.images = images_pb2_grpc.ImagesServiceStub(self.channel)

    def deadline(self, default: int = PATIENCE_SECONDS) -> int:
        """Seconds that a call may take."""
        return self.timeout if self.timeout is not None else default

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()


def channel_options(api: str) -> list[tuple[str, int]]:
    """How the channel to this address behaves: it comes back by itself, within seconds."""
    return [
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 310_000),  # servers take more frequent pings on a quiet stream for abuse
        ("grpc.enable_http_proxy", 0 if api.startswith(LOOPBACK) else 1),
    ]


def address_of(api: str | None) -> str:
    """Where the API answers: as given, else from MULLIGAN_API, else the default."""
    if not api:
        return load_settings().api
    try:
        return Settings(api=api).api
    except ValidationError as error:
        raise usage(f"--api: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def _as_typed(error: CliError, given: Mapping[str, Any]) -> CliError:
    """The same error, which tells of flags where the command was given flags, and of fields where it was a file."""
    if not given.get("file"):
        error.flags = flags_of((field for field, _ in error.violations), click.get_current_context().command)
    return error


def api_command(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that every one takes, and an open `Session` as its first argument."""

    @click.option(
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="json: one object, or one a line for lists and streams.",
    )
    @click.option("--api", metavar="HOST:PORT", help="Where the API answers; else MULLIGAN_API, else this host.")
    @click.option("--timeout", type=Duration(), help="How long to wait or watch, e.g. 90s or 10m.")
    @functools.wraps(function)
    def command(*args: Any, output: str, api: str | None, timeout: int | None, **kwargs: Any) -> Any:
        with Session(address_of(api), timeout=timeout, as_json=output == "json") as session:
            try:
                return function(session, *args, **kwargs)
            except grpc.RpcError as error:
                noun = click.get_current_context().command_path.split()[1]
                raise _as_typed(of_rpc(error, noun=noun, api=session.api), kwargs) from error
            except CliError as error:
                _as_typed(error, kwargs)
                raise
            except MulliganError as error:
                known = explain(error)
                assert known is not None
                raise _as_typed(known, kwargs) from error

    return command
