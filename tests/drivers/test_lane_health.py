"""How BMCs answer, kept beside their lanes: what becomes of turns is told to whoever shares the directory."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.bmc_health import BmcState
from mulligan.activities.drivers import lane as lanes
from mulligan.activities.drivers import lane_health
from mulligan.activities.drivers.directory import lane_file
from mulligan.activities.drivers.lane import Lane
from mulligan.activities.drivers.lane_health import health_of
from mulligan.activities.errors import AccessDenied, Busy, HostNotReady, MulliganError, StaleFence, Unreachable
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import PASSWORD, LyingBmc
from tests.drivers.contract import soon
from tests.drivers.ipmi_parts import opened as ipmi_opened

SILENT = Unreachable("srv-1: looking: no answer from https://bmc-1")


async def nothing() -> None:
    """No session to end."""


def a_lane(folder: Path) -> Lane:
    """The lane as one worker sees it, that has just begun."""
    return Lane("bmc-1", folder, nothing, 0.0)


async def turn(lane: Lane, *errors: BaseException | None) -> None:
    """Turns that end so."""
    for error in errors:
        with contextlib.suppress(MulliganError, asyncio.CancelledError):
            async with lane.turn("looking", soon()):
                if error is not None:
                    raise error


async def test_nothing_is_known_of_a_bmc_that_was_never_asked(tmp_path: Path) -> None:
    """Nor is its directory there."""
    found = health_of(tmp_path / "drivers", "bmc-1")
    assert (found.state, found.answered_at, found.asked, found.error) == (BmcState.NOT_ASKED, None, 0, "")


async def test_what_becomes_of_a_turn_is_known_to_all_and_outlives_the_worker(tmp_path: Path) -> None:
    """Answers, is silent since the first time that it was, answers again."""
    await turn(a_lane(tmp_path), None)
    answers = health_of(tmp_path, "bmc-1")
    assert (answers.state, answers.asked, answers.failed, answers.error) == (BmcState.ANSWERS, 1, 0, "")
    await turn(a_lane(tmp_path), SILENT)
    silent = health_of(tmp_path, "bmc-1")
    assert (silent.state, silent.answered_at, silent.error) == (BmcState.SILENT, answers.answered_at, str(SILENT))
    await turn(a_lane(tmp_path), SILENT)
    still = health_of(tmp_path, "bmc-1")
    assert (still.silent_since, still.asked, still.failed) == (silent.silent_since, 3, 2)
    await turn(a_lane(tmp_path), None)
    again = health_of(tmp_path, "bmc-1")
    assert (again.state, again.silent_since, again.error) == (BmcState.ANSWERS, None, "")
    assert health_of(tmp_path, "bmc-2").state is BmcState.NOT_ASKED


async def test_a_cool_down_is_told_until_it_is_over(tmp_path: Path) -> None:
    """It is an answer; once the time is over nothing is wrong any more."""
    lane = a_lane(tmp_path)
    await turn(lane, Busy("srv-1: switching on: HTTP 503", after_seconds=3600))
    busy = health_of(tmp_path, "bmc-1")
    assert busy.answered_at is not None and busy.busy_until is not None
    assert (busy.state, busy.error) == (BmcState.BUSY, "srv-1: switching on: HTTP 503")
    assert 3500 < (busy.busy_until - busy.answered_at).total_seconds() <= 3600
    await turn(lane, Busy("srv-1: switching on: HTTP 503", after_seconds=0.0))
    over = health_of(tmp_path, "bmc-1")
    assert (over.state, over.busy_until, over.error, over.failed) == (BmcState.ANSWERS, None, "", 2)


async def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    """With its reason, until something works."""
    lane = a_lane(tmp_path)
    await turn(lane, AccessDenied("srv-1: looking: HTTP 401"))
    refuses = health_of(tmp_path, "bmc-1")
    assert (refuses.state, refuses.silent_since, refuses.error) == (BmcState.REFUSES, None, "srv-1: looking: HTTP 401")
    await turn(lane, None)
    assert health_of(tmp_path, "bmc-1").state is BmcState.ANSWERS


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), StaleFence("claim 3 holds it"), HostNotReady("no such file")],
    ids=["cancelled", "stale", "worker"],
)
async def test_what_is_not_the_bmcs_says_nothing_of_it(tmp_path: Path, error: BaseException) -> None:
    """A cancel, a newer claim, a setting of the worker's."""
    lane = a_lane(tmp_path)
    await turn(lane, SILENT)
    before = health_of(tmp_path, "bmc-1")
    await turn(lane, error)
    await lane.close()
    assert health_of(tmp_path, "bmc-1") == before


async def test_it_is_for_the_worker_only(tmp_path: Path) -> None:
    """Also where an older one, or one that was cut off, could be read by others."""
    file = lane_file(tmp_path, "bmc-1").with_suffix(".json")
    file.parent.mkdir()
    for each in (file, file.with_suffix(".new")):
        each.touch(0o644)
    await turn(a_lane(tmp_path), SILENT)
    assert file.stat().st_mode & 0o777 == 0o600


