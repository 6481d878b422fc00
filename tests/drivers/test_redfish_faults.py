"""The Redfish driver on a BMC that lies: every fault has its error, and no change is ever sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sushy import exceptions

from mulligan.activities.drivers.base import BootDevice, Deadline
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.lane import Lane
from mulligan.activities.drivers.redfish import media, power
from mulligan.activities.drivers.redfish.address import Host
from mulligan.activities.drivers.redfish.faults import speaking
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    InvalidRequest,
    Leftover,
    MulliganError,
    NotFound,
    Unreachable,
    Unsupported,
)
from mulligan.activities.values import Firmware, PowerState, Target
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, credentials_in, opened
from tests.drivers.bmc.server import PASSWORD, LyingBmc
from tests.drivers.contract import soon, until

MEDIA = "http://boot.test/run-1/agent.iso"


@pytest.fixture
def bmc(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingBmc]:
    """A BMC; what the driver waits for, it waits for a moment only."""
    monkeypatch.setattr(power, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(power, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(media, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(media, "_LOOK_SECONDS", 0.02)
    with LyingBmc(Machine("1")).listening() as running:
        yield running


async def test_a_change_whose_answer_is_lost_is_sent_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """The BMC acts and drops the connection: what is there afterwards says that it was done."""
    async with opened(bmc, tmp_path) as driver:
        for verb in (
            lambda: driver.insert_media(a_mark(), MEDIA, soon()),
            lambda: driver.boot_next(a_mark(), BootDevice.VIRTUAL_MEDIA, Firmware.UEFI, soon()),
            lambda: driver.power_on(a_mark(), soon()),
            lambda: driver.power_off(a_mark(), soon()),
            lambda: driver.eject_media(a_mark(), soon()),
            lambda: driver.clear_boot_override(a_mark(), soon()),
        ):
            before = len(bmc.changes())
            bmc.lies.drops_changes = 9
            await verb()
            bmc.lies.drops_changes = 0
            assert len(bmc.changes()) == before + 1
    assert (bmc.machine.power, bmc.machine.image, bmc.machine.enabled) == ("Off", "", "Disabled")


async def test_a_change_that_is_answered_too_late_is_sent_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """The deadline passes while the BMC thinks; the next attempt finds it done."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.slow = 1
        with pytest.raises(Unreachable):
            await driver.power_on(a_mark(), Deadline.after(1))
        await driver.power_on(a_mark(), soon())
    assert bmc.acts() == ["ComputerSystem.Reset"]


async def test_power_that_is_told_late_is_waited_for_and_not_asked_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """Each attempt looks for a moment and says so; none sends the change again."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.late_power = 10**6
        for _ in range(3):
            with pytest.raises(Busy, match="asked for power on, and still says Off") as error:
                await driver.power_on(a_mark(), soon())
            assert error.value.after_seconds > 0
        bmc.lies.late_power = 0
        await driver.power_on(a_mark(), soon())
        assert (await driver.power(a_mark(), soon())).state is PowerState.ON
    assert len(bmc.changes()) == 1


async def test_power_that_is_told_late_is_not_taken_for_what_is_wanted_now(bmc: LyingBmc, tmp_path: Path) -> None:
    """It was switched on and still says Off: who wants it off then must not believe that, or it would run on."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.late_power = 10**6
        with pytest.raises(Busy):
            await driver.power_on(a_mark(), soon())
        with pytest.raises(Busy, match="asked for power on, and still says Off"):
            await driver.power_off(a_mark(), soon())
        bmc.lies.late_power = 0
        await driver.power_off(a_mark(), soon())
    assert [each.body["ResetType"] for each in bmc.changes()] == ["On", "ForceOff"]
    assert bmc.machine.power == "Off"


@pytest.mark.parametrize(
    ("status", "text"),
    [(409, "in use"), (503, "later"), (500, "oops"), (400, "SYS518: iDRAC is not ready"), (400, "system is in POST")],
)
async def test_a_busy_bmc_is_given_time(bmc: LyingBmc, tmp_path: Path, status: int, text: str) -> None:
    """Every verb of change is refused once, sent once, and says how long to wait; then it works."""
    bmc.machine.image = "http://boot.test/run-0/old.iso"
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.busy_status, bmc.lies.busy_text = status, text
        for verb in (
            *([] if status == 500 else [lambda: driver.power_on(a_mark(), soon())]),  # it may be done all the same
            lambda: driver.eject_media(a_mark(), soon()),
            lambda: driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.ANY, soon()),
        ):
            before, bmc.lies.busy = len(bmc.changes()), 1
            with pytest.raises(Busy) as error:
                await verb()
            assert error.value.after_seconds >= 5
            assert len(bmc.changes()) == before + 1
            await verb()
            assert [each.acted for each in bmc.changes()[before:]] == [False, True]


async def test_a_bmc_may_say_itself_how_long(bmc: LyingBmc, tmp_path: Path) -> None:
    """Its Retry-After is the cool-down."""
    bmc.lies.busy, bmc.lies.retry_after = 1, "42"
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy) as error:
            await driver.power_on(a_mark(), soon())
    assert error.value.after_seconds == 42


