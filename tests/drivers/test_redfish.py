"""The Redfish driver on an honest BMC: looking, power, boot override, virtual media, sessions and claims."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.drivers.base import (
    CAPABILITIES,
    BootDevice,
    BootProgress,
    BootTarget,
    Computers,
    Console,
    Disks,
    Power,
    ProgressReading,
    VirtualMedia,
)
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.redfish import bmc as shared
from mulligan.activities.drivers.registry import normalise_url
from mulligan.activities.errors import Conflict, InvalidRequest, NotFound, StaleFence, Unsupported
from mulligan.activities.values import Firmware, Kind, PowerState
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import MarkFactory, soon, until
from tests.drivers.server_contract import ServerContract, VirtualMediaContract

MEDIA = "http://boot.test/run-1/agent.iso"


@pytest.fixture(params=["Systems", "Managers"])
def bmc(request: pytest.FixtureRequest) -> Iterator[LyingBmc]:
    """A BMC with one machine, its drives under the system or under its manager."""
    with LyingBmc(Machine("1", drives_under=request.param)).listening() as running:
        yield running


@pytest.fixture
def plain() -> Iterator[LyingBmc]:
    """A BMC with two machines."""
    with LyingBmc(Machine("1"), Machine("blade-2", serial="SN-4711-B")).listening() as running:
        yield running


class TestContract(ServerContract, VirtualMediaContract):
    """The rules that hold for every driver of a BMC, and for virtual media."""

    @pytest.fixture
    async def driver(self, bmc: LyingBmc, tmp_path: Path) -> AsyncIterator[Any]:
        """On either BMC."""
        async with opened(bmc, tmp_path) as driver:
            yield driver

    @pytest.fixture
    def mark(self) -> MarkFactory:
        """Of one machine."""
        return lambda fence=1, machine_id=None: a_mark(fence, machine_id or "m-1")


async def test_a_server_is_known_by_what_its_bmc_says(bmc: LyingBmc, tmp_path: Path) -> None:
    """Sizes given whole, the largest disk, known capabilities, and facts for people; nothing is changed."""
    async with opened(bmc, tmp_path) as driver:
        found = await driver.inspect(soon())
    assert found.kind is Kind.BARE_METAL
    assert {row.resource: row.capacity for row in found.inventory} == {
        "vcpu": 32,
        "memory_mib": 65536,
        "disk_gib": 960,
    }
    assert set(found.capabilities) == {
        "arch.x86_64",
        "boot.disk",
        "boot.live",
        "boot.live-iso",
        "boot.network",
        "boot.virtual-media",
        "deploy.agent",
        "driver.redfish",
        "firmware.bios",
        "firmware.uefi",
    }
    assert set(found.capabilities) <= set(CAPABILITIES)
    assert found.settings == {"serial": "SN-4711-A", "macs": "52:54:00:00:00:01"}
    told = found.facts
    assert (told["vendor"], told["model"], told["bios"], told["bmc"]) == ("Contoso", "R-1", "2.1", "1.9")
    assert (told["secure-boot"], told["nics"]) == ("on", "nic1 52:54:00:00:00:01")
    assert bmc.changes() == []


async def test_it_says_what_it_can_do_and_no_more(bmc: LyingBmc, tmp_path: Path) -> None:
    """Its disks are written by the agent, so it does not claim to make any itself."""
    async with opened(bmc, tmp_path) as driver:
        assert all(isinstance(driver, each) for each in (Power, BootTarget, VirtualMedia))
        assert not any(isinstance(driver, each) for each in (Disks, Computers, Console))


async def test_what_the_bmc_leaves_out_the_operator_says(plain: LyingBmc, tmp_path: Path) -> None:
    """Settings win over the BMC's numbers."""
    async with opened(plain, tmp_path, a_target(plain, vcpu="8", disk_gib="100")) as driver:
        found = await driver.inspect(soon())
    assert [(row.resource, row.total) for row in found.inventory] == [
        ("vcpu", 8),
        ("memory_mib", 65536),
        ("disk_gib", 100),
    ]


