"""The IPMI driver before BMCs that are silent, lie, answer nonsense, or lose their answer after they acted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pyghmi.exceptions
import pytest
from pyghmi.exceptions import IpmiException, TemporaryError

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.drivers.ipmi import conversation
from mulligan.activities.drivers.ipmi import driver as drivers
from mulligan.activities.drivers.ipmi.driver import IpmiDriver, open_ipmi
from mulligan.activities.drivers.ipmi.faults import error_of
from mulligan.activities.drivers.ipmi.session import trouble_of
from mulligan.activities.drivers.ipmi.troubles import BmcTrouble, Trouble, trouble_of_completion, trouble_of_status
from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    InvalidRequest,
    Leftover,
    MulliganError,
    Unreachable,
    Unsupported,
)
from mulligan.activities.values import Firmware, PowerState, Target
from tests.drivers.contract import until
from tests.drivers.ipmi_parts import (
    PASSWORD,
    Relay,
    Sim,
    Spoil,
    a_mark,
    ipmi_sim,
    nothing_left,
    opened,
    served,
    soon,
    speakers,
)

OPEN_SESSION, RAKP2 = 0x11, 0x13


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """One honest simulator behind all relays."""
    with ipmi_sim(tmp_path_factory.mktemp("sim") / "bmc") as running:
        yield running


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """By any test."""
    async with nothing_left():
        yield


def at(payload: int, offset: int, value: int) -> Spoil:
    """Change one byte of the answers of one kind."""

    def spoil(answer: bytearray) -> bytearray:
        if answer[4] == 6 and answer[5] & 0x3F == payload and len(answer) > offset:
            answer[offset] = value
        return answer

    return spoil


def only_ipmi_15(answer: bytearray) -> bytearray:
    """Say in the authentication capabilities that there is no IPMI 2.0."""
    if answer[4] == 0:
        answer[22], answer[24] = answer[22] & 0x7F | 4, 0
    return answer


def silent_on(payload: int) -> Spoil:
    """Swallow the answers of one kind."""
    return lambda answer: None if answer[4] == 6 and answer[5] & 0x3F == payload else answer


SPOILT: dict[str, tuple[Spoil, type[MulliganError], str]] = {
    "silent": (lambda _answer: None, Unreachable, "no-answer"),
    "no-ipmi": (lambda _answer: b"HTTP/1.0 400 Bad Request", Unreachable, "garbled"),
    "noise": (lambda _answer: b"\x06\x00\xff\x07" + b"\xa5" * 21, Unreachable, "no-answer"),
    "truncated": (lambda answer: answer[: len(answer) - 8], Unreachable, "garbled"),
    "truncated-session": (
        lambda answer: answer[:20] if answer[4] == 6 else answer,
        Unreachable,
        "garbled",
    ),
    "no-session-free": (at(OPEN_SESSION, 17, 0x01), Busy, "no-session"),
    "no-cipher": (at(OPEN_SESSION, 17, 0x11), Unsupported, "no-cipher"),
    "other-cipher": (at(OPEN_SESSION, 32, 0x02), Unsupported, "no-cipher"),
    "no-privilege": (at(RAKP2, 17, 0x0A), AccessDenied, "not-allowed"),
    "lost-session": (at(OPEN_SESSION, 17, 0x08), Unreachable, "session-lost"),
    "silent-on-user": (silent_on(RAKP2), Unreachable, "silent-on-user"),
    "too-old": (only_ipmi_15, Unsupported, "too-old"),
}


async def log_in_through(sim: Sim, folder: Path, fault: str) -> tuple[type[MulliganError], str]:
    """What the driver says of a BMC whose answers are spoilt so."""
    with Relay(sim.port, SPOILT[fault][0]) as relay:
        async with opened(relay.port, folder) as driver:
            with pytest.raises(MulliganError) as caught:
                await driver.power(a_mark(), soon())
    assert f"127.0.0.1:{relay.port}" in caught.value.message
    assert "None" not in caught.value.message
    assert PASSWORD not in str(caught.value) + repr(caught.value.metadata)
    return type(caught.value), caught.value.metadata["trouble"]


AT_ONCE = 4
"""So many log-ins that fail: each has a process of its own, which must come as far as its fault within the limit."""


async def test_a_log_in_that_fails_is_named(sim: Sim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its type, and by a name; with a sentence that says of whom, and nothing that was sent. A few at once."""
    monkeypatch.setattr(conversation, "LOG_IN_SECONDS", 6.5)
    faults, said = list(SPOILT), list[tuple[type, str]]()
    for start in range(0, len(faults), AT_ONCE):
        said += await asyncio.gather(
            *(log_in_through(sim, tmp_path, fault) for fault in faults[start : start + AT_ONCE])
        )
    assert dict(zip(SPOILT, said, strict=True)) == {fault: (kind, name) for fault, (_, kind, name) in SPOILT.items()}


