"""Which BMC answers over IPMI: one that is not the one that was added is left alone, whatever is to be done."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.drivers.ipmi import conversation
from mulligan.activities.drivers.ipmi.driver import IpmiDriver, open_ipmi
from mulligan.activities.errors import Conflict
from mulligan.activities.values import Firmware, Identity, Kind, PowerState, Target
from tests.drivers.ipmi_parts import PASSWORD, SIZES, Relay, Sim, a_mark, ipmi_sim, nothing_left, served, soon
from tests.drivers.ipmi_server import USER

OTHER = "b123456789abcdefb123456789abcdef"


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """The BMC that was added."""
    with ipmi_sim(tmp_path_factory.mktemp("sim") / "bmc") as running:
        yield running


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """Another server's."""
    with ipmi_sim(tmp_path_factory.mktemp("sim") / "other", guid=OTHER) as running:
        yield running


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """By any test."""
    async with nothing_left():
        yield


@contextlib.asynccontextmanager
async def known(port: int, guid: str, folder: Path, **settings: str) -> AsyncIterator[IpmiDriver]:
    """The driver of a provider that was added when its BMC told this GUID."""
    target = Target("srv-1", "default", f"ipmi://127.0.0.1:{port}", SIZES | settings, "rack", Identity(guid=guid))
    driver = await open_ipmi(target, Credential(USER, PASSWORD), folder, None)
    try:
        yield driver
    finally:
        await driver.close()


async def told(sim: Sim, folder: Path) -> str:
    """What a look at the server keeps of the BMC's GUID."""
    async with known(sim.port, "", folder) as driver:
        facts = (await driver.inspect(soon())).facts
    return Identity.of(Kind.BARE_METAL, f"ipmi://127.0.0.1:{sim.port}", facts).guid


VERBS: dict[str, Callable[[IpmiDriver], Awaitable[object]]] = {
    "power": lambda driver: driver.power(a_mark(), soon()),
    "power-on": lambda driver: driver.power_on(a_mark(), soon()),
    "power-off": lambda driver: driver.power_off(a_mark(), soon()),
    "boot-next": lambda driver: driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.BIOS, soon()),
    "boot-override": lambda driver: driver.boot_override(a_mark(), soon()),
    "clear-boot-override": lambda driver: driver.clear_boot_override(a_mark(), soon()),
}


@pytest.mark.parametrize("verb", VERBS)
async def test_another_servers_bmc_is_left_alone(sim: Sim, other: Sim, tmp_path: Path, verb: str) -> None:
    """Its address leads elsewhere by now; both GUIDs are said, and what to look at."""
    ours, theirs = await told(sim, tmp_path), await told(other, tmp_path)
    before = other.changes
    async with known(other.port, ours, tmp_path) as driver:
        with pytest.raises(Conflict, match=f"GUID {theirs}, not {ours}: .*DHCP.*add the provider again"):
            await VERBS[verb](driver)
    assert other.changes == before


async def test_a_look_before_it_is_added_again_takes_what_is_there(other: Sim, sim: Sim, tmp_path: Path) -> None:
    """Whether it may be another one is for the inventory to say, which knows what is held."""
    async with known(other.port, await told(sim, tmp_path), tmp_path) as driver:
        assert (await driver.inspect(soon())).facts["uuid"] == await told(other, tmp_path)


async def test_the_same_bmc_is_asked_once_in_a_session(sim: Sim, tmp_path: Path) -> None:
    """Also where newer firmware swaps the bytes; the next verb is one packet."""
    swapped = "a1234567-89ab-cdef-a123-456789abcdef"
    assert await told(sim, tmp_path) != swapped
    with Relay(sim.port, lambda answer: answer) as relay:
        async with known(relay.port, swapped, tmp_path) as driver:
            await driver.power_on(a_mark(1), soon())
            asked = relay.asked
            assert (await driver.power(a_mark(1), soon())).state is PowerState.ON
            assert relay.asked == asked + 1


async def test_it_is_asked_anew_in_the_session_after_a_long_pause(
    sim: Sim, other: Sim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address leads to another server's BMC by then."""
    ours, before = await told(sim, tmp_path), other.changes
    with Relay(sim.port, lambda answer: answer) as relay:
        async with known(relay.port, ours, tmp_path) as driver:
            await driver.power_off(a_mark(), soon())
            relay._bmc = ("127.0.0.1", other.port)
            monkeypatch.setattr(conversation, "IDLE_SECONDS", -1.0)
            with pytest.raises(Conflict, match=f"not {ours}: another server's"):
                await driver.power_on(a_mark(), soon())
    assert other.changes == before


@pytest.mark.parametrize("guid", ["00000000-0000-0000-0000-000000000000", "no guid", ""])
async def test_what_tells_no_servers_apart_is_not_checked(other: Sim, tmp_path: Path, guid: str) -> None:
    """Makers' carelessness."""
    async with known(other.port, guid, tmp_path) as driver:
        await driver.power_off(a_mark(), soon())


async def test_it_is_not_checked_where_the_operator_says_so(sim: Sim, other: Sim, tmp_path: Path) -> None:
    """For BMCs that tell another one each time."""
    async with known(other.port, await told(sim, tmp_path), tmp_path, check_identity="off") as driver:
        await driver.power_off(a_mark(), soon())


async def test_a_bmc_that_tells_none_any_more_is_not_refused(sim: Sim, tmp_path: Path) -> None:
    """Nothing says that it is another one."""
    with served(lies=[], log=str(tmp_path / "log")) as port:
        async with known(port, await told(sim, tmp_path), tmp_path) as driver:
            assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