@pytest.mark.parametrize(
    ("settings", "boots", "able"),
    [
        ({}, {"boot.network", "boot.virtual-media"}, True),
        ({"boot_from": "network"}, {"boot.network", "boot.virtual-media"}, True),
        ({"boot_from": "virtual-media"}, {"boot.network"}, False),
        ({}, {"boot.virtual-media"}, True),
        ({"boot_from": "network"}, {"boot.virtual-media"}, False),
    ],
)
async def test_images_are_put_where_the_agent_can_be_booted(
    plain: LyingBmc, tmp_path: Path, settings: dict[str, str], boots: set[str], able: bool
) -> None:
    """By the way that the operator chose, where there is a choice."""
    machine = plain.machines[0]
    machine.sources = ["None", *(["Pxe"] if "boot.network" in boots else []), "Hdd"]
    machine.sources += ["Cd"] if "boot.virtual-media" in boots else []
    async with opened(plain, tmp_path, a_target(plain, **settings)) as driver:
        found = set((await driver.inspect(soon())).capabilities)
    assert {each for each in found if each in ("boot.network", "boot.virtual-media")} == boots
    assert found & {"boot.disk", "deploy.agent"} == ({"boot.disk", "deploy.agent"} if able else set())


async def test_a_card_is_chosen_by_the_operator(plain: LyingBmc, tmp_path: Path) -> None:
    """What is set for `macs` stays, in its one spelling."""
    async with opened(plain, tmp_path, a_target(plain, macs="52-54-00-AA-BB-CC, 52:54:00:aa:bb:cd")) as driver:
        assert (await driver.inspect(soon())).settings["macs"] == "52:54:00:aa:bb:cc,52:54:00:aa:bb:cd"


async def test_power_goes_on_and_off_by_one_request_each(bmc: LyingBmc, tmp_path: Path) -> None:
    """The state that is there already is not asked for."""
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            await driver.power_on(a_mark(), soon())
        assert (await driver.power(a_mark(), soon())).state is PowerState.ON
        for _ in range(2):
            await driver.power_off(a_mark(), soon())
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
    assert [each.body for each in bmc.changes()] == [{"ResetType": "On"}, {"ResetType": "ForceOff"}]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, None),
        ({"LastState": "None"}, None),
        ({"LastState": "Levitating"}, None),
        ({"LastState": "OSBootStarted", "OemLastState": "GRUB"}, ProgressReading("OSBootStarted", None, "GRUB")),
        (
            {"LastState": "OSRunning", "LastStateTime": "2026-01-02T03:04:05Z"},
            ProgressReading("OSRunning", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), running=True),
        ),
        (
            {"LastState": "OSRunning", "LastStateTime": "2026-01-02T03:04:05"},
            ProgressReading("OSRunning", None, "", True),
        ),
    ],
    ids=["not-told", "none", "unknown", "in-between", "running", "no-time-zone"],
)
async def test_the_progress_of_a_boot_is_told(
    plain: LyingBmc, tmp_path: Path, said: dict[str, str], expected: ProgressReading | None
) -> None:
    """Where the BMC has it, and since when where that is a moment."""
    plain.machine.progress = said
    async with opened(plain, tmp_path) as driver:
        assert isinstance(driver, BootProgress)
        assert await driver.boot_progress(a_mark(), soon()) == expected


async def test_the_boot_override_is_asked_for_once_and_read_back(bmc: LyingBmc, tmp_path: Path) -> None:
    """With the firmware that is asked for; the same again sends nothing; cleared it is gone."""
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            said = await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.BIOS, soon())
            assert said.agrees
            assert (said.device, said.firmware, said.once) == (BootDevice.NETWORK, Firmware.BIOS, True)
        assert len(bmc.changes()) == 1
        assert (await driver.boot_override(a_mark(), soon())).detail == "Pxe, Once, Legacy"
        for _ in range(2):
            await driver.clear_boot_override(a_mark(), soon())
        assert (await driver.boot_override(a_mark(), soon())).device is None
    assert len(bmc.changes()) == 2


async def test_media_are_ejected_inserted_and_seen(bmc: LyingBmc, tmp_path: Path) -> None:
    """The last machine's image goes out first, although the BMC calls nothing inserted."""
    bmc.machine.image = "http://boot.test/run-0/old.iso"
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            assert (await driver.insert_media(a_mark(), MEDIA, soon())).url == MEDIA
        assert bmc.acts() == ["VirtualMedia.EjectMedia", "VirtualMedia.InsertMedia"]
        assert await driver.remains("m-1", soon()) == (f"media in Cd: {MEDIA}",)
        for _ in range(2):
            await driver.eject_media(a_mark(), soon())
        assert await driver.remains("m-1", soon()) == ()
        assert [each.url for each in await driver.media(soon())] == [""]
    assert len(bmc.acts()) == 3