async def test_it_is_not_written_with_every_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes is told at once, the rest after some seconds, or when the session ends."""
    lane, file = a_lane(tmp_path), lane_file(tmp_path, "bmc-1").with_suffix(".json")
    await turn(lane, None)
    first = file.stat().st_ino
    await turn(lane, None, None, None)
    assert file.stat().st_ino == first
    await lane.close()
    assert health_of(tmp_path, "bmc-1").asked == 4
    monkeypatch.setattr(lane_health, "WRITE_SECONDS", 0.0)
    await turn(lane, None)
    assert health_of(tmp_path, "bmc-1").asked == 5


async def test_counts_are_of_the_last_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then they begin anew."""
    await turn(a_lane(tmp_path), None, SILENT, None, SILENT)
    before = health_of(tmp_path, "bmc-1")
    assert (before.asked, before.failed) == (4, 2)
    monkeypatch.setattr(lane_health, "COUNT_SECONDS", 0.0)
    await turn(a_lane(tmp_path), None)
    after = health_of(tmp_path, "bmc-1")
    assert (after.asked, after.failed) == (1, 0)
    assert before.counted_since is not None and after.counted_since is not None
    assert after.counted_since > before.counted_since


@pytest.mark.parametrize("content", ["", "{", '{"answered_at": "soon"}'], ids=["empty", "cut-off", "wrong"])
async def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: str) -> None:
    """Nobody depends on it."""
    file = lane_file(tmp_path, "bmc-1").with_suffix(".json")
    file.parent.mkdir()
    file.write_text(content)
    assert health_of(tmp_path, "bmc-1").state is BmcState.NOT_ASKED
    await turn(a_lane(tmp_path), None)
    assert health_of(tmp_path, "bmc-1").state is BmcState.ANSWERS


async def test_a_bmc_is_asked_although_its_health_cannot_be_kept(tmp_path: Path) -> None:
    """Here a directory is in the way."""
    file = lane_file(tmp_path, "bmc-1").with_suffix(".json")
    file.mkdir(parents=True)
    (file / "in-the-way").touch()
    lane = a_lane(tmp_path)
    async with lane.turn("looking", soon()):
        pass
    await turn(lane, SILENT)
    assert health_of(tmp_path, "bmc-1").state is BmcState.NOT_ASKED


async def test_one_known_to_be_silent_is_asked_by_one_at_a_time(tmp_path: Path) -> None:
    """Others go at once instead of waiting behind; when it answers again, they wait for their turns as ever."""
    lane = a_lane(tmp_path)
    await turn(lane, SILENT)
    async with lane.turn("looking", soon()):
        with pytest.raises(Unreachable, match="bmc-1 did not answer what was asked of it before this"):
            await first_turn(lane)
        assert lane.taken
    async with lane.turn("looking", soon()):
        waiting = asyncio.create_task(first_turn(lane))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
    await waiting


async def test_silent_ones_together_take_up_some_places_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than may be is told so at once; one that answers is asked all the same."""
    monkeypatch.setattr(lanes, "MOST_SILENT", 2)
    dead = [Lane(f"bmc-{number}", tmp_path, nothing, 0.0) for number in range(3)]
    for each in dead:
        await turn(each, SILENT)
    async with dead[0].turn("looking", soon()), dead[1].turn("looking", soon()):
        with pytest.raises(Unreachable, match="bmc-2 did not answer"):
            await first_turn(dead[2])
        await first_turn(Lane("bmc-9", tmp_path, nothing, 0.0))
    await first_turn(dead[2])


async def first_turn(lane: Lane) -> None:
    """Have one turn, and do nothing in it."""
    async with lane.turn("looking", soon()):
        pass


async def test_what_a_real_bmc_says_is_kept_without_its_password(tmp_path: Path) -> None:
    """One that repeats the password in what it refuses."""
    with LyingBmc(Machine("1")).listening() as bmc:
        bmc.lies.echoes = bmc.lies.forbids = True
        name = bmc.url.rpartition("//")[2]
        async with opened(bmc, tmp_path, a_target(bmc)) as driver:
            await driver.power(a_mark(), soon())
            assert health_of(tmp_path, name).state is BmcState.ANSWERS
            with pytest.raises(AccessDenied):
                await driver.power_on(a_mark(), soon())
        found = health_of(tmp_path, name)
        assert found.state is BmcState.REFUSES
        assert "InsufficientPrivilege" in found.error or "not for you" in found.error
        kept: list[Any] = [path.read_text() for path in (tmp_path / "lanes").iterdir()]
        assert not any(PASSWORD in each for each in kept)


@pytest.mark.parametrize(
    ("lie", "kinds", "state"),
    [("refuses_logins", (AccessDenied, Busy), BmcState.REFUSES), ("drops_logins", (Unreachable,), BmcState.SILENT)],
)
async def test_what_is_not_sent_tells_nothing_of_a_bmc(
    tmp_path: Path, lie: str, kinds: tuple[type[MulliganError], ...], state: BmcState
) -> None:
    """A log-in that is not due yet is neither answered nor left unanswered, however often it is asked for."""
    with LyingBmc(Machine("1")).listening() as bmc:
        name = bmc.url.rpartition("//")[2]
        async with opened(bmc, tmp_path) as driver:
            setattr(bmc.lies, lie, 1)
            with pytest.raises(kinds):
                await driver.inspect(soon())
            before = health_of(tmp_path, name)
            assert (before.state, before.asked) == (state, 1)
            for verb in (driver.power(a_mark(), soon()), driver.inspect(soon())):
                with pytest.raises(kinds):
                    await verb
        assert health_of(tmp_path, name) == before


async def test_a_password_that_ipmi_cannot_send_tells_nothing_of_a_bmc(tmp_path: Path) -> None:
    """Nothing is there to be asked, and it is not asked."""
    async with ipmi_opened(9, tmp_path, password="x" * 21) as driver:
        with pytest.raises(AccessDenied, match="20 bytes"):
            await driver.power(a_mark(), soon())
    assert health_of(tmp_path, "127.0.0.1:9").state is BmcState.NOT_ASKED
