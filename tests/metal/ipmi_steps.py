"""The table of lies that a BMC tells over IPMI, and of the steps at which it tells them: see `redfish_lies`."""

from __future__ import annotations

from collections.abc import Mapping

EVER = 10**6
CHANGES: Mapping[str, tuple[str, int]] = {
    "deploy.off": ("off", 1),
    "deploy.override": ("set", 1),
    "deploy.on": ("on", 1),
    "deployed.off": ("off", 2),
    "deployed.clear": ("clear", 1),
    "boot.override": ("set", 2),
    "boot.on": ("on", 2),
    "release.off": ("off", 1),
    "release.clear": ("clear", 1),
    "erase.override": ("set", 1),
    "erase.on": ("on", 1),
    "erased.off": ("off", 2),
    "erased.clear": ("clear", 2),
}
LOOKS: Mapping[str, tuple[str, int]] = {"register.look": ("", 0), "verify.look": ("on", 2)}
LOOKS_BEFORE = 3
RELEASING = ("release", "erase", "erased")
ANY = ("off", "on", "set", "clear")

LIES: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "acts-then-drops": (ANY, True),
    "never-hears": (ANY, False),
    "half-open": (ANY, True),
    "session-expired": (ANY, True),
    "busy": (ANY, True),
    "slow-post": (("on",), False),
    "power-late": (("on", "off"), False),
    "override-forgotten": (("set", "clear"), False),
    "override-lost-at-power-on": (("set",), False),
    "truncated": (ANY, True),
    "short": (ANY, True),
}
"""The lies that pass: the changes that each can fall on, and whether it can fall on a look."""

LASTING: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "dead": (ANY, False),
    "busy": (ANY, False),
    "truncated": (ANY, False),
    "power-late": (("on", "off"), False),
    "override-forgotten": (("set", "clear"), False),
    "forbidden": (ANY, False),
}
"""Those that last until somebody mends the BMC."""


def steps_of(kinds: tuple[str, ...], *, looks: bool) -> list[str]:
    """The steps that a lie can fall on."""
    return [step for step, (kind, _) in CHANGES.items() if kind in kinds] + (list(LOOKS) if looks else [])