async def test_media_must_be_the_runs_own(plain: LyingBmc, tmp_path: Path) -> None:
    """A URL that another run might use too is refused before anything is asked."""
    async with opened(plain, tmp_path) as driver:
        with pytest.raises(InvalidRequest, match="run-1"):
            await driver.insert_media(a_mark(), "http://boot.test/agent.iso", soon())
    assert plain.changes() == []


async def test_who_lost_the_claim_changes_nothing(plain: LyingBmc, tmp_path: Path) -> None:
    """Also after the worker was started again, and after the provider was registered anew: it counts on from there."""
    async with opened(plain, tmp_path) as driver:
        await driver.power_on(a_mark(5), soon())
    async with opened(plain, tmp_path) as driver:
        for attempt in (
            lambda: driver.power_off(a_mark(4), soon()),
            lambda: driver.eject_media(a_mark(4), soon()),
            lambda: driver.boot_next(a_mark(4), BootDevice.DISK, Firmware.ANY, soon()),
        ):
            with pytest.raises(StaleFence):
                await attempt()
        assert (await driver.inspect(soon())).fence == 5
        with pytest.raises(StaleFence):
            await driver.power_off(a_mark(4), soon())
        assert len(plain.changes()) == 1
        await driver.power_off(a_mark(6), soon())


