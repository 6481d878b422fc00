"""Live images on a server behind a BMC that lies: served while the machine lives, gone with it, no disk touched."""

from __future__ import annotations

import io
import itertools
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pycdlib
import pytest

from mulligan.activities import calls
from mulligan.activities.agent.image import ISO, MANIFEST, empty_hole, folder_of
from mulligan.activities.boot import BootActivities
from mulligan.activities.bootserver.job import JobKind, job_id
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.errors import Busy, HostNotReady, ImageRejected, MulliganError, Unreachable, Unsupported
from mulligan.activities.image import ImageActivities
from mulligan.activities.live import NO_DISKS, LiveActivities
from mulligan.activities.patience import Patience
from mulligan.activities.planning import SurveyIn
from mulligan.activities.survey import SurveyActivities
from mulligan.activities.values import Firmware, Image, MachineRequest, Resources, VerifyLevel
from tests.images.live_parts import INITRD, LOADER, a_kernel, an_iso, live_iso, live_kernel
from tests.metal.conftest import MARK, PATIENT, Lab, an_environment, until
from tests.metal.played import MAC

JOB = job_id("srv-1", MARK, JobKind.LIVE)
NETWORK = {"boot_from": "network", "macs": MAC}


def booting(lab: Lab, image: Image, **settings: str) -> calls.DisksIn:
    """What the workflow asks for."""
    request = MachineRequest("shop", "web-1", image.name, Resources(1, 512, 0), verify=VerifyLevel.POWER)
    return calls.DisksIn(lab.target(**settings), MARK, image, request, "provision:shop:web-1", 1, 600)


async def boot(lab: Lab, asked: calls.DisksIn, patience: Patience = PATIENT) -> calls.Booted:
    """One attempt of the activity, in a worker of its own."""
    site = lab.site()
    try:
        return await an_environment().run(LiveActivities(site, patience).boot_live, asked)
    finally:
        await site.kept.close()


async def tear_down(lab: Lab) -> calls.Done:
    """One attempt of it, likewise."""
    site = lab.site()
    try:
        return await an_environment().run(BootActivities(site).tear_down, calls.MadeFor(lab.target(), MARK))
    finally:
        await site.kept.close()


async def fetched(url: str, **headers: str) -> tuple[int, bytes]:
    """Status and body."""
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


def twice(lab: Lab) -> list[str]:
    """The changes that were sent to the BMC, and acted on, more than once in a row."""
    acted = [json.dumps([each.path, each.body]) for each in lab.bmc.changes() if each.acted]
    return [one for one, other in itertools.pairwise(acted) if one == other]


def url_of(lab: Lab) -> str:
    """What is in the drive."""
    with lab.bmc.lock:
        return lab.bmc.machine.image


