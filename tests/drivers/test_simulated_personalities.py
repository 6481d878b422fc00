"""How simulated hosts misbehave, by personality and by rule, and how their addresses are read and laid out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mulligan.activities import errors
from mulligan.activities.drivers.base import LiveSource
from mulligan.activities.drivers.simulated import (
    Personality,
    SimulatedDriver,
    fleet,
    guest,
    journal,
    mend,
    personalities,
    snapshot,
    stop_guests,
)
from mulligan.activities.drivers.simulated.settings import ERRORS, VERBS, read_settings
from mulligan.activities.values import ImageFormat, Kind, Mark, PowerState, Target
from tests.drivers.contract import until
from tests.drivers.simulated_parts import (
    BASE,
    SHAPE,
    booted,
    home_door,
    made,
    new_mark,
    opened,
    seed,
    soon,
    target,
    unmade,
)


@pytest.fixture(autouse=True)
async def _no_guest_outlives_its_test() -> AsyncIterator[None]:
    yield
    await stop_guests()


async def text_of(driver: SimulatedDriver, mark: Mark) -> str:
    """All that the console has shown."""
    return (await driver.console(mark, 0, soon())).text


def test_every_personality_is_described() -> None:
    """The table for the documentation names each personality once, in one line."""
    table = personalities()
    assert [name for name, _ in table] == [personality.value for personality in Personality]
    assert all(line and "\n" not in line for _, line in table)


async def test_slow_post_delays_the_boot(tmp_path: Path) -> None:
    """The same machine on the same host is up later than without it."""
    at = {}
    for folder, query in (("plain", ""), ("slow", "personality=slow-post")):
        driver, mark = await opened(tmp_path / folder, query, speed="0.001"), new_mark(1, "m-1")
        await booted(driver, mark)

        async def found(driver: SimulatedDriver = driver, mark: Mark = mark) -> object:
            return (await driver.addresses(mark, soon())).found

        sighting = (await until(found))[0]
        row = await driver._state.read(lambda db: db.execute("SELECT powered_at FROM machines").fetchone())
        at[folder] = sighting.at.timestamp() - row[0]
    assert at["slow"] > at["plain"] + 0.002


async def test_sticky_media_boots_the_next_machine_with_the_old_seed_once(tmp_path: Path) -> None:
    """The machine after a released one calls home as that one did; after a power cycle it is itself."""
    driver, old, new = await opened(tmp_path, "personality=sticky-media"), new_mark(1), new_mark(2)
    async with home_door() as home:
        await booted(driver, old, seed(home.url, "old"))
        await until(lambda: calls(home, 1))
        await unmade(driver, old)
        assert snapshot(tmp_path, "f").clean
        await booted(driver, new, seed(home.url, "new"))
        await until(lambda: calls(home, 2))
        await driver.power_off(new, soon())
        await driver.power_on(new, soon())
        await until(lambda: calls(home, 3))
    assert [call["token"] for call in home.calls] == ["Bearer old", "Bearer old", "Bearer new"]


async def calls(home: object, number: int) -> bool:
    """Whether so many calls have come."""
    return len(home.calls) >= number  # type: ignore[attr-defined]


async def test_a_busy_window_ends_by_itself(tmp_path: Path) -> None:
    """After a change of power two verbs are refused, then the host answers."""
    driver, mark = await opened(tmp_path, "personality=busy-window"), new_mark()
    await booted(driver, mark)
    for _ in range(2):
        with pytest.raises(errors.Busy):
            await driver.power(mark, soon())
    assert (await driver.power(mark, soon())).state is PowerState.ON


async def test_drops_after_acting_acts_once(tmp_path: Path) -> None:
    """Every verb of a machine's life loses its first answer, and has changed the host exactly once when asked again."""
    driver, mark = await opened(tmp_path, "personality=drops-after-acting"), new_mark()
    await driver.place_base(BASE, lambda *_: None, soon())
    life = (
        lambda: driver.create_disks(mark, BASE.digest, 20, seed(), soon()),
        lambda: driver.define(mark, SHAPE, soon()),
        lambda: driver.power_on(mark, soon()),
        lambda: driver.power_off(mark, soon()),
        lambda: driver.undefine(mark, soon()),
        lambda: driver.remove_disks(mark, soon()),
    )
    for verb in life:
        with pytest.raises(errors.Unreachable, match="it acted, then dropped"):
            await verb()
        await verb()
    mine = [entry for entry in journal(tmp_path, "f") if entry.machine_id]
    assert [entry.changed for entry in mine] == [True, False] * 6
    assert snapshot(tmp_path, "f").clean


