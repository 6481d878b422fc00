"""The table of lies that a BMC tells over IPMI, and of the steps at which it tells them: see `redfish_lies`."""

from __future__ import annotations

from collections.abc import Mapping

from tests.metal.steps import FIRST_LOOK, LOOKS, changes

EVER = 10**6
ANY = ("off", "on", "override", "clear")

LIES: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "acts-then-drops": (ANY, True),
    "never-hears": (ANY, False),
    "half-open": (ANY, True),
    "session-expired": (ANY, True),
    "busy": (ANY, True),
    "not-now": (ANY, False),
    "slow-post": (("on",), False),
    "power-late": (("on", "off"), False),
    "override-forgotten": (("override", "clear"), False),
    "override-lost-at-power-on": (("override",), False),
    "garbage": (ANY, True),
    "truncated": (ANY, True),
    "short": (ANY, True),
}
"""The lies that pass: the changes that each can fall on, and whether it can fall on a look."""

LASTING: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "dead": (ANY, False),
    "busy": (ANY, False),
    "garbage": (ANY, False),
    "truncated": (ANY, False),
    "power-late": (("on", "off"), False),
    "override-forgotten": (("override", "clear"), False),
    "forbidden": (ANY, False),
}
"""Those that last until somebody mends the BMC."""


def steps_of(kinds: tuple[str, ...], *, looks: bool) -> list[str]:
    """The steps that a lie can fall on. IPMI tells nothing of how far a boot came, so that nobody looks meanwhile."""
    return changes(kinds) + ([FIRST_LOOK, LOOKS["boot"]] if looks else [])