async def test_a_lost_answer_is_asked_for_again(sim: Sim, tmp_path: Path) -> None:
    """UDP loses some: the first answer within the session is swallowed, and the machine is switched on all the same."""
    lost: list[bytearray] = []

    def spoil(answer: bytearray) -> bytearray | None:
        if answer[4] == 6 and answer[5] & 0x3F == 0 and not lost:
            return lost.append(answer)
        return answer

    with Relay(sim.port, spoil) as relay:
        async with opened(relay.port, tmp_path) as driver:
            await driver.power_on(a_mark(), soon())
            assert (sim.read("power"), len(lost)) == ("1", 1)
            await driver.power_off(a_mark(), soon())


async def test_a_silent_bmc_costs_no_more_than_the_deadline(sim: Sim, tmp_path: Path) -> None:
    """The call ends with it, the loop never stands still meanwhile, and the process is gone."""
    turns, gaps = 0, 0.0
    with Relay(sim.port, lambda _answer: None) as relay:
        async with opened(relay.port, tmp_path) as driver:
            began = time.monotonic()
            asking = asyncio.create_task(driver.power(a_mark(), soon(1.0)))
            while not asking.done():
                turn = time.monotonic()
                await asyncio.sleep(0.01)
                turns, gaps = turns + 1, max(gaps, time.monotonic() - turn)
            with pytest.raises(Unreachable):
                await asking
            took = time.monotonic() - began
            assert not speakers()
    assert took < 1.0 + conversation.END_SECONDS + 5.0
    assert turns > 20
    assert gaps < 1.0


async def test_a_cancel_ends_the_process(sim: Sim, tmp_path: Path) -> None:
    """Once the cancel comes out nothing speaks with the BMC any more, and the next call works."""
    with Relay(sim.port, lambda _answer: None) as relay:
        async with opened(relay.port, tmp_path) as driver:
            asking = asyncio.create_task(driver.power_on(a_mark(), soon()))

            async def asked() -> bool:
                return relay.asked > 0

            await until(asked)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not speakers()
            relay.spoil = lambda answer: answer
            assert (await driver.power(a_mark(), soon())).state is PowerState.OFF


async def test_one_bmc_is_asked_one_thing_at_a_time(sim: Sim, tmp_path: Path) -> None:
    """Who waits longer than its deadline is told that it is busy."""
    with Relay(sim.port, lambda _answer: None) as relay:
        async with opened(relay.port, tmp_path) as driver:
            first = asyncio.create_task(driver.power(a_mark(), soon(2.0)))

            async def asked() -> bool:
                return relay.asked > 0

            await until(asked)
            with pytest.raises(Busy, match="one thing at a time"):
                await driver.power(a_mark(), soon(0.3))
            with pytest.raises(Unreachable):
                await first


@contextlib.asynccontextmanager
async def lying(tmp_path: Path, *lies: str) -> AsyncIterator[tuple[IpmiDriver, Path]]:
    """A driver on a BMC that lies so; gives its log of changes too."""
    log = tmp_path / "changes"
    log.touch()
    with served(lies=list(lies), log=str(log)) as port:
        async with opened(port, tmp_path) as driver:
            yield driver, log