async def test_lies_once_shows_the_past_once(tmp_path: Path) -> None:
    """The old power state and an address older than the boot are read once, then the truth."""
    driver, mark = await opened(tmp_path, "personality=lies-once"), new_mark()
    await booted(driver, mark)
    states = [(await driver.power(mark, soon())).state for _ in range(2)]
    assert states == [PowerState.OFF, PowerState.ON]
    old, new = [(await driver.addresses(mark, soon())).found[0] for _ in range(2)]
    assert old.address != new.address
    assert old.at < new.at
    await driver.power_off(mark, soon())
    states = [(await driver.power(mark, soon())).state for _ in range(2)]
    assert states == [PowerState.ON, PowerState.OFF]


async def test_a_dead_host_stays_dead_until_it_is_mended(tmp_path: Path) -> None:
    """Once a machine was powered on nothing answers, not even the undo; mended, the undo works."""
    driver, mark = await opened(tmp_path, "personality=dies"), new_mark()
    await booted(driver, mark)
    for ask in (driver.inspect(soon()), driver.power(mark, soon()), driver.power_off(mark, soon())):
        with pytest.raises(errors.Unreachable, match="died"):
            await ask
    mend(tmp_path, "f", "h1")
    await unmade(driver, mark)
    assert snapshot(tmp_path, "f").clean


@pytest.mark.parametrize(
    ("personality", "says", "addressed"),
    [("never-boots", "", False), ("boots-then-silent", "login:", False), ("no-call-home", "login:", True)],
)
async def test_a_boot_stops_short(tmp_path: Path, personality: str, says: str, addressed: bool) -> None:
    """The power is on; console, address and call home come as far as the personality lets them."""
    driver, mark = await opened(tmp_path, f"personality={personality}"), new_mark()
    async with home_door() as home:
        await booted(driver, mark, seed(home.url, "t"))
        assert (await driver.power(mark, soon())).state is PowerState.ON
        text = await text_of(driver, mark)
        assert says in text
        assert bool(says) == bool(text)
        sightings = await driver.addresses(mark, soon())
        assert (bool(sightings.found), "dhcp-lease" in sightings.silent) == (addressed, not addressed)
        other = await opened(tmp_path, host="h2")
        healthy = new_mark()
        await booted(other, healthy, seed(home.url, "healthy"))
        await until(lambda: calls(home, 1))
    assert [call["token"] for call in home.calls] == ["Bearer healthy"]


async def test_a_machine_goes_off_by_itself(tmp_path: Path) -> None:
    """So long after each power on, to the moment, also one that is on when its host is set so. Its console is as it was
    then, and it can be switched on again."""
    driver, mark = await opened(tmp_path, "off_after=1"), new_mark()
    await booted(await opened(tmp_path), mark)

    async def is_off() -> bool:
        return (await driver.power(mark, soon())).state is PowerState.OFF

    for _ in range(2):
        await until(is_off)
        row = await driver._state.read(lambda db: db.execute("SELECT powered_at, off_at FROM machines").fetchone())
        assert row["off_at"] == row["powered_at"] + 1
        assert "login:" in await text_of(driver, mark)
        assert not (await driver.addresses(mark, soon())).found
        await driver.power_on(mark, soon())
    stays = await opened(tmp_path, "off_after=1", off_after="0")
    assert (await stays.power(mark, soon())).state is PowerState.ON
    await unmade(stays, mark)
    assert snapshot(tmp_path, "f").clean


async def test_a_guest_whose_machine_went_off_does_not_call(tmp_path: Path) -> None:
    """Also where nobody has looked at the machine since."""
    driver, mark = await opened(tmp_path, "off_after=1", speed="0.5"), new_mark()
    async with home_door() as home:
        await booted(driver, mark, seed(home.url, "t"))
        assert guest._running

        async def has_ended() -> bool:
            return not guest._running

        await until(has_ended)
    assert home.calls == []


async def test_a_failed_set_up_is_called_home(tmp_path: Path) -> None:
    """The guest reports its status and what went wrong."""
    driver, mark = await opened(tmp_path, "personality=cloud-init-failed"), new_mark()
    async with home_door() as home:
        await booted(driver, mark, seed(home.url, "t"))
        await until(lambda: calls(home, 1))
    assert home.calls[0]["status"] == "error"
    assert home.calls[0]["errors"]