async def test_a_refusal_for_good_is_final(bmc: LyingBmc, tmp_path: Path) -> None:
    """A 400 that does not ask for patience is not tried again."""
    bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, 400, "PropertyValueNotInList"
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Unsupported, match="PropertyValueNotInList"):
            await driver.power_on(a_mark(), soon())
    assert len(bmc.changes()) == 1


async def test_media_that_stick_are_left_over(bmc: LyingBmc, tmp_path: Path) -> None:
    """Nothing is inserted over them, and the drive and what is in it are named."""
    bmc.machine.image, bmc.lies.sticky_media = "http://boot.test/run-0/old.iso", True
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Leftover, match=r"drive Cd .* still names http://boot.test/run-0/old.iso"):
            await driver.insert_media(a_mark(), MEDIA, soon())
        bmc.lies.sticky_media = False
        await driver.insert_media(a_mark(), MEDIA, soon())
    assert bmc.acts() == ["VirtualMedia.EjectMedia", "VirtualMedia.InsertMedia"]


def test_no_part_of_a_password_is_left_where_a_message_is_cut() -> None:
    """Nor where its blanks are joined."""
    for secret in ("correct-horse-battery", "two  blanks"):
        for before in range(470, 500):
            said = f"{'x' * before} {secret} y"
            with (
                pytest.raises(MulliganError) as raised,
                speaking("asking", "srv-1", Host("http://bmc"), lambda: 0.0, secret),
            ):
                raise exceptions.InvalidParameterValueError(parameter="p", value=said, valid_values="v")
            assert not [part for part in (*secret.split(), secret[:6]) if part in raised.value.message]


async def test_an_override_that_is_forgotten_is_seen(bmc: LyingBmc, tmp_path: Path) -> None:
    """The BMC says yes, and then reads as before: who asked must not switch on."""
    bmc.lies.forgets_override = 1
    async with opened(bmc, tmp_path) as driver:
        said = await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())
        assert not said.agrees
        assert said.asked is BootDevice.NETWORK
        assert said.device is None
        assert (await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).agrees


@pytest.mark.parametrize("lie", ["needs_etag", "wrong_etag"])
async def test_etags_are_sent_as_the_bmc_wants_them(bmc: LyingBmc, tmp_path: Path, lie: str) -> None:
    """Where they are needed, and where the one that was told is never right; the machine is changed once."""
    setattr(bmc.lies, lie, True)
    async with opened(bmc, tmp_path) as driver:
        assert (await driver.boot_next(a_mark(), BootDevice.NETWORK, Firmware.UEFI, soon())).agrees
    assert len(bmc.acts()) == 1


async def test_an_expired_session_is_renewed_and_the_change_done_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """Nobody notices, and none is left."""
    kept = Kept()
    async with opened(bmc, tmp_path, kept=kept) as driver:
        await driver.power(a_mark(), soon())
        bmc.expire_sessions()
        await driver.power_on(a_mark(), soon())
    assert (bmc.opened, len(bmc.acts())) == (2, 1)
    await kept.close()
    assert bmc.sessions == {}


async def test_a_session_that_is_refused_is_ended_before_another_is_begun(bmc: LyingBmc, tmp_path: Path) -> None:
    """The BMC may have kept it open, and has few."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.lies.refuses_session = 1
        await driver.power_on(a_mark(), soon())
        assert (bmc.opened, len(bmc.sessions), len(bmc.acts())) == (2, 1, 1)
    assert bmc.sessions == {}


async def test_a_session_that_expired_unused_is_no_fault(bmc: LyingBmc, tmp_path: Path) -> None:
    """Logging out of what is gone does not log in again."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.expire_sessions()
    assert (bmc.opened, bmc.sessions) == (1, {})


async def test_what_the_user_may_not_do_is_said_and_no_session_is_left(bmc: LyingBmc, tmp_path: Path) -> None:
    """A 403 is not an expired session."""
    bmc.lies.forbids = True
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(AccessDenied, match=r"not for you.*check the user name and password behind --credential"):
            await driver.power_on(a_mark(), soon())
    assert (bmc.opened, bmc.sessions, len(bmc.changes())) == (1, {}, 1)


async def test_a_wrong_password_is_tried_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """Accounts are locked after a few; and what was wrong is never said."""
    wrong = credentials_in(tmp_path, "canary-of-old")
    driver = await open_driver(a_target(bmc), state_dir=tmp_path, credentials=wrong)
    with pytest.raises(AccessDenied, match=r"srv-1: looking at the server: HTTP 401.*check the user name") as error:
        await driver.inspect(soon())
    await driver.close()
    assert bmc.refused_logins == 1
    assert "canary" not in error.value.message


async def test_a_bmc_without_sessions_is_spoken_to_all_the_same(bmc: LyingBmc, tmp_path: Path) -> None:
    """By basic authentication."""
    bmc.lies.no_sessions = True
    async with opened(bmc, tmp_path) as driver:
        await driver.power_on(a_mark(), soon())
    assert bmc.machine.power == "On"