async def test_an_act_whose_answer_is_lost_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The BMC switches on and is silent from then on: unreachable; it was asked for power once, and it is on."""
    monkeypatch.setattr(conversation, "CALL_SECONDS", {**conversation.CALL_SECONDS, "switch": 1.5})
    async with lying(tmp_path, "drops") as (driver, log):
        with pytest.raises(Unreachable, match="does not answer"):
            await driver.power_on(a_mark(), soon())
    assert log.read_text() == "power on\n"


async def test_power_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    """The order is given once; the call ends when the BMC says that it is so."""
    async with lying(tmp_path, "late") as (driver, log):
        await driver.power_on(a_mark(), soon())
        assert (await driver.power(a_mark(), soon())).state is PowerState.ON
        assert log.read_text() == "power on\n"


async def test_the_session_is_given_back(tmp_path: Path) -> None:
    """BMCs have few; closing the driver logs out before its process ends."""
    async with lying(tmp_path) as (driver, log):
        await driver.power(a_mark(), soon())
        assert not log.with_suffix(".closed").exists()
        await driver.close()

        async def closed() -> bool:
            return log.with_suffix(".closed").exists()

        await until(closed)


async def test_power_that_never_comes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that still runs is never taken for one that is off."""
    monkeypatch.setattr(drivers, "SETTLE_SECONDS", 0.5)
    async with lying(tmp_path, "stuck") as (driver, _log):
        with pytest.raises(Busy, match="still says off"):
            await driver.power_on(a_mark(), soon())


@pytest.mark.parametrize(
    ("lie", "kind", "trouble"),
    [
        ("busy", Busy, "busy"),
        ("forbidden", AccessDenied, "not-allowed"),
        ("short", Unreachable, "garbled"),
    ],
)
async def test_a_completion_code_is_named(tmp_path: Path, lie: str, kind: type[MulliganError], trouble: str) -> None:
    """Busy asks for patience, a missing privilege does not, and a short answer is none."""
    async with lying(tmp_path, lie) as (driver, log):
        with pytest.raises(kind) as caught:
            await driver.power_on(a_mark(), soon())
        assert caught.value.metadata["trouble"] == trouble
    assert log.read_text() == ""


CODES: Mapping[type[MulliganError], tuple[str, str]] = {
    Busy: ("busy", "81 c0 c3 c4 c5 ce d0 d1 d2 d3 d5"),
    Unsupported: ("not-offered", "80 82 c1 c2 c7 c8 c9 ca cb cc cd d6"),
    AccessDenied: ("not-allowed", "d4"),
}
"""What each completion code is told as (IPMI 2.0, table 5-2)."""
FAILED = "01 be c6 ff"
"""Those that say that it failed (01 is a vendor's, be a command's own): a BMC that says so answers."""


async def test_every_completion_code_is_told_by_type_and_name(tmp_path: Path) -> None:
    """With the code itself; nothing was done, and the session goes on."""
    expected = {code: (kind, name) for kind, (name, codes) in CODES.items() for code in codes.split()}
    expected |= dict.fromkeys(FAILED.split(), (Busy, "failed"))
    said: dict[str, tuple[type[MulliganError], str]] = {}
    async with lying(tmp_path, *(f"code-{code}" for code in expected)) as (driver, log):
        for code in expected:
            with pytest.raises(MulliganError, match=f"code 0x{code}") as caught:
                await driver.power_on(a_mark(), soon())
            said[code] = (type(caught.value), caught.value.metadata["trouble"])
        assert len(speakers()) == 1
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
    assert said == expected
    assert log.read_text() == ""


async def test_an_order_that_came_before_is_looked_for(tmp_path: Path) -> None:
    """A BMC that says "duplicated request" (0xCF) has it, and may have carried it out: it is not sent again."""
    async with lying(tmp_path, "duplicate") as (driver, log):
        await driver.power_on(a_mark(), soon())
        assert (await driver.power(a_mark(), soon())).state is PowerState.ON
    assert log.read_text() == "power on\n"


