"""How long a real virtual machine takes on this host's libvirt, beside a shell script's and virt-install's."""

from __future__ import annotations

import asyncio
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import libvirt

from mulligan.v1 import machine_pb2, provisioning_pb2, run_pb2
from tests.bench.by_hand import SECONDS, Size, by_script, by_virt_install, remove
from tests.bench.embedded import PROJECT, Embedded, connected
from tests.bench.hypervisor import URL, Hypervisor, this_host
from tests.bench.pictures import add_image
from tests.bench.results import Reach, Result
from tests.e2e.deployment import Deployment
from tests.services.temporal import free_port

FLOOR = (
    "a shell script that makes an overlay and a seed, defines and starts the same domain, and asks for its DHCP lease "
    "every tenth of a second; `of virt-install`: `virt-install --import --cloud-init` and the same wait. The image's "
    "base is in the pool, for all three"
)
_ADD_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Machine:
    """An image, the machine that it is tried with, and how often."""

    image: str
    size: Size
    rounds: int


DEMO, DEBIAN = Size(1, 512, 2), Size(1, 1024, 4)
QUICK = (Machine("demo", DEMO, 1),)
FULL = (Machine("demo", DEMO, 7), Machine("debian-12", DEBIAN, 3))


def measure(quick: bool) -> Result:
    """Run the benchmark."""
    result = Result("vm", FLOOR)
    with tempfile.TemporaryDirectory() as folder, this_host() as hypervisor, Deployment(Path(folder)) as deployment:
        deployment.boot = f"127.0.0.1:{(port := free_port())},{hypervisor.gateway}:{port}"
        deployment.up()
        settings = ["--set", f"pool={hypervisor.name}", "--set", f"network={hypervisor.name}"]
        deployment.mulligan("provider", "add", "this-host", URL, *settings, seconds=_ADD_SECONDS)
        for machine in QUICK if quick else FULL:
            add_image(deployment, machine.image)
            asyncio.run(_measure(result, deployment, hypervisor, machine))
        domains = [domain.name() for domain in hypervisor.domains()]
        result.require(not domains, f"libvirt still has {domains}")
        left = [name for name in hypervisor.pool.listVolumes() if "-base-" not in name]
        result.require(not left, f"the pool still has {left}")
    return result


async def _measure(result: Result, deployment: Deployment, hypervisor: Hypervisor, machine: Machine) -> None:
    """All three in turn, after a machine that brought the image and shows what the script has to make."""
    size, seconds, steps = machine.size, dict[str, list[float]](), dict[str, list[float]]()
    async with connected(deployment) as stack:
        await _provision(stack, machine, "model", {})
        (model,) = hypervisor.domains()
        definition = model.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        base = Path(ET.fromstring(definition).find("devices/disk/backingStore/source").get("file"))  # type: ignore
        _release(deployment, "model")
        for number in range(machine.rounds):
            name = f"round-{number}"
            seconds.setdefault("mulligan", []).append(await _provision(stack, machine, name, steps))
            _release(deployment, name)
            seconds.setdefault("script", []).append(by_script(hypervisor, name, base, size, definition))
            remove(hypervisor, name)
            seconds.setdefault("virt-install", []).append(by_virt_install(hypervisor, name, base, size, definition))
            remove(hypervisor, name)
    ours, script, peer = (median(seconds[way]) for way in ("mulligan", "script", "virt-install"))
    result.add(f"{machine.image}: from request to address", ours, "s", script, Reach(1.05, "ratio"))
    for step, after in steps.items():
        result.add(f"  {machine.image}: {step} after", median(after), "s")
    result.add(f"{machine.image}: of virt-install", ours, "s", peer, Reach(1.0, "ratio"))
    told = "; ".join(f"{way} {min(each):.3g} to {max(each):.3g} s" for way, each in seconds.items())
    result.notes.append(f"{machine.image}, {machine.rounds} rounds of all three in turn: {told}")


async def _provision(stack: Embedded, machine: Machine, name: str, steps: dict[str, list[float]]) -> float:
    """Seconds from the request to the proof of an address; `steps` gets when each action had ended."""
    size = machine.size
    amounts = machine_pb2.Resources(vcpu=size.vcpu, memory_mib=size.memory_mib, disk_gib=size.disk_gib)
    level = machine_pb2.VERIFY_LEVEL_ADDRESS
    spec = machine_pb2.MachineSpec(project=PROJECT, name=name, image=machine.image, resources=amounts, verify=level)
    began, sent, update = time.perf_counter(), time.time(), run_pb2.RunUpdate()
    request = provisioning_pb2.ProvisionMachineRequest(spec=spec)
    async for response in stack.api.ProvisionMachine(request, timeout=SECONDS):
        update = response.update
        if update.event.kind == run_pb2.RUN_EVENT_KIND_ACTION_FINISHED:
            steps.setdefault(update.event.action, []).append(update.event.at.ToNanoseconds() / 1e9 - sent)
    assert update.machine.state == machine_pb2.MACHINE_STATE_READY, f"machine {name} did not become ready: {update}"
    return time.perf_counter() - began


def _release(deployment: Deployment, name: str) -> None:
    deployment.mulligan("machine", "release", name, "--project", PROJECT)
