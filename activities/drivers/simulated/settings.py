"""The address of a simulated host, read into typed settings.

    simulated://<fleet>/<host>?kind=virtual&vcpu=8&memory_mib=16384&disk_gib=200&seed=1&speed=1.0
        &personality=lies-once,slow-post       how it misbehaves (see personalities.py)
        &fail=power_on:1:Busy                  the first call of `power_on` raises Busy before it acts
        &fail_after=define:2:Unreachable       the second call of `define` acts, then raises Unreachable
        &hold=place_base:1:30                  the first call of `place_base` takes 30 s before it acts
        &broken=sha256:0123...                 machines from this image never boot: on all hosts, it is a bad image
        &off_after=20                          a machine goes off by itself 20 s after each power on; 0 is never
        &service=on&service_port=22            the guest listens on its loopback address with an SSH banner

`speed` is the factor on every delay of the simulation: 0 is no delay at all, 1 is lifelike. `fail`, `fail_after` and
`hold` take several rules, `broken` several digests, separated by commas; `*` in place of a number means every call.
Calls are counted per host and verb, durably. The provider's own settings of the same names win over the address.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from mulligan.activities import errors
from mulligan.activities.drivers.simulated.personalities import Personality
from mulligan.activities.values import Kind, Resources, Target

VERBS = (
    "inspect", "remains", "has_base", "place_base", "remove_bases", "create_disks", "place_live", "remove_disks",
    "define", "undefine", "power", "power_on", "power_off", "console", "addresses", "gateway",
)  # fmt: skip
"""Every verb of the driver that a rule can name."""

ERRORS = (
    "Busy", "Unreachable", "NotNow", "InvalidRequest", "NotFound", "AlreadyExists", "Conflict", "NeverFits",
    "Unsupported", "HostNotReady", "AccessDenied", "StaleFence", "ImageRejected", "VerifyFailed", "Leftover",
)  # fmt: skip
"""Every error that a rule can raise: the leaves of `mulligan.activities.errors`."""

_NAMES = (
    "kind", "vcpu", "memory_mib", "disk_gib", "seed", "speed", "personality", "fail", "fail_after", "hold",
    "service", "service_port", "broken", "off_after",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens at the `call`-th call of `verb` (0: at every call)."""

    verb: str
    call: int
    value: str
    """The error's name, or for `hold` the seconds."""

    def meets(self, verb: str, call: int) -> bool:
        """Whether it concerns this call."""
        return self.verb == verb and self.call in (0, call)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """One simulated host."""

    fleet: str
    host: str
    kind: Kind = Kind.VIRTUAL
    resources: Resources = Resources(8, 16384, 200)  # noqa: RUF009 - frozen
    seed: int = 1
    speed: float = 1.0
    personalities: frozenset[Personality] = frozenset()
    fail: tuple[Rule, ...] = ()
    fail_after: tuple[Rule, ...] = ()
    hold: tuple[Rule, ...] = ()
    broken: frozenset[str] = frozenset()
    """Digests of images that never boot."""
    off_after: int = 0
    """Seconds from a power on until the machine goes off by itself, whatever the speed; 0 for never."""
    service: bool = False
    service_port: int = 22

    def has(self, personality: Personality) -> bool:
        """Whether the host misbehaves in this way."""
        return personality in self.personalities

    def url(self) -> str:
        """The address that reads back as these settings (without rules)."""
        query: dict[str, str] = {
            "kind": self.kind.value,
            "vcpu": str(self.resources.vcpu),
            "memory_mib": str(self.resources.memory_mib),
            "disk_gib": str(self.resources.disk_gib),
            "seed": str(self.seed),
            "speed": f"{self.speed:g}",
        }
        if self.personalities:
            query["personality"] = ",".join(sorted(self.personalities))
        if self.broken:
            query["broken"] = ",".join(sorted(self.broken))
        if self.off_after:
            query["off_after"] = str(self.off_after)
        if self.service:
            query |= {"service": "on", "service_port": str(self.service_port)}
        return f"simulated://{quote(self.fleet)}/{quote(self.host)}?{urlencode(query, safe=',')}"