def test_whatever_a_bmc_or_the_library_says_has_a_name() -> None:
    """Every completion code, every status of a log-in, and everything that pyghmi raises: an error with words of its
    own, and no text that might hold what is secret."""
    own = [each for each in vars(pyghmi.exceptions).values() if isinstance(each, type) and issubclass(each, Exception)]
    raised = [each() if each is not pyghmi.exceptions.FallbackData else each(None) for each in own]
    theirs = [OSError(101, "No route"), socket.gaierror(), UnicodeError(), IndexError(), KeyError(PASSWORD)]
    troubles = [trouble_of(each) for each in (*raised, *theirs, NotImplementedError(PASSWORD))]
    troubles += [BmcTrouble(trouble_of_completion(code), "", code) for code in range(1, 256)]
    troubles += [BmcTrouble(trouble_of_status(code), "", code) for code in range(1, 256)]
    troubles += [BmcTrouble(each) for each in Trouble]
    errors = [error_of(each, "srv-1", "bmc-1:623", "switching on") for each in troubles]
    kinds = {Unreachable, Busy, Unsupported, AccessDenied}
    assert {type(each) for each in errors} == kinds
    assert not [each for each in errors if PASSWORD in each.message or "bmc-1:623" not in each.message]
    assert not [each for each in errors if each.metadata["trouble"] not in set(Trouble)]
    lost = IpmiException("Session no longer connected")
    named = [trouble_of(each).trouble for each in (theirs[0], lost, IpmiException("", 0xC0), TemporaryError())]
    assert named == [Trouble.NO_ANSWER, Trouble.SESSION_LOST, Trouble.BUSY, Trouble.BUSY]


async def test_a_process_that_stands_still_costs_no_more_than_the_deadline(sim: Sim, tmp_path: Path) -> None:
    """Whatever keeps it: it is killed, and the next call has another one."""
    async with opened(sim.port, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        (speaker,) = speakers()
        speaker.suspend()
        began = time.monotonic()
        with pytest.raises(Unreachable, match="in the time given for it"):
            await driver.power(a_mark(), soon(1.0))
        assert time.monotonic() - began < 1.0 + conversation.END_SECONDS + 5.0
        assert not speaker.is_running()
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF


async def test_a_bmc_without_boot_flags_lacks_a_capability(tmp_path: Path) -> None:
    """It is registered without booting from the network, and says so when it is asked."""
    async with lying(tmp_path, "no-boot-flags") as (driver, _log):
        assert "boot.network" not in (await driver.inspect(soon())).capabilities
        with pytest.raises(Unsupported, match="code 0xc1"):
            await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())


async def test_an_override_that_is_forgotten_does_not_agree(tmp_path: Path) -> None:
    """The reading says what was asked and what is; the machine must not be switched on then."""
    async with lying(tmp_path, "forgets") as (driver, log):
        reading = await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())
    assert (reading.asked, reading.device, reading.agrees) == (BootDevice.NETWORK, None, False)
    assert log.read_text() == "boot network\n"


async def test_an_override_that_stays_is_left_over(tmp_path: Path) -> None:
    """It is said what the BMC still wants to boot."""
    async with lying(tmp_path) as (driver, _log):
        await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())
        assert (await driver.boot_override(a_mark(), soon())).device is BootDevice.NETWORK
        await driver.clear_boot_override(a_mark(), soon())
        assert (await driver.boot_override(a_mark(), soon())).device is None
    async with lying(tmp_path, "sticky") as (driver, _log):
        await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon())
        with pytest.raises(Leftover, match="network, once"):
            await driver.clear_boot_override(a_mark(), soon())


async def test_a_host_without_an_address_is_unreachable(tmp_path: Path) -> None:
    """The name is wrong, or DNS is; nothing more is tried."""
    target = Target("srv-1", "default", "ipmi://no-such-bmc.invalid")
    driver = await open_ipmi(target, Credential("u", "p"), tmp_path, None)
    with pytest.raises(Unreachable, match="no address"):
        await driver.power(a_mark(), soon())
    with pytest.raises(InvalidRequest, match="--set vcpu=NUMBER --set memory_mib=NUMBER --set disk_gib=NUMBER"):
        await driver.inspect(soon())
    await driver.close()
