"""`mulligan run export` and `run replay`: a run as one file, read and replayed without any server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.display import event_lines
from mulligan.api.cli.errors import CliError, tell_next, usage
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.output import as_dict
from mulligan.api.cli.text import clean, elapsed, size
from mulligan.v1 import provisioning_pb2, run_pb2

if TYPE_CHECKING:
    from mulligan.activities.events import RunEvent
    from mulligan.api.capsule_file import Capsule, Said
    from mulligan.api.replay import Verdict

EXPORT_SECONDS = 300
STREAM = Path("-")
"""Stands for standard output where a capsule is written, and for standard input where one is read."""


@click.command()
@click.argument("workflow_id", metavar="ID")
@click.option("--run-id", help="One execution of several. Default: the newest.")
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Default: the id, .capsule; - for standard output.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@api_command
def export(session: Session, workflow_id: str, run_id: str | None, path: Path | None, force: bool) -> None:
    """Write all that is known of a run into one file: history, story, evidence, driver transcript, versions.

    It holds no secrets: user data and where credentials are kept are left out. What machines said is in it.
    """
    if path == STREAM:
        _refuse_to_stream(session)
    path = path or Path(f"{workflow_id.replace(':', '-').replace('/', '-')}.capsule")
    if path != STREAM and path.exists() and not force:
        raise _is_there(path)
    request = provisioning_pb2.ExportRunRequest(workflow_id=workflow_id, run_id=run_id or "")
    data = b"".join(
        part.part for part in session.provisioning.ExportRun(request, timeout=session.deadline(EXPORT_SECONDS))
    )
    if path == STREAM:
        sys.stdout.buffer.write(data)
        return
    _write(path, data, force)
    if session.as_json:
        click.echo(json.dumps({"workflow_id": workflow_id, "file": str(path), "bytes": len(data)}))
        return
    click.echo(f"{workflow_id} is in {path} ({size(len(data))})")
    tell_next((f"mulligan run replay {path}",))


@click.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--step", is_flag=True, help="Wait for Enter between events; needs a terminal.")
@click.option(
    "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="json: one object."
)
def replay(path: Path, step: bool, output: str) -> ExitCode:
    """Tell the story of an exported run, and say whether today's workflow code would do the same. Needs no server.

    FILE may be -, for a capsule on standard input.
    """
    from mulligan.api.capsule_file import history_of  # noqa: PLC0415 - only here, and it brings Temporal
    from mulligan.api.cli.replaying import replayed  # noqa: PLC0415 - the same

    if step and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise usage("--step waits for Enter, and there is no terminal to press it on; leave --step out")
    capsule = _read(path)
    history = history_of(capsule, _named(path))
    if output == "table":
        _tell(capsule, step=step)
    if history is None:
        raise _cannot_be_replayed(capsule)
    verdict = replayed(history)
    if output == "json":
        click.echo(json.dumps(_as_dict(capsule, verdict)))
    else:
        _tell_verdict(capsule, verdict)
    return ExitCode.OK if verdict.agrees else ExitCode.DISAGREES


def _refuse_to_stream(session: Session) -> None:
    if session.as_json:
        raise usage("--file - writes the capsule itself to standard output; leave --output json out, or name a file")
    if sys.stdout.isatty():
        raise usage("a capsule is compressed, and nothing for a terminal; name a file, or pipe it somewhere")


def _named(path: Path) -> str:
    """What a capsule's place is called."""
    return "standard input" if path == STREAM else str(path)


def _write(path: Path, data: bytes, force: bool) -> None:
    """Write all of it, or leave what was there."""
    target = path.with_name(f".{path.name}.part") if force else path
    try:
        file = target.open("wb" if force else "xb")
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with file:
            file.write(data)
        target.replace(path)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _read(path: Path) -> Capsule:
    from mulligan.api.capsule_file import MOST_COMPRESSED, unpack  # noqa: PLC0415

    try:
        with click.open_file(str(path), "rb") as file:
            data = file.read(MOST_COMPRESSED + 1)
    except FileNotFoundError:
        export_it = ("mulligan run list", "mulligan run export --help")
        raise CliError(f"there is no file {path}", ExitCode.NOT_FOUND, next_commands=export_it) from None
    except OSError as error:
        raise CliError(f"{_named(path)} cannot be read: {error.strerror}", ExitCode.DENIED) from error
    if len(data) > MOST_COMPRESSED:
        raise usage(f"{_named(path)} is larger than {size(MOST_COMPRESSED)}, which no capsule is")
    return unpack(data, _named(path))


def _tell(capsule: Capsule, *, step: bool) -> None:
    for name, value in _facts(capsule):
        if value:
            click.echo(clean(f"{name:<10}{value}"))
    click.echo()
    for lines in _story(capsule):
        for line in lines:
            click.echo(line)
        if step:
            sys.stdout.flush()
            if not sys.stdin.readline():
                raise click.Abort


