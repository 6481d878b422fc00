"""Virtual drives over Redfish that are not there yet, tell late of what they hold, or name what they no longer hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mulligan.activities.bmc import boots_from
from mulligan.activities.drivers import orders
from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.drivers.redfish import absences, media
from mulligan.activities.drivers.redfish.names import is_end, is_url
from mulligan.activities.errors import Busy, Leftover, NotFound, Unreachable, Unsupported
from tests.drivers.bmc.machine import Machine
from tests.drivers.bmc.parts import a_mark, a_target, opened
from tests.drivers.bmc.server import LyingBmc
from tests.drivers.contract import soon

OLD = "http://boot.test/run-0/old.iso"
MEDIA = "http://boot.test/run-1/agent.iso"
OTHER = "http://boot.test/run-1/again.iso"
EVER = 10**6
TOKEN = "http://Boot.test:7421/v1/media/job.1.1234567890.aaaaaaaaaaaaaaaaaaaaaaa{}/run-1.iso"
"""A medium as runs have them: each boot of the run has another token, and the same file."""
FIRST, SECOND = TOKEN.format("A"), TOKEN.format("B")


@pytest.fixture
def bmc(monkeypatch: pytest.MonkeyPatch) -> Iterator[LyingBmc]:
    """A BMC; what the driver waits for, it waits for a moment only."""
    monkeypatch.setattr(media, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(media, "_LOOK_SECONDS", 0.02)
    with LyingBmc(Machine("1")).listening() as running:
        yield running


@pytest.mark.parametrize("lacks", ["/VirtualMedia", "/Managers/1", ""], ids=["collection", "manager", "members"])
async def test_drives_that_are_not_there_yet_are_waited_for(bmc: LyingBmc, tmp_path: Path, lacks: str) -> None:
    """They are neither empty nor wanting, and the agent is not booted from the network meanwhile. Who looks first is a
    worker that was started again."""
    target = a_target(bmc)
    async with opened(bmc, tmp_path, target) as driver:
        await driver.insert_media(a_mark(), MEDIA, soon())
    bmc.lies.lacks, bmc.machine.has_drives = lacks, bool(lacks)
    async with opened(bmc, tmp_path, target) as driver:
        for verb in (
            lambda: driver.eject_media(a_mark(), soon()),
            lambda: driver.insert_media(a_mark(), MEDIA, soon()),
            lambda: driver.remains("m-1", soon()),
            lambda: boots_from(driver, target),
        ):
            with pytest.raises(Busy, match=r"tells of no virtual drive.*BMCs that restart") as error:
                await verb()
            assert error.value.after_seconds > 0
        bmc.lies.lacks, bmc.machine.has_drives = "", True
        assert await boots_from(driver, target) is BootDevice.VIRTUAL_MEDIA
        await driver.eject_media(a_mark(), soon())
    assert bmc.acts() == ["VirtualMedia.InsertMedia", "VirtualMedia.EjectMedia"]


async def test_a_server_without_drives_is_not_waited_for(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that never had any, and one that had none any more when its provider was added again a while ago."""
    monkeypatch.setattr(absences, "BELIEVED_SECONDS", 0.0)
    target = a_target(bmc)
    async with opened(bmc, tmp_path, target) as driver:
        for _ in range(2):
            bmc.machine.has_drives = False
            assert "boot.virtual-media" not in (await driver.inspect(soon())).capabilities
            await driver.eject_media(a_mark(), soon())
            assert await boots_from(driver, target) is BootDevice.NETWORK
            with pytest.raises(Unsupported, match="no virtual drive"):
                await driver.insert_media(a_mark(), MEDIA, soon())
            bmc.machine.has_drives = True
            await driver.media(soon())


async def test_drives_of_a_held_server_are_waited_for_though_it_is_added_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """Its BMC restarts just then, and tells of none: nothing is called ejected that is still in."""
    async with opened(bmc, tmp_path) as driver:
        await driver.insert_media(a_mark(), MEDIA, soon())
        bmc.machine.has_drives = False
        for _ in range(2):
            assert "boot.virtual-media" not in (await driver.inspect(soon())).capabilities
            with pytest.raises(Busy, match="tells of no virtual drive"):
                await driver.eject_media(a_mark(), soon())
        bmc.machine.has_drives = True
        await driver.eject_media(a_mark(), soon())
    assert bmc.machine.image == ""