def an_agent_with_loaders(lab: Lab) -> None:
    """A build of the agent whose ISO has what starts a kernel, as far as a medium is made of it."""
    manifest = lab.directory / "agent" / MANIFEST
    said = json.loads(manifest.read_text())
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, rock_ridge="1.09")
    disc.add_directory("/BOOT", rr_name="boot")
    disc.add_directory("/BOOT/GRUB", rr_name="grub")
    files = {"mulligan-0123": b"", "grub/eltorito.img": LOADER, "grub/grub.cfg": empty_hole(), "esp.img": LOADER}
    for number, (name, content) in enumerate(files.items()):
        folder = "/BOOT/GRUB" if "/" in name else "/BOOT"
        disc.add_fp(io.BytesIO(content), len(content), f"{folder}/F{number}.;1", rr_name=name.rpartition("/")[2])
    disc.add_eltorito("/BOOT/GRUB/F1.;1", "/BOOT/C.;1", rr_bootcatname="c", boot_load_size=4)
    disc.add_eltorito("/BOOT/F3.;1", boot_load_size=len(LOADER) // 512, platform_id=0xEF, efi=True)
    iso = lab.directory / "agent" / folder_of(said["version"]) / ISO
    disc.write(str(iso))
    disc.close()
    said["hole_offset"] = iso.read_bytes().index(empty_hole())
    said["files"][ISO]["bytes"] = iso.stat().st_size
    manifest.write_text(json.dumps(said))


async def test_an_iso_is_inserted_and_read(lab: Lab) -> None:
    """As it is; it stays in the drive, and is booted again by every boot to come. That it was read is the evidence."""
    image = live_iso(lab.directory)
    done = await boot(lab, booting(lab, image))
    assert lab.server.boots == ["live"]
    assert lab.server.live == an_iso()
    assert f"{len(an_iso())} bytes of the medium were read" in done.evidence[0].observed
    assert "run-1" in url_of(lab)
    assert (lab.bmc.machine.target, lab.bmc.machine.enabled) == ("Cd", "Continuous")
    assert [each.source for each in done.evidence] == ["boot-server"]
    assert twice(lab) == []


async def test_a_bmc_that_refuses_every_boot_boots_it_once_and_that_is_told(lab: Lab) -> None:
    """It answers 400 to an override that stays; the evidence says that a restart follows the server's own order."""
    lab.bmc.lies.refuses_continuous = True
    done = await boot(lab, booting(lab, live_iso(lab.directory)))
    assert lab.server.boots == ["live"]
    (told,) = [each.observed for each in done.evidence if each.source == "bmc"]
    assert "overrides one boot only" in told and "by its own order" in told
    assert twice(lab) == []


async def test_a_medium_is_read_by_ranges_for_as_long_as_the_machine_lives(lab: Lab) -> None:
    """In years too; and by nobody after it."""
    await boot(lab, booting(lab, live_iso(lab.directory)))
    url, content = url_of(lab), an_iso()
    assert await fetched(url, Range="bytes=32768-34815") == (206, content[32768:34816])
    later = lab.site().jobs
    later.now = lambda: datetime.now(UTC) + timedelta(days=3650)
    assert later.admit(url.split("/")[-2])[0].id == JOB
    await tear_down(lab)
    assert (await fetched(url))[0] == 410


async def test_a_kernel_is_booted_from_a_medium_made_around_it(lab: Lab) -> None:
    """Its arguments are in it, with where its seed is; kernel and initrd are whole."""
    image = live_kernel(lab.directory, kernel_arguments="console=ttyS0 quiet")
    an_agent_with_loaders(lab)
    await boot(lab, booting(lab, image))
    medium = lab.server.live
    assert a_kernel() in medium and INITRD in medium
    words = rb"ds=nocloud-net;s=(http://\S+/);i=m-1;h=web-1 " + NO_DISKS.encode()
    found = re.search(rb"set mulligan='console=ttyS0 quiet " + words + rb"'", medium)
    assert found is not None
    status, seed = await fetched(f"{found.group(1).decode()}meta-data")
    assert status == 200 and b"instance-id: m-1" in seed


async def test_a_kernel_is_booted_from_the_network(lab: Lab) -> None:
    """By its network card; the seed tells how to call home, and is there at every boot to come."""
    image = live_kernel(lab.directory, kernel_arguments="quiet")
    done = await boot(lab, booting(lab, image, **NETWORK))
    assert "bytes of the kernel" in done.evidence[0].observed
    script = lab.server.live.decode()
    assert "initrd --name initrd" in script and "initrd=initrd quiet ds=nocloud-net;s=" in script
    where = re.findall(r"s=(http://\S+/)", script)[0]
    for name, words in (("user-data", "#cloud-config"), ("vendor-data", "call-home"), ("meta-data", "web-1")):
        status, body = await fetched(where + name)
        assert status == 200 and words in body.decode()
    assert (await fetched(where + "network-config"))[0] == 404
    with lab.bmc.lock:
        lab.bmc.machine.power = "Off"
    await until(lambda: not lab.server.on)
    again, _ = await fetched(f"{lab.server.base}?mac={MAC}")
    assert again == 200
    await tear_down(lab)
    assert (await fetched(where + "user-data"))[0] == 410
    assert b"local disk" in (await fetched(f"{lab.server.base}?mac={MAC}"))[1]


async def test_an_iso_is_booted_from_the_network_by_bios(lab: Lab) -> None:
    """Through iPXE, which hands it to the BIOS."""
    await boot_from_network(lab, live_iso(lab.directory, an_iso((Firmware.BIOS,)), firmware=(Firmware.BIOS,)))
    script = lab.server.live.decode()
    assert re.search(
        r"^iseq \$\{platform\} pcbios \|\| goto again\nsanboot --no-describe http://\S+\.iso", script, re.M
    )
    modes = [each.body["Boot"].get("BootSourceOverrideMode") for each in lab.bmc.changes() if "Boot" in each.body]
    assert modes[0] == "Legacy"


async def boot_from_network(lab: Lab, image: Image) -> None:
    """Until the script was asked for: this server's iPXE cannot boot an ISO, so that nothing more is read."""
    with pytest.raises(Unreachable, match="it asked for its script, and for nothing more"):
        await boot(lab, booting(lab, image, **NETWORK), replace(PATIENT, comes=1.0))


async def test_an_iso_is_not_booted_from_the_network_by_uefi(lab: Lab) -> None:
    """It is said why, before anything is asked of the BMC, and planning says it too."""
    image = live_iso(lab.directory, an_iso((Firmware.UEFI,)), firmware=(Firmware.UEFI,))
    with pytest.raises(Unsupported, match="an ISO is booted by BIOS only"):
        await boot(lab, booting(lab, image, **NETWORK))
    assert lab.bmc.acts() == []
    assert any("by BIOS only" in lack for lack in (await surveyed(lab, image, **NETWORK)).lacks)


async def surveyed(lab: Lab, image: Image, **settings: str) -> Any:
    """What a plan finds."""
    asked, site = booting(lab, image, **settings), lab.site()
    survey = SurveyIn(asked.target, "bare-metal", image, asked.request)
    try:
        return await an_environment().run(SurveyActivities(site).survey, survey)
    finally:
        await site.kept.close()


async def test_a_plan_says_that_no_disk_is_touched(lab: Lab) -> None:
    """And lacks nothing; an ISO needs no deploy agent."""
    (lab.directory / "agent" / "manifest.json").unlink()
    found = await surveyed(lab, live_iso(lab.directory))
    assert (found.destroys, found.lacks, found.live) == ((), (), True)
    (lack,) = (await surveyed(lab, live_kernel(lab.directory))).lacks
    assert "mulligan agent build" in lack


async def test_all_is_verified_before_the_server_is_touched(lab: Lab) -> None:
    """A wrong initrd is the image's fault, and the BMC is asked for nothing."""
    image = live_kernel(lab.directory, initrd_digest="sha256:" + "0" * 64)
    site = lab.site()
    for attempt in (
        an_environment().run(
            ImageActivities(site).prepare, calls.ImageIn(booting(lab, image, **NETWORK).target, image)
        ),
        boot(lab, booting(lab, image, **NETWORK)),
    ):
        with pytest.raises(ImageRejected) as raised:
            await attempt
        assert raised.value.metadata["blame"] == "image"
    await site.kept.close()
    assert lab.bmc.acts() == []


async def test_it_is_booted_once(lab: Lab) -> None:
    """An attempt whose answer was lost is made again: it finds the boot that it began."""
    asked = booting(lab, live_iso(lab.directory))
    await boot(lab, asked)
    acts = len(lab.bmc.acts())
    again = await boot(lab, asked)
    assert again.evidence[0].level is VerifyLevel.POWER
    assert (len(lab.bmc.acts()), lab.server.boots) == (acts, ["live"])


@pytest.mark.parametrize(
    ("lies", "error"),
    [
        ({"drops_changes": 1}, None),
        ({"busy": 1}, Busy),
        ({"forgets_override": 1}, Busy),
    ],
    ids=["acts-and-drops-the-connection", "busy", "forgets-the-override"],
)
async def test_a_bmc_that_lies_is_asked_again(
    lab: Lab, lies: dict[str, int], error: type[MulliganError] | None
) -> None:
    """Nothing that was done is sent again, and nothing is left behind when the machine goes."""
    for name, count in lies.items():
        setattr(lab.bmc.lies, name, count)
    asked = booting(lab, live_iso(lab.directory))
    if error is None:
        await boot(lab, asked)
    else:
        with pytest.raises(error):
            await boot(lab, asked)
        assert "live" not in lab.server.boots
        await boot(lab, asked)
    assert lab.server.boots == ["live"]
    assert twice(lab) == []
    await tear_down(lab)
    assert lab.is_at_rest()


async def test_what_is_never_read_is_taken_out_again(lab: Lab) -> None:
    """It is said what was seen; the undo leaves the server off, and nothing of the image on its BMC."""
    lab.server.dead = True
    with pytest.raises(
        Unreachable, match=r"nothing of it was read in the time given for it; .* nothing was fetched yet"
    ):
        await boot(lab, booting(lab, live_iso(lab.directory)), replace(PATIENT, comes=0.5))
    url = url_of(lab)
    await tear_down(lab)
    assert lab.is_at_rest()
    assert (await fetched(url))[0] == 410
    await tear_down(lab)
    assert lab.is_at_rest()


@pytest.fixture
def fetched_early(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the BMC fetch so many bytes of what is in its drive before it switches the server on; 0 for all."""
    switching_on = Jobs.switching_on

    def fetches(count: int) -> None:
        def before(jobs: Jobs, job: str) -> None:
            asked = urllib.request.Request(url_of(lab), headers={"Range": f"bytes=0-{count - 1}"} if count else {})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                answer.read()
            switching_on(jobs, job)

        monkeypatch.setattr(Jobs, "switching_on", before)

    return fetches


async def test_what_a_bmc_reads_when_it_is_given_the_medium_proves_no_boot(
    lab: Lab, fetched_early: Callable[[int], None]
) -> None:
    """A server that then boots nothing is not taken for one that does; it is said what was read before."""
    lab.server.dead = True
    fetched_early(100)
    patience = replace(PATIENT, comes=0.5)
    with pytest.raises(Unreachable, match="its BMC fetched 100 bytes of the medium before, and nothing since"):
        await boot(lab, booting(lab, live_iso(lab.directory)), patience)


async def test_what_is_read_after_that_is_told_without_it(lab: Lab, fetched_early: Callable[[int], None]) -> None:
    """As the evidence of the boot."""
    fetched_early(100)
    (told,) = (await boot(lab, booting(lab, live_iso(lab.directory)))).evidence
    assert told.level is VerifyLevel.POWER
    assert told.observed == f"{len(an_iso())} bytes of the medium were read since it was switched on"


async def test_of_a_bmc_that_fetches_all_at_once_no_reading_is_seen(
    lab: Lab, fetched_early: Callable[[int], None]
) -> None:
    """So none is claimed, and none is waited for: that it has power is all that is proved."""
    lab.server.dead = True
    fetched_early(0)
    (told,) = (await boot(lab, booting(lab, live_iso(lab.directory)))).evidence
    assert told.level is None
    assert f"fetched all {len(an_iso())} bytes of the medium before the server was switched on" in told.observed


async def test_no_disk_is_touched_from_boot_to_release(lab: Lab) -> None:
    """No deploy agent comes, and no job of one is there."""
    lab.server.disk = b"somebody's data"
    await boot(lab, booting(lab, live_iso(lab.directory)))
    await tear_down(lab)
    assert lab.server.disk == b"somebody's data"
    assert "agent" not in lab.server.boots
    kinds = Counter(path.name.rpartition("-")[2] for path in (lab.directory / "drivers" / "jobs").glob("*.json"))
    assert set(kinds) == {"live.json", "live.seen.json"}


async def test_the_deploy_agent_has_no_business_with_a_live_machine(lab: Lab) -> None:
    """Its token opens none of the agent's doors."""
    await boot(lab, booting(lab, live_iso(lab.directory)))
    token = url_of(lab).split("/")[-2]
    at = f"http://127.0.0.1:{lab.port}/v1/agent/{token}"
    for name in ("configuration", "image", "seed"):
        status, why = await fetched(f"{at}/{name}", **{"X-Mulligan-Boot": "b-1"})
        assert (status, b"live machine" in why) == (403, True)


async def test_without_the_agent_a_kernel_is_not_booted_from_a_medium(lab: Lab) -> None:
    """Its boot loaders are needed; it is said how to have them."""
    (lab.directory / "agent" / "manifest.json").unlink()
    with pytest.raises(HostNotReady, match="mulligan agent build"):
        await boot(lab, booting(lab, live_kernel(lab.directory)))
    assert lab.bmc.acts() == []