@pytest.mark.parametrize(
    "body",
    [b"<html>starting</html>", b'{"Id": "1", "Boo', b"{}", b"[]", b"null", b'{"Id": "1", "Boot": 7}', b"\xff\xfe"],
)
async def test_garbage_is_no_answer_and_no_change(bmc: LyingBmc, tmp_path: Path, body: bytes) -> None:
    """The BMC starts, or is broken: nothing is done for it, and it may be tried again."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.garbage = [body] * 3
        with pytest.raises(MulliganError) as error:
            await driver.power_on(a_mark(), soon())
        assert isinstance(error.value, Unreachable | Busy)
        assert bmc.changes() == []
        bmc.lies.garbage = []
        await driver.power_on(a_mark(), soon())


async def test_a_read_whose_answer_is_lost_is_asked_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """Twice; more is for the workflow."""
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.drops_reads = 2
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF
        bmc.lies.drops_reads = 10**6
        with pytest.raises(Unreachable, match="no answer from"):
            await driver.power(a_mark(), soon())


async def test_a_half_open_connection_costs_no_more_than_the_deadline(bmc: LyingBmc, tmp_path: Path) -> None:
    """Who waits for the same BMC meanwhile is told that it is busy."""
    async with opened(bmc, tmp_path) as driver:
        await driver.power(a_mark(), soon())
        bmc.lies.silent = 1
        first = asyncio.create_task(driver.power(a_mark(), Deadline.after(1.5)))
        await until(lambda: taken(driver._bmc.lane))
        with pytest.raises(Busy, match="one thing at a time"):
            await driver.power(a_mark(), Deadline.after(0.3))
        with pytest.raises(Unreachable):
            await first
        assert (await driver.power(a_mark(), soon())).state is PowerState.OFF


async def taken(lane: Lane) -> bool:
    """Whether somebody speaks to the BMC."""
    return lane.taken


async def test_one_thing_at_a_time_is_asked_of_a_bmc(bmc: LyingBmc, tmp_path: Path) -> None:
    """Many at once come one after the other, and one change is enough."""
    async with opened(bmc, tmp_path) as driver:
        await asyncio.gather(*(driver.power_on(a_mark(), soon()) for _ in range(5)))
    assert len(bmc.changes()) == 1


async def test_nobody_at_the_address(tmp_path: Path) -> None:
    """Said at once, with what to look at."""
    nobody = Target("srv-1", "default", "redfish://127.0.0.1:1/redfish/v1/Systems/1", {}, "rack")
    async with opened(LyingBmc(), tmp_path, nobody) as driver:
        with pytest.raises(Unreachable, match=r"no answer from https://127.0.0.1:1 \(.*refused.*check address"):
            await driver.inspect(soon())


async def test_a_bmc_that_sends_elsewhere_is_not_followed(bmc: LyingBmc, tmp_path: Path) -> None:
    """Neither by a redirect, nor by a document's URL: a session's token is for nobody else."""
    bmc.lies.foreign_links = True
    with LyingBmc(Machine("1")).listening() as other:
        async with opened(bmc, tmp_path) as driver:
            await driver.power(a_mark(), soon())
            bmc.lies.redirects_to = other.url.replace("redfish+", "") + "/redfish/v1/Systems/1"
            with pytest.raises(Unsupported, match="elsewhere"):
                await driver.power(a_mark(), soon())
    assert other.log == []
    assert bmc.sessions == {}


async def test_a_reference_that_nobody_wrote_down_is_named(bmc: LyingBmc, tmp_path: Path) -> None:
    """With the nearest, and what to write where."""
    target = Target("srv-1", "default", a_target(bmc).url, {}, "rackk")
    with pytest.raises(NotFound, match=r"'rackk' is not in .*the nearest are rack\)"):
        async with opened(bmc, tmp_path, target):
            pass
    unnamed = Target("srv-1", "default", a_target(bmc).url, {}, "")
    with pytest.raises(AccessDenied, match="--credential"):
        async with opened(bmc, tmp_path, unnamed):
            pass


async def test_no_error_log_or_name_holds_a_password(
    bmc: LyingBmc, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Although the BMC repeats it in everything that it refuses, and everything is logged."""
    caplog.set_level(0)
    bmc.lies.echoes = True
    said: list[str] = []
    async with opened(bmc, tmp_path) as driver:
        for status in (400, 403, 409, 500):
            bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, status, "no"
            with pytest.raises(MulliganError) as error:
                await driver.power_on(a_mark(), soon())
            said += [str(error.value), repr(error.value), str(error.value.metadata), error.value.message]
            assert "***" in error.value.message
        said += [repr(vars(driver)), repr(vars(driver._bmc))]
    assert said
    assert PASSWORD not in " ".join([*said, caplog.text, *capfd.readouterr()])


async def test_plain_http_is_told_from_tls(bmc: LyingBmc, tmp_path: Path) -> None:
    """A BMC that speaks no TLS is not spoken to without being told so."""
    target = Target("srv-1", "default", a_target(bmc).url.replace("redfish+http", "redfish"), {}, "rack")
    async with opened(bmc, tmp_path, target) as driver:
        with pytest.raises((Unsupported, InvalidRequest), match=r"redfish\+http://"):
            await driver.inspect(soon())
