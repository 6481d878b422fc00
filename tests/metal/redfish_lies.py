"""The table of lies that a BMC tells over Redfish, and the BMC that tells one of them at some steps of the runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.drivers.bmc.machine import Lies, Machine, a_mac
from tests.drivers.bmc.once import Request
from tests.drivers.bmc.server import LyingBmc
from tests.metal.steps import FIRST_LOOK, LOOKS, Course, changes

ANY = ("off", "on", "eject", "insert", "override", "clear")


@dataclass(frozen=True)
class Lie:
    """One way to lie, told once, or for a short while."""

    tell: Callable[[LyingBmc], None]
    kinds: tuple[str, ...] = ANY
    """The changes that it can fall on."""
    looks: Callable[[LyingBmc], None] | None = None
    """How it falls on a look; None where it cannot."""

    first: bool = True
    """Whether it can fall on the very first look too, where nothing is known of the BMC."""

    def steps(self) -> list[str]:
        """The steps that it can fall on."""
        looks = [*([FIRST_LOOK] if self.first else []), *LOOKS.values()]
        return changes(self.kinds) + (looks if self.looks is not None else [])


def _says(**lies: Any) -> Callable[[LyingBmc], None]:
    def tell(bmc: LyingBmc) -> None:
        for name, value in lies.items():
            setattr(bmc.lies, name, value)

    return tell


def _garbage(bmc: LyingBmc) -> None:
    bmc.lies.garbage = [GARBAGE[len(bmc.changes()) % len(GARBAGE)]]


def _wrong_etag(bmc: LyingBmc) -> None:
    """Somebody changed the machine since it was read, and from now on no ETag is the right one."""
    bmc.machine.version += 1
    bmc.lies.wrong_etag = True


def _not_there_yet(bmc: LyingBmc) -> None:
    bmc.lies.absent_until = time.monotonic() + 1.5


def _login_lost(bmc: LyingBmc) -> None:
    """It restarts, and the answer to the next log-in is lost."""
    bmc.expire_sessions()
    bmc.lies.drops_logins = 1


def _login_refused(bmc: LyingBmc) -> None:
    """It restarts, and refuses the right password for a while."""
    bmc.expire_sessions()
    bmc.lies.refuses_logins = 2


GARBAGE = (b'{"Id": "1", "PowerState": "O', b"[]", b"<html>Please wait</html>")
EVER = 10**6
SOON: Mapping[str, Any] = {"retry_after": "1"}

LIES: Mapping[str, Lie] = {
    "acts-then-drops": Lie(_says(drops_changes=1), looks=_says(drops_reads=1)),
    "acts-then-fails": Lie(_says(fails_acting=1)),
    "drops-and-is-gone": Lie(_says(drops_changes=1, drops_reads=4)),
    "half-open": Lie(_says(slow=1), looks=_says(silent=1)),
    "never-hears": Lie(_says(silent=1)),
    "busy-409": Lie(_says(busy=2, busy_status=409, **SOON)),
    "busy-503": Lie(_says(busy=2, **SOON), looks=_says(busy_reads=2, **SOON)),
    "session-expired": Lie(LyingBmc.expire_sessions, looks=LyingBmc.expire_sessions),
    "not-there-yet": Lie(_not_there_yet, looks=_not_there_yet, first=False),
    "login-lost": Lie(_login_lost, looks=_login_lost),
    "login-refused": Lie(_login_refused, looks=_login_refused),
    "garbage": Lie(_garbage, looks=_garbage),
    "slow-post": Lie(_says(post_seconds=2.0), ("on",)),
    "power-late": Lie(_says(late_power_seconds=6.5), ("on", "off")),
    "media-late": Lie(_says(late_media=8), ("insert",)),
    "override-forgotten": Lie(_says(forgets_override=1), ("override", "clear")),
    "override-lost-at-power-on": Lie(_says(loses_override=1), ("override",)),
    "sticky-media": Lie(_says(ignores_ejects=2), ("eject",)),
    "wrong-etag": Lie(_wrong_etag, ("override", "clear")),
}

LASTING: Mapping[str, Lie] = {
    "dead": Lie(_says(silent=EVER)),
    "busy": Lie(_says(busy=EVER, **SOON)),
    "drops-every-answer": Lie(_says(drops_changes=EVER)),
    "garbage": Lie(lambda bmc: bmc.lies.garbage.extend([b"[]"] * 9999)),
    "power-never-told": Lie(_says(late_power_seconds=float(EVER)), ("on", "off")),
    "override-never-taken": Lie(_says(forgets_override=EVER), ("override", "clear")),
    "sticky-media": Lie(_says(sticky_media=True), ("eject",)),
    "forbidden": Lie(_says(forbids=True)),
}
"""Those that last until somebody mends the BMC."""


def kind_of(method: str, path: str, body: Mapping[str, Any]) -> str:
    """Which of the changes a request asks for; empty when it looks."""
    if method == "GET":
        return ""
    verb = path.rpartition("/")[2]
    if verb == "ComputerSystem.Reset":
        return "on" if body["ResetType"] == "On" else "off"
    if verb.startswith("VirtualMedia."):
        return verb.removeprefix("VirtualMedia.").removesuffix("Media").lower()
    return "clear" if body["Boot"].get("BootSourceOverrideEnabled") == "Disabled" else "override"


@dataclass
class Plot:
    """Tells one lie at each of some steps, once."""

    bmc: LyingBmc
    lie: Lie
    steps: list[str]
    """Where it is still to be told."""
    course: Course = field(default_factory=Course)

    def __call__(self, method: str, path: str, body: dict[str, Any]) -> None:
        kind = kind_of(method, path, body)
        step = self.course.step(kind, at_server=path == self.bmc.machine.path)
        if step in self.steps:
            self.steps.remove(step)
            tell = self.lie.tell if kind else self.lie.looks
            assert tell is not None
            tell(self.bmc)


class LyingRedfish(LyingBmc):
    """A BMC that tells one lie, at some steps. Its server is on at first, with somebody's old medium in its drive."""

    def __init__(self, lie: Lie, steps: Sequence[str]) -> None:
        machine = Machine("1", mac=a_mac(), power="On", shown_power="On", image="http://boot.test/old.iso")
        machine.progress = {"LastState": "None"}
        super().__init__(machine)
        if set(steps) & set(LOOKS.values()):
            self.lies.post_seconds = 1.0  # there is time to look
        self.plotted = Plot(self, lie, list(steps))
        self.plot = self.plotted
        self.settings: dict[str, str] = {}
        self.healed = False

    @property
    def lies_to_come(self) -> str:
        """The steps that were not reached."""
        return " and ".join(self.plotted.steps)

    @property
    def rest(self) -> tuple[str, str, str]:
        """The truth."""
        return self.machine.power, self.machine.image, self.machine.enabled

    def requests(self) -> Sequence[Request]:
        """The log."""
        with self.lock:
            return list(self.log)

    def releases(self) -> None:
        """What comes now is the release."""
        with self.lock:
            self.plotted.course.releases()

    def worked(self) -> None:
        """The deploy agent has done what it was booted for."""
        with self.lock:
            self.plotted.course.worked = True

    def open_sessions(self) -> int:
        """How many there are, but for those that it told nobody of: nobody can end them."""
        with self.lock:
            return len(set(self.sessions) - self.lost)

    def heal(self) -> None:
        """Lie no more."""
        with self.lock:
            self.healed, self.lies, self.machine.told_at = True, Lies(), 0.0