async def test_half_an_undo_is_named_and_finished_when_asked_again(tmp_path: Path) -> None:
    """The first removal leaves the seed and says so; the second removes it."""
    driver, mark = await opened(tmp_path, "personality=half-undo"), new_mark()
    await made(driver, mark)
    await driver.undefine(mark, soon())
    with pytest.raises(errors.Leftover) as caught:
        await driver.remove_disks(mark, soon())
    assert caught.value.objects == (f"mulligan-{mark.machine_id}-seed",)
    assert await driver.remains(mark.machine_id, soon()) == caught.value.objects
    await driver.remove_disks(mark, soon())
    assert snapshot(tmp_path, "f").clean


async def test_a_stuck_undo_is_stuck_until_the_host_is_mended(tmp_path: Path) -> None:
    """However often it is asked, it leaves everything and names it."""
    driver, mark = await opened(tmp_path, "personality=stuck-undo"), new_mark()
    await made(driver, mark)
    for _ in range(3):
        for undo in (driver.undefine, driver.remove_disks):
            with pytest.raises(errors.Leftover) as caught:
                await undo(mark, soon())
            assert len(caught.value.objects) == 3
    mend(tmp_path, "f", "h1")
    await unmade(driver, mark)
    assert snapshot(tmp_path, "f").clean


async def call(driver: SimulatedDriver, verb: str, mark: Mark) -> object:
    """Call any verb by its name."""
    arguments: dict[str, tuple[object, ...]] = {
        "remains": (mark.machine_id,),
        "has_base": (BASE.digest,),
        "remove_bases": (None,),
        "place_base": (BASE, lambda *_: None),
        "create_disks": (mark, BASE.digest, 20, seed()),
        "place_live": (mark, LiveSource(ImageFormat.ISO, BASE.digest), b""),
        "define": (mark, SHAPE),
        "console": (mark, 0),
        "inspect": (),
        "gateway": (),
    }
    return await getattr(driver, verb)(*arguments.get(verb, (mark,)), soon())


@pytest.mark.parametrize("verb", VERBS)
async def test_any_verb_can_be_made_to_fail(tmp_path: Path, verb: str) -> None:
    """The second call fails before it acts, counted over all connections; calls before and after it work."""
    mark = new_mark()
    await booted(await opened(tmp_path), mark)
    if verb in ("undefine", "place_live", "remove_disks"):
        await (await opened(tmp_path)).power_off(mark, soon())
    await call(await opened(tmp_path, f"fail={verb}:2:Busy"), verb, mark)
    before = snapshot(tmp_path, "f")
    with pytest.raises(errors.Busy, match="a rule failed call 2 before it acted"):
        await call(await opened(tmp_path, f"fail={verb}:2:Busy"), verb, mark)
    assert snapshot(tmp_path, "f") == before
    await call(await opened(tmp_path, f"fail={verb}:2:Busy"), verb, mark)


@pytest.mark.parametrize("name", ERRORS)
async def test_any_error_can_be_raised_by_rule(tmp_path: Path, name: str) -> None:
    """Each leaf of the error tree is raised as itself, for every call where the rule says so."""
    driver = await opened(tmp_path, f"fail=power:*:{name}")
    for _ in range(2):
        with pytest.raises(getattr(errors, name), match="simulated host 'h1', asked to power"):
            await driver.power(new_mark(), soon())


async def test_a_rule_can_fail_a_verb_after_it_acted(tmp_path: Path) -> None:
    """The answer is an error, and what was asked has happened all the same."""
    driver, mark = await opened(tmp_path, "fail_after=define:1:Unreachable"), new_mark()
    with pytest.raises(errors.Unreachable):
        await driver.define(mark, SHAPE, soon())
    assert (await driver.power(mark, soon())).state is PowerState.OFF
    (entry,) = journal(tmp_path, "f")
    assert (entry.verb, entry.outcome, entry.changed) == ("define", "UNREACHABLE", True)


