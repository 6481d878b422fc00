"""The table of lies that a BMC tells over Redfish, and of the steps at which it tells them.

A step is the request of a run that a lie falls on, in the order of a run that goes well: the n-th request to the BMC of
its kind, counted anew when the release begins. Steps that only look are told by the change before them, and by how many
looks at the server followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.drivers.bmc.machine import Lies, Machine
from tests.drivers.bmc.once import Request
from tests.drivers.bmc.server import LyingBmc

CHANGES: Mapping[str, tuple[str, int]] = {
    "deploy.off": ("off", 1),
    "deploy.eject": ("eject", 1),
    "deploy.insert": ("insert", 1),
    "deploy.override": ("set", 1),
    "deploy.on": ("on", 1),
    "deployed.off": ("off", 2),
    "deployed.eject": ("eject", 2),
    "deployed.clear": ("clear", 1),
    "boot.override": ("set", 2),
    "boot.on": ("on", 2),
    "release.off": ("off", 1),
    "release.clear": ("clear", 1),
    "erase.insert": ("insert", 1),
    "erase.override": ("set", 1),
    "erase.on": ("on", 1),
    "erased.off": ("off", 2),
    "erased.eject": ("eject", 1),
    "erased.clear": ("clear", 2),
}
"""The changes that a run asks of the BMC of a server that was on, with an old medium, and whose firmware does not take
the override away by itself: their kinds, and the how manieth of its kind each is."""

LOOKS: Mapping[str, tuple[str, int]] = {
    "register.look": ("", 0),
    "deploy.watch": ("on", 1),
    "verify.look": ("on", 2),
    "erase.watch": ("on", 1),
}
"""The steps that only look, and the change that they follow."""
LOOKS_BEFORE = 3
"""Reads of the server after that change that still belong to it."""
RELEASING = ("release", "erase", "erased")
"""The phases of a release; the others are those of making a machine."""
ANY = ("off", "on", "eject", "insert", "set", "clear")


@dataclass(frozen=True)
class Lie:
    """One way to lie, told once, or for a short while."""

    tell: Callable[[LyingBmc], None]
    kinds: tuple[str, ...] = ANY
    """The changes that it can fall on."""
    looks: Callable[[LyingBmc], None] | None = None
    """How it falls on a look; None where it cannot."""

    def steps(self) -> list[str]:
        """The steps that it can fall on."""
        looks = list(LOOKS) if self.looks is not None else []
        return [step for step, (kind, _) in CHANGES.items() if kind in self.kinds] + looks


def _says(**lies: Any) -> Callable[[LyingBmc], None]:
    def tell(bmc: LyingBmc) -> None:
        for name, value in lies.items():
            setattr(bmc.lies, name, value)

    return tell


def _garbage(bmc: LyingBmc) -> None:
    bmc.lies.garbage = [b'{"Id": "1", "PowerState": "O', b"[]", b"<html>Please wait</html>"]


def _wrong_etag(bmc: LyingBmc) -> None:
    """Somebody changed the machine since it was read, and from now on no ETag is the right one."""
    bmc.machine.version += 1
    bmc.lies.wrong_etag = True


EVER = 10**6
SOON: Mapping[str, Any] = {"retry_after": "1"}

LIES: Mapping[str, Lie] = {
    "acts-then-drops": Lie(_says(drops_changes=1), looks=_says(drops_reads=1)),
    "drops-and-is-gone": Lie(_says(drops_changes=1, drops_reads=9)),
    "half-open": Lie(_says(slow=1), looks=_says(silent=1)),
    "never-hears": Lie(_says(silent=1)),
    "busy-409": Lie(_says(busy=2, busy_status=409, **SOON)),
    "busy-503": Lie(_says(busy=2, **SOON), looks=_says(busy_reads=2, **SOON)),
    "session-expired": Lie(LyingBmc.expire_sessions, looks=LyingBmc.expire_sessions),
    "garbage": Lie(_garbage, looks=_garbage),
    "slow-post": Lie(_says(post_seconds=2.0), ("on",)),
    "power-late": Lie(_says(late_power_seconds=7.0), ("on", "off")),
    "override-forgotten": Lie(_says(forgets_override=1), ("set", "clear")),
    "override-lost-at-power-on": Lie(_says(loses_override=1), ("set",)),
    "sticky-media": Lie(_says(ignores_ejects=2), ("eject",)),
    "wrong-etag": Lie(_wrong_etag, ("set", "clear")),
}

LASTING: Mapping[str, Lie] = {
    "dead": Lie(_says(silent=EVER)),
    "busy": Lie(_says(busy=EVER, **SOON)),
    "drops-every-answer": Lie(_says(drops_changes=EVER)),
    "garbage": Lie(lambda bmc: bmc.lies.garbage.extend([b"[]"] * 9999)),
    "power-never-told": Lie(_says(late_power_seconds=float(EVER)), ("on", "off")),
    "override-never-taken": Lie(_says(forgets_override=EVER), ("set", "clear")),
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
    return "clear" if body["Boot"].get("BootSourceOverrideEnabled") == "Disabled" else "set"


@dataclass
class Plot:
    """Tells one lie at each of some steps; counts what is asked until then."""

    bmc: LyingBmc
    lie: Lie
    steps: list[str]
    """Where it is still to be told."""
    counts: Counter[str] = field(default_factory=Counter)
    looks: int = 0
    """Since the last change."""
    releasing: bool = False

    def releases(self) -> None:
        """What comes now is the release."""
        if not self.releasing:
            self.releasing = True
            self.counts.clear()

    def __call__(self, method: str, path: str, body: dict[str, Any]) -> None:
        kind = kind_of(method, path, body)
        self.counts[kind] += 1
        self.looks = 0 if kind else self.looks + (path == self.bmc.machine.path)
        for step in [each for each in self.steps if self._is_now(each, kind)]:
            self.steps.remove(step)
            tell = self.lie.tell if step in CHANGES else self.lie.looks
            assert tell is not None
            tell(self.bmc)

    def _is_now(self, step: str, kind: str) -> bool:
        if (step.partition(".")[0] in RELEASING) is not self.releasing:
            return False
        if step in CHANGES:
            return (kind, self.counts[kind]) == CHANGES[step]
        after, number = LOOKS[step]
        return not kind and (not after or (self.counts[after] == number and self.looks >= LOOKS_BEFORE))


class LyingRedfish(LyingBmc):
    """A BMC that tells one lie, at some steps. Its server is on at first, with somebody's old medium in its drive."""

    def __init__(self, lie: Lie, steps: Sequence[str]) -> None:
        machine = Machine("1", power="On", shown_power="On", image="http://boot.test/old.iso")
        machine.progress = {"LastState": "None"}
        super().__init__(machine)
        if set(steps) & set(LOOKS):
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
            self.plotted.releases()

    def open_sessions(self) -> int:
        """How many there are."""
        return len(self.sessions)

    def heal(self) -> None:
        """Lie no more."""
        with self.lock:
            self.healed, self.lies, self.machine.told_at = True, Lies(), 0.0
