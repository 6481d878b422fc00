"""The IPMI driver against what it is made for: OpenIPMI's simulator, and virtualbmc over a libvirt domain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import libvirt
import psutil
import pytest

from mulligan.activities.drivers.base import Addresses, BootDevice, BootTarget, Console, Disks, Power
from mulligan.activities.drivers.ipmi import conversation
from mulligan.activities.drivers.ipmi.driver import IpmiDriver
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from mulligan.activities.errors import AccessDenied, Busy, StaleFence, Unsupported
from mulligan.activities.values import Firmware, Kind, PowerState
from tests.drivers.contract import MarkFactory, until
from tests.drivers.ipmi_parts import (
    PASSWORD,
    SIZES,
    Sim,
    a_mark,
    ipmi_sim,
    nothing_left,
    opened,
    served,
    soon,
    speakers,
)
from tests.drivers.server_contract import ServerContract

DOMAIN = f"mulligan-ipmi-{os.getpid()}"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """One simulator for all tests of the module."""
    with ipmi_sim(tmp_path_factory.mktemp("sim") / "bmc") as running:
        yield running


@pytest.fixture(autouse=True)
async def nothing_is_left(connection: libvirt.virConnect) -> AsyncIterator[None]:
    """By any test."""
    async with nothing_left():
        yield


@pytest.fixture(scope="module")
def connection() -> Iterator[libvirt.virConnect]:
    """A connection of the tests' own, open before any test counts sockets."""
    ensure_daemons()
    found = libvirt.open("qemu:///system")
    yield found
    found.close()


@pytest.fixture
def domain(connection: libvirt.virConnect) -> Iterator[libvirt.virDomain]:
    """An emulated machine without a disk, switched off."""
    made = connection.defineXML(
        f"<domain type='qemu'><name>{DOMAIN}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>"
        "<os><type arch='x86_64' machine='q35'>hvm</type><boot dev='hd'/></os></domain>"
    )
    yield made
    with contextlib.suppress(libvirt.libvirtError):  # it is off
        made.destroy()
    made.undefine()


class TestContract(ServerContract):
    """The rules that hold for every driver of a BMC."""

    @pytest.fixture
    async def driver(self, sim: Sim, tmp_path: Path) -> AsyncIterator[IpmiDriver]:
        """On OpenIPMI's simulator."""
        async with opened(sim.port, tmp_path) as driver:
            yield driver

    @pytest.fixture
    def mark(self) -> MarkFactory:
        """Of one machine."""
        return lambda fence=1, machine_id=None: a_mark(fence)


async def test_a_machine_is_inspected(sim: Sim, tmp_path: Path) -> None:
    """Maker, model, serial number, firmware and sensors are the BMC's word; the size is the operator's."""
    async with opened(sim.port, tmp_path, firmware="uefi") as driver:
        found = await driver.inspect(soon())
    assert found.kind is Kind.BARE_METAL
    assert {row.resource: str(row.total) for row in found.inventory} == SIZES
    assert set(found.capabilities) == {"arch.x86_64", "boot.network", "driver.ipmi", "firmware.uefi"}
    assert "--set macs=MAC" in found.facts["not-told"]
    told = {name: found.facts[name] for name in ("vendor", "model", "serial", "bmc", "sensors")}
    assert told == {
        "vendor": "Contoso",
        "model": "R-1",
        "serial": "SN-4711-A",
        "bmc": "firmware 9.08",
        "sensors": "1 read, all well",
    }


async def test_a_machine_whose_cards_are_known_is_given_images(sim: Sim, tmp_path: Path) -> None:
    """It boots the deploy agent from the network, where the boot server knows it by its MAC."""
    async with opened(sim.port, tmp_path, macs="52:54:00:00:00:07") as driver:
        found = await driver.inspect(soon())
    assert {"boot.disk", "boot.network", "deploy.agent"} <= set(found.capabilities)
    assert "not-told" not in found.facts


