"""What Redfish leaves open to makers: where disks are told of, and how a drive is emptied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.activities.errors import Unsupported
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon


@pytest.fixture(params=["Systems", "Managers"])
def bmc(request: pytest.FixtureRequest) -> Iterator[LyingBmc]:
    """A BMC with one machine, its drives under the system or under its manager."""
    with LyingBmc(Machine("1", drives_under=request.param)).listening() as running:
        yield running


async def test_disks_are_read_from_storage(bmc: LyingBmc, tmp_path: Path) -> None:
    """Where a BMC has Storage, its drives count, and not those of the older SimpleStorage."""
    bmc.machine.storage = {"NVMe-A": 1 << 40, "SSD-B": 240 << 30}
    async with opened(bmc, tmp_path) as driver:
        found = await driver.inspect(soon())
    assert found.facts["disks"] == "NVMe-A 1024 GiB, SSD-B 240 GiB"
    assert {row.resource: row.total for row in found.inventory}["disk_gib"] == 1024


DATES = ["", "N/A", "0000-00-00T00:00:00Z", "9" * 400, 0, {}]


@pytest.mark.parametrize("date", DATES)
async def test_a_date_that_is_none_is_not_told(bmc: LyingBmc, tmp_path: Path, date: object) -> None:
    """The server is what it is, and is switched all the same."""
    reset = bmc.machine.system()["Actions"]["#ComputerSystem.Reset"]
    window = {"MaintenanceWindowStartTime": date, "MaintenanceWindowDurationInSeconds": date}
    bmc.machine.more = {
        "BootProgress": {"LastState": "OSRunning", "LastStateTime": date, "LastBootTimeSeconds": date},
        "@Redfish.MaintenanceWindow": window,
        "Actions": {"#ComputerSystem.Reset": reset | {"@Redfish.OperationApplyTimeSupport": window}},
    }
    async with opened(bmc, tmp_path) as driver:
        await driver.inspect(soon())
        await driver.power_on(a_mark(), soon())
        said = await driver.boot_progress(a_mark(), soon())
    assert (said.state, said.at) == ("OSRunning", None)


@pytest.mark.parametrize("said", ["", "N/A", [], {}, {"LastState": {}}])
async def test_a_boot_progress_that_is_none_is_not_told(bmc: LyingBmc, tmp_path: Path, said: object) -> None:
    """Nor is a size that is no number, or a window for maintenance without its parts."""
    memory = {"TotalSystemMemoryGiB": "N/A"}
    bmc.machine.more = {"BootProgress": said, "MemorySummary": memory, "@Redfish.MaintenanceWindow": said}
    async with opened(bmc, tmp_path, a_target(bmc, memory_mib="4096")) as driver:
        await driver.inspect(soon())
        assert await driver.boot_progress(a_mark(), soon()) is None


@pytest.mark.parametrize("kind", ["GPU", "FPGA", "Accelerator", "OEM", "a word of tomorrow"])
async def test_what_computes_and_is_no_cpu_is_no_processor(bmc: LyingBmc, tmp_path: Path, kind: str) -> None:
    """It has no say in whether the server is an x86-64 one, and its cores are not given away."""
    bmc.machine.accelerators["A1"] = {
        "ProcessorType": kind, "ProcessorArchitecture": "OEM", "InstructionSet": "OEM", "Model": "A-100",
        "TotalCores": 16896,
    }  # fmt: skip
    async with opened(bmc, tmp_path) as driver:
        found = await driver.inspect(soon())
    assert {row.resource: row.total for row in found.inventory}["vcpu"] == 32
    assert found.facts["processors"] == "2 x Xeon"


async def test_a_processor_that_says_that_it_is_a_cpu_must_be_an_x86_one(bmc: LyingBmc, tmp_path: Path) -> None:
    """Whatever else is there."""
    bmc.machine.accelerators["CPU3"] = {"ProcessorType": "CPU", "ProcessorArchitecture": "ARM", "TotalCores": 64}
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Unsupported, match="its processors are ARM"):
            await driver.inspect(soon())


async def test_the_card_to_the_bmc_is_none_that_a_server_boots_by(bmc: LyingBmc, tmp_path: Path) -> None:
    """Unless the server has only such cards: then they are told all the same."""
    bmc.machine.mac, bmc.machine.mac_of_bmc = "0c:c4:7a:00:00:01", "be:3a:f2:b6:05:9f"
    async with opened(bmc, tmp_path) as driver:
        assert (await driver.inspect(soon())).settings["macs"] == "0c:c4:7a:00:00:01"
        bmc.machine.mac = "52:54:00:00:00:01"
        assert (await driver.inspect(soon())).settings["macs"] == "52:54:00:00:00:01,be:3a:f2:b6:05:9f"


async def test_media_are_ejected_where_there_is_no_action_for_it(bmc: LyingBmc, tmp_path: Path) -> None:
    """By one PATCH of the drive, which is looked at afterwards; an empty drive is left alone."""
    bmc.machine.ejects_by_action, bmc.machine.image = False, "http://boot.test/old.iso"
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.drops_changes = 1
        await driver.eject_media(a_mark(), soon())
        bmc.lies.drops_changes = 0
        await driver.eject_media(a_mark(), soon())
    assert bmc.machine.image == ""
    assert [(each.method, each.path) for each in bmc.changes()] == [("PATCH", bmc.machine.drive)]


@pytest.mark.parametrize("slash", ["needed", "refused"])
@pytest.mark.parametrize("end", ["", "/"])
async def test_a_slash_at_the_end_is_written_as_the_bmc_wants_it(
    bmc: LyingBmc, tmp_path: Path, slash: str, end: str
) -> None:
    """However the address was registered; what is changed is changed once."""
    bmc.lies.slash = slash
    async with opened(bmc, tmp_path, a_target(bmc, f"/redfish/v1/Systems/1{end}")) as driver:
        await driver.inspect(soon())
        await driver.power_on(a_mark(), soon())
    assert bmc.acts() == ["ComputerSystem.Reset"]


async def test_a_bmc_that_sends_to_and_fro_is_not_followed_for_ever(bmc: LyingBmc, tmp_path: Path) -> None:
    """With a slash it is without, and without it is with one: it is told where the BMC sends."""
    bmc.lies.slash = "never right"
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Unsupported, match=r"elsewhere \(/redfish/v1/?\), with status 308"):
            await driver.power(a_mark(), soon())
