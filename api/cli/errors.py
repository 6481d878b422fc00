"""Errors as people and programs read them: what was asked, what was found, and the next command to try.

`CliError` is an error with its exit code. Commands raise it, or it is made from what the API answered (status,
ErrorInfo, field violations, explanation), from a domain error of this process (building an image), or from click's
own errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import click
import grpc
import grpc.aio
from google.protobuf import any_pb2, json_format
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from mulligan.activities.errors import MulliganError
from mulligan.api.cli.exit_codes import ExitCode, of_error
from mulligan.api.cli.text import clean
from mulligan.api.cli.typed import again, as_plan
from mulligan.v1 import inventory_pb2

_ANSWERED = (grpc.Call, grpc.aio.AioRpcError)
"""What an error is that came with a status: of a call that waits, or of one that does not."""

LONGER = "10m"
"""How long the same is waited for again that gave no answer in time."""

LISTABLE = frozenset({"machine", "run", "provider", "image", "partition"})


class CliError(Exception):
    """What went wrong, for people and programs. `next_commands` are tried in this order."""

    def __init__(
        self,
        message: str,
        code: ExitCode,
        *,
        reason: str = "",
        violations: Sequence[tuple[str, str]] = (),
        metadata: Mapping[str, str] | None = None,
        explanation: inventory_pb2.Explanation | None = None,
        next_commands: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason or code.name
        self.violations = tuple(violations)
        self.metadata = dict(metadata or {})
        self.explanation = explanation
        self.next_commands = tuple(next_commands)
        self.flags: Mapping[str, str] = {}
        """How people are told of the fields of `violations` that they gave as flags; programs are told of fields."""


def usage(message: str, *next_commands: str) -> CliError:
    """The command itself is wrong."""
    return CliError(message, ExitCode.USAGE, next_commands=next_commands)


def explain(error: Exception, *, noun: str = "") -> CliError | None:
    """The error as shown, or None for one that nobody expected. `noun` is the command's first word."""
    if isinstance(error, CliError):
        return error
    if isinstance(error, grpc.RpcError):
        return of_rpc(error, noun=noun)
    if isinstance(error, MulliganError):
        return _of_domain(error, noun)
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "mulligan"
        return usage(error.format_message(), f"{path} --help")
    if isinstance(error, click.ClickException):
        return CliError(error.format_message(), ExitCode.USAGE)
    return None


def of_rpc(error: grpc.RpcError, *, noun: str = "", api: str = "") -> CliError:
    """What the API answered. `api` is the address that was called, where it is not in the error."""
    status, message = status_of(error), str(error.details() or "") if isinstance(error, _ANSWERED) else str(error)
    info, violations, explanation = _details(error)
    if status is grpc.StatusCode.UNAVAILABLE and info is None:
        return _unanswered(api or "its address", message)
    reason = info.reason if info else ""
    metadata = dict(info.metadata) if info else {}
    return CliError(
        message or status.name,
        of_error(reason, status.name),
        reason=reason or status.name,
        violations=violations,
        metadata=metadata,
        explanation=explanation,
        next_commands=_next(reason or status.name, metadata, noun),
    )


def _unanswered(api: str, message: str) -> CliError:
    """No API answers: the next command depends on whether the stack of this host runs there all the same."""
    pid = _stack_behind(api)
    if pid is None:
        commands: tuple[str, ...] = ("mulligan up", "mulligan doctor")
        return CliError(f"the API does not answer at {api}: {message}", ExitCode.UNAVAILABLE, next_commands=commands)
    return CliError(
        f"the API does not answer at {api}: the stack there runs, as process {pid}, and starts its API server again "
        f"when that ended; try again in a moment ({message})",
        ExitCode.UNAVAILABLE,
        next_commands=("mulligan doctor",),
    )


def _stack_behind(api: str) -> int | None:
    """The process of the embedded stack whose API listens there, if this user may see it."""
    from mulligan.api.cli.settings import load_settings  # noqa: PLC0415 - only here, and it needs this module
    from mulligan.api.processes.stack_file import StackFile  # noqa: PLC0415

    try:
        settings = load_settings()
        file = StackFile(settings.state_dir)
        pid, state = file.holder(), file.read()
    except (CliError, OSError, ValueError):  # wrong settings, another user's state: then it is not known
        return None
    listens = state.api if state is not None else settings.api
    return pid if listens == api else None