async def test_a_held_verb_can_be_cancelled_and_has_not_acted(tmp_path: Path) -> None:
    """`hold` gives the time to cancel inside a verb; the cancelled call leaves nothing, the next works."""
    driver, mark = await opened(tmp_path, "hold=define:1:60"), new_mark()
    task = asyncio.ensure_future(driver.define(mark, SHAPE, soon(120)))

    async def begun() -> bool:
        return any(entry.outcome == "BEGUN" for entry in journal(tmp_path, "f"))

    await until(begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert snapshot(tmp_path, "f").clean
    await driver.define(mark, SHAPE, soon())


async def test_settings_of_the_provider_win_over_its_address(tmp_path: Path) -> None:
    """An operator can change a host's behaviour without registering it anew."""
    driver = await opened(tmp_path, "fail=inspect:*:Busy", fail="inspect:*:AccessDenied", accelerator="auto")
    with pytest.raises(errors.AccessDenied):
        await driver.inspect(soon())


@pytest.mark.parametrize(
    ("url", "field", "hint"),
    [
        ("simulated://f/h?personality=lies-onc", "personality", "lies-once"),
        ("simulated://f/h?sped=1", "url", "speed"),
        ("simulated://f/h?vcpu=many", "vcpu", "whole number"),
        ("simulated://f/h?speed=nan", "speed", "0 to 1000"),
        ("simulated://f/h?off_after=soon", "off_after", "whole number"),
        ("simulated://f/h?kind=any", "kind", "virtual"),
        ("simulated://f/h?fail=powr_on:1:Busy", "fail", "power_on"),
        ("simulated://f/h?fail=power_on:0:Busy", "fail", "from 1"),
        ("simulated://f/h?fail_after=power_on:1:Bussy", "fail_after", "Busy"),
        ("simulated://f/h?hold=define:1:long", "hold", "seconds"),
        ("simulated://f", "url", "simulated://<fleet>/<host>"),
        ("simulated://f/../etc", "url", "simulated://<fleet>/<host>"),
        ("simulated://f:99999/h", "url", "simulated://<fleet>/<host>"),
        ("qemu:///system", "url", "simulated://<fleet>/<host>"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(url: str, field: str, hint: str) -> None:
    """Each mistake is named with its field, and with what was probably meant."""
    with pytest.raises(errors.InvalidRequest) as caught:
        read_settings(Target("h", "default", url))
    ((found, description),) = caught.value.violations
    assert found == field
    assert hint in description


def test_all_mistakes_are_said_at_once() -> None:
    """Nobody has to mend an address one mistake at a time."""
    with pytest.raises(errors.InvalidRequest) as caught:
        read_settings(target("vcpu=0&speed=-1&kind=x"))
    assert {field for field, _ in caught.value.violations} == {"vcpu", "speed", "kind"}


def test_a_fleet_is_the_same_every_time() -> None:
    """The same arguments lay out the same hosts; another seed another fleet; shares are exact."""
    wishes = {"lies-once": 0.25, "dies": 0.1}
    hosts = fleet("lab", size=40, seed=7, speed=0.5, personalities=wishes, bare_metal=0.5)
    assert hosts == fleet("lab", size=40, seed=7, speed=0.5, personalities=wishes, bare_metal=0.5)
    assert hosts != fleet("lab", size=40, seed=8, speed=0.5, personalities=wishes, bare_metal=0.5)
    read = [read_settings(Target(host.name, "default", host.url)) for host in hosts]
    assert [host.name for host in hosts] == [settings.host for settings in read]
    assert len({host.name for host in hosts}) == 40
    assert sum(settings.has(Personality.LIES_ONCE) for settings in read) == 10
    assert sum(settings.has(Personality.DIES) for settings in read) == 4
    assert sum(settings.kind is Kind.BARE_METAL for settings in read) == 20
    assert {settings.speed for settings in read} == {0.5}


@pytest.mark.parametrize(("size", "shares"), [(0, {}), (3, {"lies-twice": 0.5}), (3, {"dies": 1.5})])
def test_a_fleet_that_cannot_be_is_refused(size: int, shares: dict[str, float]) -> None:
    """No hosts, an unknown personality, or a share beyond the whole."""
    with pytest.raises(errors.InvalidRequest, match="cannot be laid out"):
        fleet("lab", size=size, personalities=shares)


async def test_the_case_of_a_fleets_name_does_not_matter(tmp_path: Path) -> None:
    """As in any URL: one fleet, however it is written."""
    await made(await opened(tmp_path), new_mark())
    assert read_settings(Target("h1", "default", "simulated://F/h1")).fleet == "f"
    assert snapshot(tmp_path, "F") == snapshot(tmp_path, "f")
    assert not snapshot(tmp_path, "F").clean