class _Reader:
    """Reads values one by one and keeps what is wrong with them, so that all of it can be said at once."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.violations: list[tuple[str, str]] = []

    def number(self, name: str, default: int, low: int, high: int) -> int:
        text = self.values.get(name, str(default))
        if not text.isdecimal() or not low <= int(text) <= high:
            self.violations.append((name, f"{text!r} is not a whole number from {low} to {high}"))
            return default
        return int(text)

    def factor(self, name: str, default: float) -> float:
        text = self.values.get(name, str(default))
        value = _float(text)
        if value is None or not 0 <= value <= 1000:
            self.violations.append((name, f"{text!r} is not a number from 0 to 1000"))
            return default
        return value

    def one_of(self, name: str, default: str, allowed: tuple[str, ...]) -> str:
        text = self.values.get(name, default)
        return text if self._known(name, text, allowed) else default

    def personalities(self) -> frozenset[Personality]:
        known = tuple(personality.value for personality in Personality)
        words = [word for word in self.values.get("personality", "").split(",") if word]
        return frozenset(Personality(word) for word in words if self._known("personality", word, known))

    def rules(self, name: str) -> tuple[Rule, ...]:
        parts = [part for part in self.values.get(name, "").split(",") if part]
        return tuple(rule for part in parts if (rule := self._rule(name, part)) is not None)

    def _rule(self, name: str, text: str) -> Rule | None:
        verb, _, rest = text.partition(":")
        call, _, value = rest.partition(":")
        if not (call == "*" or (call.isdecimal() and int(call) > 0)):
            self.violations.append((name, f"{text!r} is not <verb>:<call>:<value> with a call from 1, or *"))
            return None
        fits = _float(value) is not None if name == "hold" else self._known(name, value, ERRORS)
        if name == "hold" and not fits:
            self.violations.append((name, f"{value!r} in {text!r} is not a number of seconds"))
        if not self._known(name, verb, VERBS) or not fits:
            return None
        return Rule(verb, 0 if call == "*" else int(call), value)

    def _known(self, name: str, word: str, allowed: tuple[str, ...]) -> bool:
        if word in allowed:
            return True
        near = difflib.get_close_matches(word, allowed, n=3) or list(allowed)
        self.violations.append((name, f"{word!r} is not known; the nearest are: {', '.join(near)}"))
        return False


def _float(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def read_settings(target: Target) -> HostSettings:
    """Read a target's address and settings.

    Raises `InvalidRequest`, with everything that is wrong, when the address is not one of a simulated host.
    """
    parts = urlsplit(target.url)
    host = parts.path.strip("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    reader = _Reader({**query, **{key: value for key, value in target.settings.items() if key in _NAMES}})
    if parts.scheme != "simulated" or not _plain(parts.netloc) or not _plain(host):
        reader.violations.append(("url", f"{target.url!r} is not simulated://<fleet>/<host>?<settings>"))
    for name in query:
        reader._known("url", name, _NAMES)
    settings = HostSettings(
        fleet=parts.netloc.lower(),  # as in any URL, its case does not matter
        host=host,
        kind=Kind(reader.one_of("kind", "virtual", ("virtual", "bare-metal"))),
        resources=Resources(
            reader.number("vcpu", 8, 1, 10**6),
            reader.number("memory_mib", 16384, 1, 10**9),
            reader.number("disk_gib", 200, 1, 10**9),
        ),
        seed=reader.number("seed", 1, 0, 2**63),
        speed=reader.factor("speed", 1.0),
        personalities=reader.personalities(),
        fail=reader.rules("fail"),
        fail_after=reader.rules("fail_after"),
        hold=reader.rules("hold"),
        broken=frozenset(digest for digest in reader.values.get("broken", "").split(",") if digest),
        off_after=reader.number("off_after", 0, 0, 10**9),
        service=reader.one_of("service", "off", ("on", "off")) == "on",
        service_port=reader.number("service_port", 22, 1, 65535),
    )
    if reader.violations:
        found = "; ".join(f"{name}: {what}" for name, what in reader.violations)
        raise errors.InvalidRequest(
            f"the address of the simulated host {target.name!r} cannot be used: {found}; correct it and register again",
            violations=reader.violations,
        )
    return settings


def _plain(name: str) -> bool:
    """Whether it can be a file's name: letters, digits, dots, dashes and underscores, not starting with a dot."""
    return bool(name) and name[0] != "." and all(c.isalnum() or c in "._-" for c in name)