async def test_drives_that_stay_away_are_gone_in_the_end(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What to do then is said; nothing was called clean."""
    async with opened(bmc, tmp_path) as driver:
        await driver.media(soon())
        bmc.machine.has_drives = False
        monkeypatch.setattr(absences, "BELIEVED_SECONDS", 0.0)
        with pytest.raises(NotFound, match="add the provider again"):
            await driver.eject_media(a_mark(), soon())


async def test_drives_are_known_from_the_registration(bmc: LyingBmc, tmp_path: Path) -> None:
    """Nobody needs to have used them."""
    async with opened(bmc, tmp_path) as driver:
        await driver.inspect(soon())
        bmc.machine.has_drives = False
        with pytest.raises(Busy, match="tells of no virtual drive"):
            await driver.media(soon())


async def test_an_image_that_shows_late_is_inserted_once(bmc: LyingBmc, tmp_path: Path) -> None:
    """Later attempts look for it; the drive that does not name it yet is not taken for empty either."""
    bmc.lies.late_media = EVER
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            with pytest.raises(Leftover, match="was given the run's image, and names nothing"):
                await driver.insert_media(a_mark(), MEDIA, soon())
        with pytest.raises(Busy, match="does not name it yet") as error:
            await driver.eject_media(a_mark(), soon())
        assert error.value.after_seconds > 0
        assert bmc.acts() == ["VirtualMedia.InsertMedia"]
        bmc.lies.late_media = 0
        assert (await driver.insert_media(a_mark(), MEDIA, soon())).url == MEDIA
        await driver.eject_media(a_mark(), soon())
    assert bmc.acts() == ["VirtualMedia.InsertMedia", "VirtualMedia.EjectMedia"]


async def test_a_late_image_goes_out_before_another_goes_in(bmc: LyingBmc, tmp_path: Path) -> None:
    """Each boot of the agent has a URL of its own: the older one is first seen, then ejected."""
    bmc.lies.late_media = EVER
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Leftover):
            await driver.insert_media(a_mark(), MEDIA, soon())
        with pytest.raises(Busy, match="does not name it yet"):
            await driver.insert_media(a_mark(), OTHER, soon())
        bmc.lies.late_media = 0
        assert (await driver.insert_media(a_mark(), OTHER, soon())).url == OTHER
    assert bmc.acts() == [f"VirtualMedia.{verb}Media" for verb in ("Insert", "Eject", "Insert")]


async def test_an_image_that_never_shows_is_inserted_again_in_the_end(
    bmc: LyingBmc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first order can no more be expected to be done."""
    monkeypatch.setattr(orders, "PATIENCE_SECONDS", 0.0)
    bmc.lies.late_media = EVER
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Leftover):
            await driver.insert_media(a_mark(), MEDIA, soon())
        bmc.machine.image, bmc.lies.late_media = "", 0
        await driver.insert_media(a_mark(), MEDIA, soon())
    assert bmc.acts() == ["VirtualMedia.InsertMedia"] * 2


async def test_an_insert_that_was_refused_is_sent_again(bmc: LyingBmc, tmp_path: Path) -> None:
    """At the next attempt; an eject meanwhile waits for nothing."""
    bmc.lies.busy = 2
    async with opened(bmc, tmp_path) as driver:
        for _ in range(2):
            with pytest.raises(Busy, match="HTTP 503"):
                await driver.insert_media(a_mark(), MEDIA, soon())
            await driver.eject_media(a_mark(), soon())
        await driver.insert_media(a_mark(), MEDIA, soon())
    assert [each.acted for each in bmc.changes()] == [False, False, True]


async def test_an_insert_that_the_gateway_gave_up_is_looked_for(bmc: LyingBmc, tmp_path: Path) -> None:
    """The BMC behind it may do it all the same."""
    bmc.lies.fails_acting, bmc.lies.late_media = 1, 1
    async with opened(bmc, tmp_path) as driver:
        with pytest.raises(Busy, match="HTTP 504"):
            await driver.insert_media(a_mark(), MEDIA, soon())
        assert (await driver.insert_media(a_mark(), MEDIA, soon())).url == MEDIA
    assert len(bmc.changes()) == 1