def _facts(capsule: Capsule) -> Iterator[tuple[str, str]]:
    run = capsule.run
    yield "run", run.workflow_id
    yield "kind", run.kind
    yield "machine", f"{run.machine} of project {run.project}" if run.machine else ""
    yield "outcome", str(run.outcome)
    yield "why", run.reason
    if run.started_at is not None and run.ended_at is not None:
        yield "took", elapsed((run.ended_at - run.started_at).total_seconds())
    yield "exported", f"{capsule.exported_at:%Y-%m-%dT%H:%M:%SZ}"
    yield "by", ", ".join(f"{name} {version}" for name, version in capsule.versions.items())
    yield "bounds", ", ".join(_bounds(capsule.configuration))


def _bounds(configuration: Mapping[str, Any]) -> Iterator[str]:
    """`claim_seconds 600` and so on; those of the deadlines too."""
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            yield from _bounds(value)
        else:
            yield f"{name} {value}"


def _story(capsule: Capsule) -> Iterator[list[str]]:
    """The lines of each event, with what the driver was asked for until then."""
    waiting = list(capsule.transcript)
    for event in capsule.events:
        try:
            lines = _event(event, capsule.run.run_id)
        except ValueError:  # what no run can have told, e.g. an attempt beyond all numbers
            raise usage(f"event {event.id} of this capsule is damaged; export the run again") from None
        while waiting and waiting[0].event_id <= event.id:
            lines.append(_verbs(waiting.pop(0)))
        yield lines


def _event(event: RunEvent, run_id: str) -> list[str]:
    from mulligan.api.convert_runs import event_message  # noqa: PLC0415 - brings the inventory

    return event_lines(event_message(event, run_id))


def _verbs(said: Said) -> str:
    calls = []
    for verb in said.verbs:
        count = f" x{verb.count}" if verb.count > 1 else ""
        calls.append(f"{verb.name}{count} {verb.seconds:.3f} s{f' {verb.said}' if verb.said else ''}")
    before = "" if said.attempt else " (the attempt before)"
    return clean(f"    driver{before}: {', '.join(calls)}")


def _tell_verdict(capsule: Capsule, verdict: Verdict) -> None:
    click.echo()
    if verdict.agrees:
        click.echo("agrees: today's workflow code does what this history says, event by event")
        return
    click.echo(f"DISAGREES: today's workflow code would not do what this history says: {clean(verdict.why)}")
    before = [event for event in capsule.events if event.id <= verdict.event_id]
    if before:
        click.echo(f"  at history event {verdict.event_id}, after:")
        for line in _event(before[-1], capsule.run.run_id):
            click.echo(f"  {line}")


def _as_dict(capsule: Capsule, verdict: Verdict) -> dict[str, Any]:
    """The capsule as JSON: run, events and evidence as every other command writes them."""
    from pydantic import TypeAdapter  # noqa: PLC0415

    from mulligan.api.capsule_file import Capsule as Kind  # noqa: PLC0415
    from mulligan.api.convert import evidence_message  # noqa: PLC0415
    from mulligan.api.convert_runs import event_message  # noqa: PLC0415

    told: dict[str, Any] = TypeAdapter(Kind).dump_python(
        capsule, mode="json", exclude={"history", "run", "events", "evidence"}
    )
    try:
        run = as_dict(_run(capsule))
        events = [as_dict(event_message(event, capsule.run.run_id)) for event in capsule.events]
        evidence = [as_dict(evidence_message(each)) for each in capsule.evidence]
    except ValueError:  # what no run can have told, e.g. an attempt beyond all numbers
        raise usage("an event of this capsule is damaged; export the run again") from None
    return {
        **told,
        "run": run,
        "events": events,
        "evidence": evidence,
        "replay": {"agrees": verdict.agrees, "why": verdict.why, "event_id": verdict.event_id},
    }


def _run(capsule: Capsule) -> run_pb2.Run:
    from mulligan.api.convert_runs import RunView, run_message  # noqa: PLC0415
    from mulligan.api.enums import RunKind  # noqa: PLC0415

    run = capsule.run
    view = RunView(
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        kind=RunKind(run.kind),
        project=run.project,
        machine=run.machine,
        machine_id=run.machine_id,
        outcome=run.outcome,
        reason=run.reason,
        started_at=run.started_at,
        ended_at=run.ended_at,
    )
    return run_message(view)


def _cannot_be_replayed(capsule: Capsule) -> CliError:
    return CliError(
        f"this capsule holds no history and cannot be replayed: Temporal had forgotten {capsule.run.workflow_id} when "
        "it was exported. Its story is all there is; export runs before their retention has passed",
        ExitCode.CONFLICT,
        reason="NO_HISTORY",
    )


def _is_there(path: Path) -> CliError:
    return CliError(
        f"{path} is there already; name another with --file, or write over it with --force", ExitCode.CONFLICT
    )


def _unwritable(path: Path, error: OSError) -> CliError:
    return CliError(f"{path} cannot be written: {error.strerror}; name another place with --file", ExitCode.USAGE)
