"""Requests are checked here, all faults at once, before anything is looked up or done."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from urllib.parse import SplitResult, urlsplit

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from mulligan.activities.drivers.registry import SCHEMES, SIMULATED_SCHEME, normalise_url
from mulligan.activities.errors import InvalidRequest
from mulligan.activities.values import RESOURCES

NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
IMAGE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_SETTING = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_CREDENTIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:@-]{0,254}")
_NAME_RULE = "must be 1 to 63 of a-z 0-9 -, beginning with a letter"
_PERCENT_RULE = "must be 100 (what it has) to 10000 percent, 200 for twice that; to let out less, reserve some"
_IMAGE_RULE = "must be 1 to 63 of a-z 0-9 . -, beginning with a letter or digit"

PROVIDER_SCHEMES = SCHEMES
"""How a provider's URL may begin."""


class Faults:
    """What is wrong with one request."""

    def __init__(self, message: Message) -> None:
        self.found: list[tuple[str, str]] = []
        unknown_enums(message, self.add)

    def add(self, field: str, description: str) -> None:
        """Note a fault; the field is a path such as `spec.resources.vcpu`."""
        self.found.append((field, description))

    def name(self, field: str, value: str, *, required: bool = True) -> None:
        """Check the name of a project, machine, partition or provider."""
        if (value or required) and not NAME.fullmatch(value):
            self.add(field, f"{_NAME_RULE}{_said(value)}")

    def image_name(self, field: str, value: str, *, required: bool = True) -> None:
        """Check the name of an image."""
        if (value or required) and not IMAGE_NAME.fullmatch(value):
            self.add(field, f"{_IMAGE_RULE}{_said(value)}")

    def between(self, field: str, value: int, least: int, most: int, unit: str = "") -> None:
        """Check a number's range."""
        if not least <= value <= most:
            self.add(field, f"must be {least} to {most}{f' {unit}' if unit else ''}, not {value}")

    def most(self, field: str, values: Collection[object], most: int) -> None:
        """Check how many there are."""
        if len(values) > most:
            self.add(field, f"at most {most} are allowed, not {len(values)}")

    def known(self, field: str, value: str, names: Iterable[str], hint: str = "") -> None:
        """Check that a word is one of those that are known; tells the nearest of them."""
        choices = list(names)
        if value not in choices:
            nearest = difflib.get_close_matches(value, choices, n=3)
            help_ = f"did you mean {' or '.join(nearest)}?" if nearest else hint or f"known are {', '.join(choices)}"
            self.add(field, f"{value[:80]!r} is not known: {help_}")

    def refuse(self) -> None:
        """Raise `InvalidRequest` with all faults, if there are any."""
        if self.found:
            said = "; ".join(f"{field}: {description}" for field, description in self.found[:5])
            more = f"; and {len(self.found) - 5} more" if len(self.found) > 5 else ""
            raise InvalidRequest(f"the request cannot be accepted: {said}{more}", violations=self.found)


def unknown_enums(message: Message, add: Callable[[str, str], None], prefix: str = "") -> None:
    """Add a fault for every enum number, in any depth, that this version does not know."""
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        values = value if field.is_repeated else [value]
        for index, one in enumerate(values):
            place = f"{path}[{index}]" if field.is_repeated else path
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                unknown_enums(one, add, f"{place}.")
            elif field.enum_type is not None and one not in field.enum_type.values_by_number:
                names = ", ".join(known.name for known in field.enum_type.values)
                add(place, f"{one} is no number of {field.enum_type.name}; known are {names}")


def names_only(message: Message, *fields: str, optional: Collection[str] = ()) -> None:
    """Check a request that consists of names."""
    faults = Faults(message)
    for field in fields:
        faults.name(field, getattr(message, field), required=field not in optional)
    faults.refuse()


def settings(faults: Faults, field: str, values: Mapping[str, str]) -> None:
    """Check a driver's settings; what they mean is the driver's to say."""
    faults.most(field, values, 64)
    for key, value in values.items():
        if not _SETTING.fullmatch(key):
            faults.add(field, f"the key {key[:80]!r} must be 1 to 63 of a-z 0-9 _ . -, beginning with a letter")
        if len(value) > 1024 or not value.isprintable():
            faults.add(f"{field}.{key[:80]}", "must be at most 1024 printable characters")


def percents_and_reserves(faults: Faults, reserved: Mapping[str, int], percents: Mapping[str, int]) -> None:
    """Check what an operator keeps back and overcommits."""
    for resource, amount in reserved.items():
        faults.known(f"reserved.{resource[:80]}", resource, RESOURCES)
        faults.between(f"reserved.{resource[:80]}", amount, 0, 2**40)
    for resource, percent in percents.items():
        faults.known(f"overcommit_percent.{resource[:80]}", resource, RESOURCES)
        if not 100 <= percent <= 10_000:
            faults.add(f"overcommit_percent.{resource[:80]}", f"{_PERCENT_RULE}, not {percent}")


def provider_url(faults: Faults, field: str, url: str) -> None:
    """Check how a provider is reached."""
    parts = split_url(faults, field, url)
    if parts is None:
        return
    faults.known(field, parts.scheme, PROVIDER_SCHEMES)
    if parts.scheme in PROVIDER_SCHEMES and parts.scheme != SIMULATED_SCHEME:
        try:
            normalise_url(url)
        except InvalidRequest as error:
            for _, description in error.violations:
                faults.add(field, description)
    if parts.scheme == SIMULATED_SCHEME and not (parts.netloc and parts.path.strip("/")):
        faults.add(field, "must be simulated://fleet/host")


def credential(faults: Faults, field: str, value: str) -> None:
    """Check the reference to a credential."""
    if value and not _CREDENTIAL.fullmatch(value):
        faults.add(field, "must be a reference of at most 255 of letters, digits and _ . / : @ -")


def split_url(faults: Faults, field: str, url: str) -> SplitResult | None:
    """The parts of a URL that holds no password, or None after adding what is wrong."""
    if not url or len(url) > 2048 or not url.isprintable() or " " in url:
        faults.add(field, "must be a URL of 1 to 2048 printable characters without blanks")
        return None
    try:
        parts = urlsplit(url)
        has_password = parts.password is not None
        _ = parts.port
    except ValueError:
        faults.add(field, "is no URL: its host or port is malformed")
        return None
    if not parts.scheme:
        faults.add(field, "is no URL: it begins with no scheme, such as https: or qemu:")
        return None
    if has_password:
        faults.add(field, "must not hold a password: it would be kept and shown")
        return None
    return parts


def _said(value: str) -> str:
    return f", not {value[:80]!r}" if value else "; it is missing"


MOST_ACTOR, MOST_REASON = 100, 500


def words(faults: Faults, actor: str, reason: str, prefix: str = "") -> None:
    """Check who asks, and why."""
    for field, value, most in (("actor", actor, MOST_ACTOR), ("reason", reason, MOST_REASON)):
        if len(value) > most:
            faults.add(f"{prefix}{field}", f"must be at most {most} characters, not {len(value)}")
    if not actor.isprintable():
        faults.add(f"{prefix}actor", "must be printable characters, in one line")