async def test_sensors_that_are_not_well_are_named(tmp_path: Path) -> None:
    """With what they read: an operator sees it where the server is shown."""
    with ipmi_sim(tmp_path / "hot", degrees=95) as hot:
        async with opened(hot.port, tmp_path) as driver:
            found = await driver.inspect(soon())
    assert found.facts["sensors"] == "1 read, 1 not well: CPU Temp 95.0°C"


async def test_it_can_do_what_ipmi_can(sim: Sim, tmp_path: Path) -> None:
    """Power and boot target; no disks, console or addresses, so that no image is sent its way."""
    async with opened(sim.port, tmp_path) as driver:
        assert isinstance(driver, Power) and isinstance(driver, BootTarget)
        assert not isinstance(driver, Disks | Console | Addresses)
        assert await driver.remains("m-1", soon()) == ()


async def test_power_is_asked_for_once_and_seen(sim: Sim, tmp_path: Path) -> None:
    """The state already there is success, and nothing is asked of the chassis then."""
    async with opened(sim.port, tmp_path) as driver:
        await driver.power_off(a_mark(), soon())
        before = len(sim.changes)
        await driver.power_on(a_mark(), soon())
        assert (sim.read("power"), (await driver.power(a_mark(), soon())).state) == ("1", PowerState.ON)
        await driver.power_on(a_mark(), soon())
        await driver.power_off(a_mark(), soon())
        await driver.power_off(a_mark(), soon())
        assert (sim.read("power"), (await driver.power(a_mark(), soon())).state) == ("0", PowerState.OFF)
    assert sim.changes[before:] == ["power 1", "power 0"]


async def test_the_next_boot_is_told_and_read_back(sim: Sim, tmp_path: Path) -> None:
    """Once from the network, then no override; the simulator never says by which firmware."""
    async with opened(sim.port, tmp_path) as driver:
        reading = await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())
        assert (reading.device, reading.once, reading.agrees) == (BootDevice.NETWORK, True, True)
        assert sim.read("boot") == "pxe"
        assert "not marked valid" in (await driver.boot_override(a_mark(), soon())).detail
        await driver.clear_boot_override(a_mark(), soon())
        assert sim.read("boot") in {"none", "default"}
        assert (await driver.boot_override(a_mark(), soon())).device is None
        with pytest.raises(Unsupported, match="no virtual media"):
            await driver.boot_next(a_mark(), BootDevice.VIRTUAL_MEDIA, Firmware.ANY, soon())


async def test_an_older_claim_changes_nothing(sim: Sim, tmp_path: Path) -> None:
    """Who lost the machine may look at it, but neither switch it nor tell it what to boot; also after it was looked at
    anew, as `provider add` does, by which the newest claim is told."""
    async with opened(sim.port, tmp_path) as driver:
        assert (await driver.inspect(soon())).fence == 0
        await driver.power_off(a_mark(2), soon())
        assert (await driver.inspect(soon())).fence == 2
        before = sim.changes
        for change in (driver.power_on(a_mark(1), soon()), driver.clear_boot_override(a_mark(1), soon())):
            with pytest.raises(StaleFence):
                await change
        assert (await driver.power(a_mark(1), soon())).state is PowerState.OFF
        assert sim.changes == before


@pytest.mark.parametrize(
    ("user", "password", "said"),
    [
        ("mulligan", "wrong", "the password is wrong"),
        ("nobody", PASSWORD, "no such user"),
        ("mulligan", "x" * 21, "more than the 20 bytes"),
        ("m" * 17, PASSWORD, "more than the 16 bytes"),
    ],
)
async def test_wrong_credentials_are_named(sim: Sim, tmp_path: Path, user: str, password: str, said: str) -> None:
    """What was refused, and nothing that was sent."""
    async with opened(sim.port, tmp_path, user=user, password=password) as driver:
        with pytest.raises(AccessDenied, match=said) as caught:
            await driver.inspect(soon())
    assert password not in str(caught.value) + repr(caught.value.metadata) or password == "wrong"


