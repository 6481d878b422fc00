"""`mulligan demo`: from nothing to a first machine that one can log in to, saying everything that it does."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import click
import grpc
from rich.console import Console

from mulligan.activities.errors import HostNotReady
from mulligan.api.cli.actor import this_actor
from mulligan.api.cli.client import Session
from mulligan.api.cli.demo_parts import DEMO_IMAGE, SIMULATED_FILE, key_pair, public_file, simulated_image
from mulligan.api.cli.display import evidence_text
from mulligan.api.cli.errors import of_rpc, status_of, tell_next
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.follow import Updates, follow
from mulligan.api.cli.settings import load_settings
from mulligan.api.cli.summary import finish
from mulligan.api.cli.view import RunView
from mulligan.api.config import Settings
from mulligan.api.processes.background import running_stack, start_stack
from mulligan.api.processes.checks_host import mend_host
from mulligan.api.processes.fleet import add_fleet, add_partition
from mulligan.api.processes.health import api_answers
from mulligan.api.processes.stack import PARTITION
from mulligan.v1 import images_pb2, inventory_pb2, machine_pb2, provisioning_pb2

MACHINE = "demo-1"
PROVIDER = "this-host"
URL = "qemu:///system"
FLEET_SIZE = 5

_CALL_SECONDS = 30
_LOOK_SECONDS = 600
_HEALTHY_SECONDS = 60.0


@click.command()
@click.option("--simulated", is_flag=True, help="A simulated fleet instead of this host: no libvirt, no root.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def demo(simulated: bool, output: str) -> int:
    """Provision a first machine on this host, with everything that it takes. Run again, it joins or finds it there."""
    settings = load_settings()
    if simulated:
        _say("THIS IS A SIMULATION: hosts and machines are made up; runs, claims, images and undo are real.")
    _stack(settings)
    with Session(settings.api, as_json=output == "json") as session:
        try:
            add_partition(settings, PARTITION)
            image = _simulated_fleet(session, settings) if simulated else _this_host(session, settings)
            key, public = key_pair(settings.state_dir)
            code, view = _provision(session, _spec(image, public, simulated=simulated))
        except grpc.RpcError as error:
            raise of_rpc(error, noun="demo", api=session.api) from error
    if code is ExitCode.OK and output != "json":
        _closing(settings, view, key, simulated=simulated)
    return code


def _stack(settings: Settings) -> None:
    """Have a stack: this user's, one that answers at the address of the settings, or a new one in the background."""
    if running_stack(settings) is None and not api_answers(settings.api):
        with _busy("starting the embedded stack in the background"):
            start_stack(settings)
        _say(f"the embedded stack is up (state and logs in {settings.state_dir}; stop it with `{_program()} down`)")
        return
    end = time.monotonic() + _HEALTHY_SECONDS
    while not api_answers(settings.api):
        if time.monotonic() > end:
            raise HostNotReady(
                f"the stack of {settings.state_dir} runs, but its API at {settings.api} does not answer",
                remedy="mulligan doctor",
            )
        time.sleep(0.1)
    _say(f"using the stack that answers at {settings.api}")


def _this_host(session: Session, settings: Settings) -> str:
    """Have libvirt, the demo image and this host as a provider; gives the image's name."""
    for line in mend_host():
        _say(line)
    _image(session, settings)
    try:
        session.inventory.GetProvider(inventory_pb2.GetProviderRequest(name=PROVIDER), timeout=_CALL_SECONDS)
    except grpc.RpcError as error:
        if status_of(error) is not grpc.StatusCode.NOT_FOUND:
            raise
        request = inventory_pb2.AddProviderRequest(name=PROVIDER, partition=PARTITION, url=URL)
        with _busy(f"looking at this host ({URL}), and proving its accelerator with a guest"):
            found = session.inventory.AddProvider(request, timeout=_LOOK_SECONDS).provider
        _say(f"{PROVIDER} is registered in partition {PARTITION}: {_amounts(found)}")
    return DEMO_IMAGE


def _image(session: Session, settings: Settings) -> None:
    """Have the demo image registered, with its bytes there. One that only stands for an image gives way to it."""
    from mulligan.api.cli.image_build import build_image  # noqa: PLC0415 - building brings much that nothing else needs

    known = _registered(session, DEMO_IMAGE)
    removal = images_pb2.RemoveImageRequest(name=DEMO_IMAGE, actor=this_actor(), reason="the demo registers it anew")
    file = Path(unquote(urlsplit(known.source).path)) if known is not None else None
    if file is not None and file.name == SIMULATED_FILE:
        session.images.RemoveImage(removal, timeout=_CALL_SECONDS)
        known = None
    elif file is not None and file.exists():
        return
    _say("building the demo image from Debian's packages (once; about half a minute, more on a slow network)")
    built = build_image("demo", DEMO_IMAGE, settings)
    if known is not None and known.digest != built.digest:
        session.images.RemoveImage(removal, timeout=_CALL_SECONDS)
    session.images.AddImage(images_pb2.AddImageRequest(image=built), timeout=_CALL_SECONDS)
    _say(f"image demo is registered: {built.digest[:19]}")


