"""All activities of a partition worker: those that speak to providers and machines, and need no database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mulligan.activities.bmcs import BmcActivities
from mulligan.activities.boot import BootActivities
from mulligan.activities.deploy import DeployActivities
from mulligan.activities.erase import EraseActivities
from mulligan.activities.image import ImageActivities
from mulligan.activities.live import LiveActivities
from mulligan.activities.site import Site
from mulligan.activities.survey import SurveyActivities
from mulligan.activities.verify import VerifyActivities
from mulligan.activities.watch_boot import WatchActivities
from mulligan.activities.watch_guest import GuestActivities


def partition_activities(site: Site) -> list[Callable[..., Any]]:
    """The activities, bound to a partition worker's surroundings."""
    image, boot, verify = ImageActivities(site), BootActivities(site), VerifyActivities(site)
    return [
        image.prepare,
        image.remove_bases,
        image.place_disks,
        image.remove_disks,
        DeployActivities(site).deploy,
        EraseActivities(site).erase,
        boot.boot,
        LiveActivities(site).boot_live,
        boot.tear_down,
        boot.inspect,
        verify.observe,
        verify.probe,
        WatchActivities(site).watch_boot,
        GuestActivities(site).watch_guest,
        SurveyActivities(site).survey,
        BmcActivities(site).list_bmcs,
    ]
