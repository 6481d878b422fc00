"""`mulligan machine`: ask for machines, look at them, give them back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click
import grpc

from mulligan.api.cli.actor import ACTOR, REASON
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.display import evidence_text
from mulligan.api.cli.ending import ending_machines
from mulligan.api.cli.errors import CliError, of_rpc, render, tell_next
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.follow import Updates, follow
from mulligan.api.cli.naming import of_its_machine
from mulligan.api.cli.output import details, listing, print_json, value_of, word, words
from mulligan.api.cli.plan import plan
from mulligan.api.cli.spec_options import CLAIM_OPTIONS, RUN_OPTIONS, options, wanted_spec
from mulligan.api.cli.summary import finish, finish_release, ssh_command
from mulligan.api.cli.text import ago, clock
from mulligan.api.cli.view import RunView
from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2

HEAD = ("name", "project", "state", "partition", "provider", "address", "age")


@click.group()
def machine() -> None:
    """Ask for machines, look at them, give them back."""


@machine.command()
@click.argument("name", required=False)
@options((*CLAIM_OPTIONS, *RUN_OPTIONS))
@click.option("--detach", is_flag=True, help="Start the run, name it, and do not watch it.")
@click.option("--plan", "plan_hash", metavar="HASH", help="Do what `mulligan machine plan` said, or say what changed.")
@api_command
def provision(session: Session, name: str | None, detach: bool, plan_hash: str | None, **flags: Any) -> ExitCode:
    """Make a machine, watch its run, and say how it was proved to be up.

    The same request joins the run, or finds the machine that it made. Ctrl-C stops the watching, not the run.
    """
    spec = wanted_spec(flags, name=name, command="provision")
    view = RunView()
    request = provisioning_pb2.ProvisionMachineRequest(spec=spec, detach=detach, plan_hash=plan_hash or "")

    def opened(timeout: float | None) -> Updates:
        return _updates(session.provisioning.ProvisionMachine(request, timeout=timeout), view)

    if detach:
        return _started(session, view, opened(session.deadline()))
    stopped = follow(session, view, opened, until_held=True)
    return stopped or finish(session, view)


machine.add_command(plan)


@machine.command("list")
@click.option("--project", help="Only machines of this project.")
@click.option("--partition", help="Only machines in this partition.")
@click.option(
    "--state",
    "states",
    type=click.Choice(words(machine_pb2.MachineState)),
    multiple=True,
    help="Only machines in this state. Repeatable. Default: all that are live.",
)
@api_command
def list_machines(session: Session, project: str | None, partition: str | None, states: tuple[str, ...]) -> None:
    """List machines."""
    request = provisioning_pb2.ListMachinesRequest(
        project=project or "",
        partition=partition or "",
        states=[value_of(machine_pb2.MachineState, state) for state in states],
    )
    stream = session.provisioning.ListMachines(request, timeout=session.deadline())
    found = (response.machine for response in stream)
    if session.as_json:
        listing(session, found, HEAD, _row)
        return
    machines = list(found)
    endings = ending_machines(session, machines, request.project)
    listing(session, machines, HEAD, lambda each: _row(each, endings.get(each.id, "")))


@machine.command()
@click.argument("name")
@click.option("--project", help="Default: default.")
@api_command
def show(session: Session, name: str, project: str | None) -> None:
    """Show one machine: where it is, how it was proved, and how to log in."""
    request = provisioning_pb2.GetMachineRequest(project=project or "", name=name)
    response = session.provisioning.GetMachine(request, timeout=session.deadline())
    found = response.machine
    endings = {} if session.as_json else ending_machines(session, (found,), found.project, found.name)
    about = [run for run in response.runs if run.run_id != found.run_id]
    details(session, found, lambda each: (*_facts(each, endings.get(each.id, "")), *of_its_machine(about)))


@machine.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--project", default="", help="Default: default.")
@click.option("--detach", is_flag=True, help="Start the run, name it, and do not watch it.")
@click.option("--forget", is_flag=True, help="Ask nothing of a provider that is gone for good. Only when quarantined.")
@click.option(
    "--erase",
    type=click.Choice(("none", "metadata", "full")),
    help="What is done to a server's disks before it is available again. Default: metadata; none after a live image.",
)
@REASON
@ACTOR
@api_command
def release(session: Session, names: tuple[str, ...], erase: str | None, **fields: Any) -> ExitCode:
    """Take machines down, with their disks, and give their resources back.

    Several are released one after the other; one that cannot be does not keep the others. The exit code is the worst.
    """
    worst = ExitCode.OK
    mode = machine_pb2.EraseMode.Value(f"ERASE_MODE_{(erase or 'unspecified').upper()}")
    asked = provisioning_pb2.ReleaseMachineRequest(erase=mode, **fields)
    for name in dict.fromkeys(names):
        asked.name = name
        try:
            code = _release(session, asked)
        except (grpc.RpcError, CliError) as error:
            known = error if isinstance(error, CliError) else of_rpc(error, noun="machine", api=session.api)
            if len(names) == 1 or known.code is ExitCode.UNAVAILABLE:
                raise
            render(known, as_json=session.as_json)
            code = known.code
        if code in (ExitCode.DETACHED, ExitCode.TIMED_OUT):
            return code
        worst = max(worst, code)
    return worst


def _release(session: Session, request: provisioning_pb2.ReleaseMachineRequest) -> ExitCode:
    view = RunView()

    def opened(timeout: float | None) -> Updates:
        return _updates(session.provisioning.ReleaseMachine(request, timeout=timeout), view)

    if request.detach:
        return _started(session, view, opened(session.deadline()))
    return follow(session, view, opened) or finish_release(session, view, forgotten=request.forget)


def _updates(
    responses: Iterable[provisioning_pb2.ProvisionMachineResponse | provisioning_pb2.ReleaseMachineResponse],
    view: RunView,
) -> Updates:
    for response in responses:
        view.joined = view.joined or response.joined
        yield response.update


def _ending(run: run_pb2.Run | None) -> str:
    """That a run undoes what it made, for whoever joins it."""
    ends = run is not None and run.cancel_requested and run.outcome == run_pb2.RUN_OUTCOME_OPEN
    return ", which is being cancelled, and undoes what it made" if ends else ""


def _started(session: Session, view: RunView, updates: Updates) -> ExitCode:
    """Say which run was started or joined."""
    for update in updates:
        view.feed(update)
        if session.as_json:
            print_json(update, joined=view.joined)
    if not session.as_json:
        click.echo(f"{'joined' if view.joined else 'started'} {view.workflow_id}{_ending(view.run)}")
        tell_next((f"mulligan run watch {view.workflow_id}",))
    return ExitCode.OK


def _state(found: machine_pb2.Machine, ending: str) -> str:
    """Its state, and what is to be known with it. One whose run was cancelled has failed by no fault."""
    is_cancelled = found.state == machine_pb2.MACHINE_STATE_FAILED and found.reason.startswith("cancelled")
    more = "its run was cancelled" if is_cancelled else ending
    return ", ".join(part for part in (word(machine_pb2.MachineState, found.state), more) if part)


def _row(found: machine_pb2.Machine, ending: str = "") -> tuple[str, ...]:
    state, address = _state(found, ending), ", ".join(found.addresses)
    return found.name, found.project, state, found.partition, found.provider, address, ago(found.created_at)


def _facts(found: machine_pb2.Machine, ending: str = "") -> Iterator[tuple[str, str]]:
    sizes = found.spec.resources
    yield "name", found.name
    yield "project", found.project
    yield "state", _state(found, ending)
    yield "why", found.reason
    yield "partition", found.partition
    yield "provider", found.provider
    yield "sizes", f"{sizes.vcpu} vcpu, {sizes.memory_mib} MiB memory, {sizes.disk_gib} GiB disk"
    yield "image", f"{found.spec.image} {found.image_digest}"
    yield "addresses", ", ".join(found.addresses)
    yield "log in", ssh_command(found)
    yield "verified", "\n".join(f"{clock(item.at)} {evidence_text(item)}" for item in found.evidence)
    yield "created", clock(found.created_at)
    yield "ready", clock(found.ready_at)
    yield "run", found.workflow_id
    yield "id", found.id