async def test_the_steps_of_a_run_share_a_session(sim: Sim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers opened one after the other use one process, which ends soon after the last one, or with the worker."""
    kept = Kept()
    async with opened(sim.port, tmp_path, kept=kept) as driver:
        await driver.power(a_mark(), soon())
        first = [process.pid for process in speakers()]
    monkeypatch.setattr(conversation, "LINGER_SECONDS", 0.2)
    async with opened(sim.port, tmp_path, kept=kept) as driver, opened(sim.port, tmp_path, kept=kept) as other:
        await asyncio.gather(driver.power(a_mark(), soon()), other.power(a_mark(), soon()))
        assert [process.pid for process in speakers()] == first

    async def gone() -> bool:
        return not speakers()

    await until(gone)
    async with opened(sim.port, tmp_path, kept=kept) as driver:
        await driver.power(a_mark(), soon())
        assert len(speakers()) == 1
        await kept.close()
        assert not speakers()


async def test_a_process_that_was_killed_is_started_again(sim: Sim, tmp_path: Path) -> None:
    """The call after it tells of it, or works; the one after that works."""
    async with opened(sim.port, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        (speaker,) = speakers()
        speaker.kill()

        async def works() -> bool:
            with contextlib.suppress(Exception):
                return (await driver.power(a_mark(), soon())).state is not None
            return False

        await until(works)
        assert [process.pid for process in speakers()] != [speaker.pid]


async def test_a_worker_that_is_killed_leaves_no_process(sim: Sim, tmp_path: Path) -> None:
    """Nobody ends the process then: it sees by itself that its worker is gone."""
    script = (
        "import asyncio, pathlib, sys\n"
        "from tests.drivers.ipmi_parts import a_mark, opened, soon, speakers\n"
        "async def main():\n"
        f"    async with opened({sim.port}, pathlib.Path({str(tmp_path)!r})) as driver:\n"
        "        await driver.power(a_mark(), soon())\n"
        "        print(speakers()[0].pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    root = str(Path(__file__).parents[2])
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=root, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    speaker = psutil.Process(int(await worker.stdout.readline()))
    worker.kill()
    await worker.wait()

    async def gone() -> bool:
        return not speaker.is_running() or speaker.status() == psutil.STATUS_ZOMBIE

    await until(gone)


async def test_virtualbmc_switches_a_real_machine(domain: libvirt.virDomain, tmp_path: Path) -> None:
    """It answers SHA-1 to whoever proposes SHA-256, keeps overrides for good, and knows no "none"."""
    with served(domain=DOMAIN, uri="qemu:///system") as port:
        async with opened(port, tmp_path) as driver:
            assert "boot.network" in (await driver.inspect(soon())).capabilities
            reading = await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())
            assert reading.agrees and "<boot dev='network'/>" in domain.XMLDesc()
            assert not (await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).agrees
            await driver.power_on(a_mark(), soon())
            assert domain.isActive()
            await driver.power_off(a_mark(), soon())
            assert not domain.isActive()
            await driver.clear_boot_override(a_mark(), soon())
            assert "<boot dev='hd'/>" in domain.XMLDesc()


async def test_a_machine_that_cannot_be_switched_on_makes_virtualbmc_busy(
    domain: libvirt.virDomain, tmp_path: Path
) -> None:
    """Its completion code 0xC0 says to try again, and that is how it comes out."""
    broken = domain.XMLDesc().replace("</devices>", f"<disk type='file'><source file='{tmp_path}/none'/>"
                                      "<target dev='sda'/></disk></devices>")  # fmt: skip
    domain.connect().defineXML(broken)
    with served(domain=DOMAIN, uri="qemu:///system") as port:
        async with opened(port, tmp_path) as driver:
            with pytest.raises(Busy, match="code 0xc0") as caught:
                await driver.power_on(a_mark(), soon())
    assert caught.value.after_seconds > 0
    assert not domain.isActive()