def _simulated_fleet(session: Session, settings: Settings) -> str:
    """Have an image (the real demo's if there is one) and a simulated fleet; gives the image's name."""
    if _registered(session, DEMO_IMAGE) is None:
        image = simulated_image(settings.image_dir)
        session.images.AddImage(images_pb2.AddImageRequest(image=image), timeout=_CALL_SECONDS)
    request = inventory_pb2.ListProvidersRequest(partition=PARTITION)
    listed = session.inventory.ListProviders(request, timeout=_CALL_SECONDS)
    if not any(each.provider.url.startswith("simulated:") for each in listed):
        add_fleet(settings, FLEET_SIZE, PARTITION, say=_say)
    return DEMO_IMAGE


def _registered(session: Session, name: str) -> images_pb2.Image | None:
    try:
        return session.images.GetImage(images_pb2.GetImageRequest(name=name), timeout=_CALL_SECONDS).image
    except grpc.RpcError as error:
        if status_of(error) is grpc.StatusCode.NOT_FOUND:
            return None
        raise


def _spec(image: str, public_key: str, *, simulated: bool) -> machine_pb2.MachineSpec:
    """What the demo asks for: always the same, so that it joins the run or finds the machine that it made."""
    return machine_pb2.MachineSpec(
        name=f"simulated-{MACHINE}" if simulated else MACHINE,
        image=image,
        resources=machine_pb2.Resources(vcpu=1, memory_mib=512, disk_gib=2),
        partition=PARTITION,
        provider="" if simulated else PROVIDER,
        ssh_keys=[public_key],
        verify=machine_pb2.VERIFY_LEVEL_GUEST if simulated else machine_pb2.VERIFY_LEVEL_SERVICE,
    )


def _provision(session: Session, spec: machine_pb2.MachineSpec) -> tuple[ExitCode, RunView]:
    """Ask for the machine and watch its run to the end."""
    view = RunView()
    request = provisioning_pb2.ProvisionMachineRequest(spec=spec)

    def opened(timeout: float | None) -> Updates:
        for response in session.provisioning.ProvisionMachine(request, timeout=timeout):
            if response.joined and not view.joined:
                _say(f"{spec.name} was asked for before: joining its run, or finding it there")
            view.joined = view.joined or response.joined
            yield response.update

    stopped = follow(session, view, opened, until_held=True)
    if stopped is None and view.outcome == "READY" and not session.as_json:
        return ExitCode.OK, view
    return (stopped or finish(session, view)), view


def _closing(settings: Settings, view: RunView, key: Path, *, simulated: bool) -> None:
    """How to log in, where to look, and what to try next."""
    machine = view.machine
    if machine is None:
        return
    spec = machine.spec
    address = ", ".join(machine.addresses) or "no address"
    click.echo(f"\nmachine {machine.name} is up on {machine.provider}: {address}")
    for item in machine.evidence:
        click.echo(f"  verified {evidence_text(item)}")
    if simulated:
        click.echo("This was a simulation, so there is nothing to log in to. `make demo` makes a real machine.")
    elif machine.addresses:
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        click.echo("Log in:")
        click.echo(f"  ssh -i {shlex.quote(str(key))} {options} {machine.login}@{machine.addresses[0]}")
    click.echo("The run, event by event, in Temporal's Web UI:")
    where = f"namespaces/{settings.namespace}/workflows/{quote(view.workflow_id, safe='')}"
    click.echo(f"  http://{settings.temporal_ui}/{where}")
    public = shlex.quote(str(public_file(key)))
    words = (
        f"machine provision second --image {spec.image} --vcpu 1 --memory 512M --disk 2G --ssh-key {public}",
        "machine list",
        f"run show {view.workflow_id}",
        f"machine release {spec.name}",
        "down",
    )
    program = _program()
    tell_next([f"{program} {each}" for each in words])


def _program() -> str:
    """How this user calls this `mulligan`: by its name where PATH leads to it, else by its path."""
    here = Path(sys.argv[0])
    found = shutil.which("mulligan")
    if found is not None and here.exists() and Path(found).samefile(here):
        return "mulligan"
    return os.path.relpath(here) if here.name == "mulligan" else f"{sys.executable} -m mulligan.api.cli"


def _amounts(provider: inventory_pb2.Provider) -> str:
    return ", ".join(f"{row.total} {row.resource}" for row in provider.inventory)


def _say(line: str) -> None:
    click.echo(line, err=True)


@contextmanager
def _busy(message: str) -> Iterator[None]:
    """Show that something takes its time: a spinner on a terminal, else a line."""
    if not sys.stderr.isatty():
        _say(message)
        yield
        return
    with Console(stderr=True, markup=False, highlight=False).status(message):
        yield
