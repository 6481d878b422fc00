"""Looking at a provider before a run: what its driver lacks for a request, and what the image lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from mulligan.activities.drivers.base import Driver
from mulligan.activities.images.store import ImageStore
from mulligan.activities.planning import Surveyed, SurveyIn
from mulligan.activities.seal import Keyring
from mulligan.activities.site import Site
from mulligan.activities.survey import SurveyActivities, cannot
from mulligan.activities.values import Inspection, Kind, MachineRequest, Service, ServiceKind, Target, VerifyLevel
from tests.workflows.stack import IMAGE, SMALL

TARGET = Target("hv-1", "default", "simulated://survey/hv-1?speed=0&service=on")


class Switch:
    """A driver of what can only be looked at."""

    moves_bytes = True

    async def inspect(self, deadline: object) -> Inspection:
        return Inspection(Kind.VIRTUAL, (), ())

    async def remains(self, machine_id: str, deadline: object) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        return None


def asking(level: VerifyLevel = VerifyLevel.ADDRESS) -> SurveyIn:
    """A machine of the demo image, to be proved to this level."""
    request = MachineRequest("demo", "web-1", IMAGE.name, SMALL, verify=level)
    return SurveyIn(TARGET, "virtual", IMAGE, request)


async def surveyed(directory: Path, asked: SurveyIn, boot_url: str = "") -> Surveyed:
    """What a partition worker sees whose boot server guests reach there; empty when they do not."""
    keyring = Keyring.load(directory / "secret.key")
    site = Site(ImageStore(directory / "cache"), keyring, directory / "drivers", lambda _: boot_url)
    return await ActivityEnvironment().run(SurveyActivities(site).survey, asked)


@pytest.mark.parametrize(
    ("level", "lacking"),
    [
        (VerifyLevel.POWER, ["make disks", "switch a machine on and off"]),
        (VerifyLevel.CONSOLE, ["make disks", "switch a machine on and off", "read a console"]),
        (VerifyLevel.GUEST, ["make disks", "switch a machine on and off", "read a console", "see addresses"]),
    ],
)
def test_what_a_driver_cannot_do_is_named(level: VerifyLevel, lacking: list[str]) -> None:
    """All of it, and only what this request needs."""
    driver: Driver = Switch()
    told = list(cannot(driver, asking(level)))
    assert [one.split(" cannot ")[1].split(",")[0] for one in told] == lacking
    assert all("hv-1" in one for one in told)


async def test_a_guest_that_cannot_call_home_is_lacking(tmp_path: Path) -> None:
    """Only where its call is needed, and with what to set."""
    (lack,) = (await surveyed(tmp_path, asking(VerifyLevel.SERVICE))).lacks
    assert "MULLIGAN_BOOT_URL" in lack
    assert (await surveyed(tmp_path, asking(VerifyLevel.ADDRESS))).lacks == ()
    assert (await surveyed(tmp_path, asking(VerifyLevel.SERVICE), "http://192.0.2.1:7421")).lacks == ()


@pytest.mark.parametrize(
    ("settings", "service", "why"),
    [
        ("service=off", Service(ServiceKind.SSH, 22), "its guests listen nowhere (its setting service is off)"),
        ("service=on", Service(ServiceKind.HTTP, 22), "an SSH banner on port 22 only"),
        ("service=on&service_port=2222", Service(ServiceKind.SSH, 22), "an SSH banner on port 2222 only"),
        ("service=on&service_port=2222", Service(ServiceKind.TCP, 2222), ""),
    ],
    ids=["off", "another-kind", "another-port", "answers"],
)
async def test_a_service_that_no_simulated_guest_has_is_lacking(
    tmp_path: Path, settings: str, service: Service, why: str
) -> None:
    """Only where it is asked for, and with the level that can be proved there."""
    target = replace(TARGET, url=f"simulated://survey/hv-1?speed=0&{settings}")
    asked = replace(asking(VerifyLevel.SERVICE), target=target)
    asked = replace(asked, request=replace(asked.request, service=service))
    lacks = (await surveyed(tmp_path, asked, "http://192.0.2.1:7421")).lacks
    assert len(lacks) == (1 if why else 0)
    assert all(why in each and each.endswith("; ask for level guest") for each in lacks)
    less = replace(asked, request=replace(asked.request, verify=VerifyLevel.GUEST))
    assert (await surveyed(tmp_path, less, "http://192.0.2.1:7421")).lacks == ()


async def test_looking_again_sees_the_same(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    assert await surveyed(tmp_path, asking()) == await surveyed(tmp_path, asking())


async def test_whole_disks_are_destroyed(tmp_path: Path) -> None:
    """On what is given whole, and nowhere else."""
    assert (await surveyed(tmp_path, asking())).destroys == ()
    told = (await surveyed(tmp_path, replace(asking(), kind="bare-metal"))).destroys
    assert told == ("everything on the root disk of hv-1, which is given whole",)