@pytest.mark.parametrize("refused", [0, 400, 409, 500])
async def test_what_a_drive_names_and_is_not_connected_to_is_out(bmc: LyingBmc, tmp_path: Path, refused: int) -> None:
    """As Supermicro's do after an eject; they may also refuse another one. Nothing remains, and others go in."""
    bmc.machine.stale_names, bmc.machine.ejected = True, OLD
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = int(refused > 0), refused, "oops"
        await driver.eject_media(a_mark(), soon())
        assert [each.url for each in await driver.media(soon())] == [""]
        assert (await driver.insert_media(a_mark(), MEDIA, soon())).url == MEDIA
        assert len(await driver.remains("m-1", soon())) == 1
        await driver.eject_media(a_mark(), soon())
        assert await driver.remains("m-1", soon()) == ()
    assert (bmc.machine.image, bmc.machine.ejected) == ("", MEDIA)


async def test_a_drive_that_says_itself_that_it_is_empty_holds_up_nothing(bmc: LyingBmc, tmp_path: Path) -> None:
    """As an iDRAC does whose drive still names an image. Another refusal is one."""
    bmc.machine.image = OLD
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 1, 500, "oops"
        with pytest.raises(Busy):
            await driver.insert_media(a_mark(), MEDIA, soon())
        bmc.lies.busy, bmc.lies.busy_text = 1, "No Virtual Media devices are currently connected."
        await driver.insert_media(a_mark(), MEDIA, soon())
    assert bmc.acts() == ["VirtualMedia.InsertMedia"]
    assert bmc.machine.image == MEDIA


async def test_the_drive_that_takes_a_url_is_taken(bmc: LyingBmc, tmp_path: Path) -> None:
    """Though it is not the first: OpenBMC's first ones are for media of the operator's own computer."""
    bmc.machine.has_proxy = True
    async with opened(bmc, tmp_path) as driver:
        assert (await driver.insert_media(a_mark(), MEDIA, soon())).slot == "Cd"
        await driver.eject_media(a_mark(), soon())
    assert bmc.acts() == ["VirtualMedia.InsertMedia", "VirtualMedia.EjectMedia"]


async def test_drives_that_take_no_url_are_no_virtual_media(bmc: LyingBmc, tmp_path: Path) -> None:
    """They are neither promised nor chosen: the server boots from the network, as the guide says."""
    bmc.machine.has_proxy, bmc.machine.has_drives = True, False
    target = a_target(bmc)
    async with opened(bmc, tmp_path, target) as driver:
        assert "boot.virtual-media" not in (await driver.inspect(soon())).capabilities
        assert await boots_from(driver, target) is BootDevice.NETWORK
        await driver.eject_media(a_mark(), soon())
        with pytest.raises(Unsupported, match="no virtual drive that takes a CD or DVD by its URL"):
            await driver.insert_media(a_mark(), MEDIA, soon())
    assert bmc.changes() == []


async def test_drives_for_the_operators_media_are_there_before_the_others(bmc: LyingBmc, tmp_path: Path) -> None:
    """When a BMC restarts: that they are all is waited for, as if there were none."""
    bmc.machine.has_proxy = True
    target = a_target(bmc)
    async with opened(bmc, tmp_path, target) as driver:
        await driver.inspect(soon())
        bmc.machine.has_drives = False
        with pytest.raises(Busy, match="tells of no virtual drive"):
            await boots_from(driver, target)