def status_of(error: grpc.RpcError) -> grpc.StatusCode:
    """The error's status code."""
    code = error.code() if isinstance(error, _ANSWERED) else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def render(error: CliError, *, as_json: bool) -> None:
    """Write the error to standard error."""
    if as_json:
        click.echo(json.dumps({"error": _as_dict(error)}), err=True)
        return
    message = error.message
    if error.violations:  # each has a line of its own below
        message = message.partition(f": {error.violations[0][0]}: ")[0]
    click.echo(f"{click.style('error:', fg='red', bold=True)} {clean(message, lines=True)}", err=True)
    for field, description in error.violations:
        click.echo(f"  {clean(error.flags.get(field, field))}: {clean(description)}", err=True)
    if error.explanation is not None:
        from mulligan.api.cli.explanation import show_explanation  # noqa: PLC0415 - only here, and it brings rich

        show_explanation(error.explanation, err=True)
    tell_next(error.next_commands)


def tell_next(commands: Iterable[str]) -> None:
    """Say on standard error which commands to try next."""
    for number, command in enumerate(commands):
        click.echo(f"{'next:' if number == 0 else '  or:'} {clean(command)}", err=True)


def _as_dict(error: CliError) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "code": error.code.name,
        "exit_code": int(error.code),
        "reason": error.reason,
        "message": error.message,
        "violations": [{"field": field, "description": text} for field, text in error.violations],
        "metadata": error.metadata,
        "next": list(error.next_commands),
    }
    if error.explanation is not None:
        shown["explanation"] = json_format.MessageToDict(error.explanation, preserving_proto_field_name=True)
    return shown


def _of_domain(error: MulliganError, noun: str) -> CliError:
    violations = getattr(error, "violations", ())
    commands = _next(error.reason, error.metadata, noun)
    return CliError(
        error.message,
        of_error(error.reason),
        reason=error.reason,
        violations=violations,
        metadata=error.metadata,
        next_commands=commands,
    )


def _next(reason: str, metadata: Mapping[str, str], noun: str) -> tuple[str, ...]:
    if remedy := metadata.get("remedy"):
        return (remedy,)
    if "plan" in metadata or metadata.get("what") == "plan":  # it is no more, does not hold, or is of something else
        return (as_plan(),)
    noun = metadata.get("what", noun)
    if reason == "NOT_FOUND" and noun in LISTABLE:
        return (f"mulligan {noun} list",)
    if reason in ("NEVER_FITS", "NOT_NOW"):
        return (as_plan(), "mulligan provider list")
    return _once_more(reason)


def _once_more(reason: str) -> tuple[str, ...]:
    """The same command, where that may do better."""
    if reason == "DEADLINE_EXCEEDED":
        return (again("--timeout", LONGER, without=("--timeout",)),)
    return (again(),) if reason in ("ABORTED", "BUSY") else ()  # it reads the newest state first


def _details(
    error: grpc.RpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, list[tuple[str, str]], inventory_pb2.Explanation | None]:
    """What the status carries besides its message: info, field violations, explanation."""
    info: error_details_pb2.ErrorInfo | None = None
    explanation: inventory_pb2.Explanation | None = None
    violations: list[tuple[str, str]] = []
    try:
        status = rpc_status.from_call(cast(grpc.Call, error)) if isinstance(error, _ANSWERED) else None
    except ValueError:  # the details belong to another status, e.g. one that a proxy made
        status = None
    details: Iterable[any_pb2.Any] = status.details if status else ()
    for detail in details:
        bad, found, why = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo(), inventory_pb2.Explanation()
        if detail.Unpack(found):
            info = found
        elif detail.Unpack(bad):
            violations += [(item.field, item.description) for item in bad.field_violations]
        elif detail.Unpack(why):
            explanation = why
    return info, violations, explanation