async def test_steps_share_a_session_and_it_is_ended(
    plain: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One session for drivers one after the other and at once; after the last one it ends by itself."""
    monkeypatch.setattr(shared, "LINGER_SECONDS", 0.2)
    kept = Kept()
    first, second = (a_target(plain, path) for path in ("/redfish/v1/Systems/1", "/redfish/v1/Systems/blade-2"))
    async with opened(plain, tmp_path, first, kept) as one, opened(plain, tmp_path, second, kept) as other:
        await asyncio.gather(*(each.power(a_mark(), soon()) for each in (one, other, one)))
    async with opened(plain, tmp_path, first, kept) as again:
        await again.power(a_mark(), soon())
    assert plain.opened == 1
    await until(lambda: no_session(plain))
    async with opened(plain, tmp_path, first, kept) as later:
        await later.power(a_mark(), soon())
    assert plain.opened == 2
    await kept.close()
    assert plain.sessions == {}


async def test_a_cancelled_call_ends_its_session(plain: LyingBmc, tmp_path: Path) -> None:
    """Whatever was under way, and then the session."""
    plain.machine.power = "On"
    plain.lies.late_power = 2

    async def switch() -> None:
        async with opened(plain, tmp_path) as driver:
            await driver.power_on(a_mark(), soon())

    task = asyncio.create_task(switch())
    await until(lambda: as_soon_as(plain.changes))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert plain.sessions == {}
    assert plain.opened == 1


async def no_session(bmc: LyingBmc) -> bool:
    """Whether all sessions were ended."""
    return not bmc.sessions


async def as_soon_as(seen: Any) -> Any:
    """What it gives now."""
    return seen()


async def test_a_serial_number_names_the_machine(plain: LyingBmc, tmp_path: Path) -> None:
    """Without an id, or where the id went to another slot; a stranger in the slot is left alone."""
    by_serial = a_target(plain, "/redfish/v1", serial="SN-4711-B")
    async with opened(plain, tmp_path, by_serial) as driver:
        assert (await driver.inspect(soon())).settings["serial"] == "SN-4711-B"
    moved = a_target(plain, "/redfish/v1/Systems/1", serial="SN-4711-B")
    async with opened(plain, tmp_path, moved) as driver:
        await driver.power_on(a_mark(), soon())
    assert [each.power for each in plain.machines] == ["Off", "On"]
    swapped = a_target(plain, serial="SN-9999")
    async with opened(plain, tmp_path, swapped) as driver:
        with pytest.raises(Conflict, match=r"SN-4711-A, not SN-9999: another machine"):
            await driver.power_on(a_mark(), soon())


async def test_a_system_that_is_not_there_names_those_that_are(plain: LyingBmc, tmp_path: Path) -> None:
    """By id and by serial number; without either when there are several."""
    async with opened(plain, tmp_path, a_target(plain, "/redfish/v1/Systems/7")) as driver:
        with pytest.raises(NotFound, match=r"no system '7'; it has 1 \(serial number SN-4711-A\), blade-2") as error:
            await driver.inspect(soon())
    assert error.value.nearest == ("1", "blade-2")
    async with opened(plain, tmp_path, a_target(plain, "/redfish/v1", serial="SN-0815")) as driver:
        with pytest.raises(NotFound, match="blade-2"):
            await driver.inspect(soon())
    async with opened(plain, tmp_path, a_target(plain, "/redfish/v1")) as driver:
        with pytest.raises(InvalidRequest, match="--set serial=NUMBER"):
            await driver.inspect(soon())


async def test_a_device_that_the_machine_has_not_is_refused(plain: LyingBmc, tmp_path: Path) -> None:
    """By name, and without a request."""
    document = Machine.system

    def diskless(machine: Machine) -> dict[str, Any]:
        made = document(machine)
        made["Boot"]["BootSourceOverrideTarget@Redfish.AllowableValues"] = ["None", "Pxe"]
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Machine, "system", diskless)
        async with opened(plain, tmp_path) as driver:
            with pytest.raises(Unsupported, match="cannot be told to boot from disk; it can from network"):
                await driver.boot_next(a_mark(), BootDevice.DISK, Firmware.ANY, soon())
    assert plain.changes() == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fingerprint": "ab:cd"}, "64 hexadecimal digits"),
        ({"verify": "no"}, "must be on or off"),
        ({"vcpu": "many"}, "whole number"),
        ({"passwort": "x"}, "is unknown"),
        ({"boot_ulr": "http://10.0.0.1:7421"}, "nearest are boot_url"),
        ({"boot_url": "http://10.0.0.1:7421/v1"}, "must be http://HOST"),
        ({"boot_url": "10.0.0.1:7421"}, "must be http://HOST"),
        ({"boot_url": "https://10.0.0.1:7421"}, r"must be http://HOST .*\(not https: the deploy agent speaks no TLS"),
        ({"macs": "52:54:00:00:01"}, "MAC addresses with commas"),
        ({"macs": ","}, "MAC addresses with commas"),
        ({"boot_from": "floppy"}, "auto, virtual-media, network"),
        ({"agent_address": "10.0.0.5"}, "length of its network's prefix"),
        ({"agent_address": "10.0.0.5/24", "agent_gateway": "10.0.1.1"}, "in the network of agent_address, 10.0.0.0/24"),
        ({"agent_gateway": "10.0.0.1"}, "needs the setting agent_address"),
        ({"agent_vlan": "4095"}, "from 1 to 4094"),
        ({"transfer": "gzip"}, "must be one of raw, zstd"),
        ({"check_identity": "no"}, "settings.check_identity must be on or off"),
        ({"agent_address": "10.0.0.5/24", "agent_mac": "eth0"}, "one MAC address"),
    ],
)
async def test_wrong_settings_are_all_named(
    plain: LyingBmc, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    """Before the BMC is asked anything."""
    with pytest.raises(InvalidRequest, match=said):
        async with opened(plain, tmp_path, a_target(plain, **settings)):
            pass
    assert plain.log == []


def test_it_needs_no_libvirt() -> None:
    """A partition of servers only can do without its library."""
    code = "import sys; sys.modules['libvirt'] = None; import mulligan.activities.drivers.redfish"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_address_has_one_spelling() -> None:
    """Scheme and host in lower case, no slash at the end; what gives a server is known to be one."""
    assert normalise_url("REDFISH://BMC-7:8443/redfish/v1/Systems/Aa/") == "redfish://bmc-7:8443/redfish/v1/Systems/Aa"
    assert normalise_url("redfish+http://[fd00::7]") == "redfish+http://[fd00::7]/redfish/v1"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redfish://root:calvin@bmc/redfish/v1/Systems/1", "must not carry a password"),
        ("redfish://root@bmc/redfish/v1/Systems/1", "must not name a user"),
        ("redfish:///redfish/v1/Systems/1", "names no host"),
        ("redfish://bmc/redfish/v1/Managers/1", "must end in /redfish/v1/Systems/ID"),
        ("redfish://bmc/redfish/v1/Systems/1?verify=off", "nothing after the path"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused(url: str, said: str) -> None:
    """With what to write instead."""
    with pytest.raises(InvalidRequest, match=said):
        normalise_url(url)