@pytest.mark.parametrize("backwards", [False, True])
async def test_a_drive_that_takes_a_url_by_a_patch_is_found(bmc: LyingBmc, tmp_path: Path, backwards: bool) -> None:
    """Though another comes first that refuses it, as Lenovo's do; by their names, whatever the order of the list. What
    shows late is looked for there."""
    bmc.machine.lists_backwards = backwards
    bmc.machine.has_proxy, bmc.machine.inserts_by_action, bmc.machine.ejects_by_action = True, False, False
    async with opened(bmc, tmp_path) as driver:
        assert "boot.virtual-media" in (await driver.inspect(soon())).capabilities
        assert (await driver.insert_media(a_mark(), MEDIA, soon())).slot == "Cd"
        await driver.insert_media(a_mark(), MEDIA, soon())
        await driver.eject_media(a_mark(), soon())
        bmc.lies.late_media = EVER
        with pytest.raises(Leftover):
            await driver.insert_media(a_mark(), MEDIA, soon())
        bmc.lies.late_media = 0
        await driver.insert_media(a_mark(), MEDIA, soon())
    assert [each.path[-3:] for each in bmc.changes()] == ["a/A", "/Cd", "/Cd", "a/A", "/Cd"]
    assert bmc.machine.image == MEDIA


async def test_drives_that_all_refuse_are_all_named(bmc: LyingBmc, tmp_path: Path) -> None:
    """With what each said. One that asks for patience is no refusal, and is not passed over."""
    bmc.machine.has_proxy, bmc.machine.inserts_by_action = True, False
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.busy, bmc.lies.busy_status, bmc.lies.busy_text = 2, 405, "not by this"
        with pytest.raises(Unsupported, match="drive A: not by this; drive Cd: not by this"):
            await driver.insert_media(a_mark(), MEDIA, soon())
        bmc.lies.busy, bmc.lies.busy_status = 1, 503
        with pytest.raises(Busy, match="drive A: not by this"):
            await driver.insert_media(a_mark(), MEDIA, soon())
    assert (len(bmc.changes()), bmc.acts()) == (3, [])


SPELLINGS: dict[str, Callable[[str], str]] = {
    "host": lambda url: url.replace("Boot.test", "boot.test"),
    "port": lambda url: url.replace(":7421", ""),
    "encoded": lambda url: quote(url, safe=""),
    "scheme": lambda url: url.partition("://")[2],
    "path": lambda url: url.partition(":7421")[2],
    "file": lambda url: url.rpartition("/")[2],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_url_in_the_drives_own_spelling_is_the_runs(bmc: LyingBmc, tmp_path: Path, spelling: str) -> None:
    """It is inserted once, and goes out."""
    bmc.machine.spells = SPELLINGS[spelling]
    async with opened(bmc, tmp_path) as driver:
        for _ in range(3):
            assert (await driver.insert_media(a_mark(), FIRST, soon())).url == FIRST
        assert len(await driver.remains("m-1", soon())) == 1
        await driver.eject_media(a_mark(), soon())
    assert bmc.acts() == ["VirtualMedia.InsertMedia", "VirtualMedia.EjectMedia"]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_the_medium_of_an_older_boot_is_changed(bmc: LyingBmc, tmp_path: Path, spelling: str) -> None:
    """Though its file has the same name, also by a worker that did not give it: its token opens nothing any more."""
    bmc.machine.spells = SPELLINGS[spelling]
    for url in (FIRST, SECOND):
        async with opened(bmc, tmp_path) as driver:
            await driver.insert_media(a_mark(), url, soon())
        assert bmc.machine.image == url
    assert bmc.acts() == [f"VirtualMedia.{verb}Media" for verb in ("Insert", "Eject", "Insert")]


async def test_a_name_that_stayed_behind_is_no_medium(bmc: LyingBmc, tmp_path: Path) -> None:
    """Of a drive that goes on naming what it ejected only the file is seen: that is not what was ordered now."""
    bmc.machine.stale_names, bmc.machine.spells = True, SPELLINGS["file"]
    bmc.machine.image = FIRST
    async with opened(bmc, tmp_path) as driver:
        bmc.lies.drops_changes, bmc.lies.ignores_inserts = 2, 1
        with pytest.raises(Unreachable):
            await driver.insert_media(a_mark(), SECOND, soon())
    assert (bmc.machine.image, bmc.machine.ejected) == ("", FIRST)


@pytest.mark.parametrize(
    "said", ["", None, "/", "iso", "1.iso", "other/run-1.iso", "http://boot.test/run-1.iso", SECOND]
)
def test_what_is_not_the_end_of_a_url_is_no_evidence(said: str | None) -> None:
    """Only whole parts of its own path are."""
    assert not is_end(said, FIRST)
    assert not is_url(said, FIRST)
