"""A Redfish provider's URL and settings, read into typed values.

redfish://host[:port]/redfish/v1/Systems/ID     over HTTPS; redfish+http:// is plain HTTP
  ca=PATH             the certificate is checked against this file of authorities, on the partition worker
  fingerprint=SHA256  it must be this very certificate, whoever signed it
  verify=off          it is not checked
  serial=NUMBER       the system must have, or without /Systems/ID is the one that has, this serial number
  vcpu= memory_mib= disk_gib=
                      what the machine has, where the BMC does not say or is wrong
  and how it boots the deploy agent: see `drivers.booting`
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from mulligan.activities.drivers import booting
from mulligan.activities.drivers.booting import Booting, read_booting, unknown, wrong_booting
from mulligan.activities.drivers.lane import bmc_name
from mulligan.activities.errors import InvalidRequest
from mulligan.activities.values import RESOURCES, Target

SETTINGS = ("ca", "fingerprint", "verify", "serial", *RESOURCES, *booting.SETTINGS)
"""Every setting of the driver."""


@dataclass(frozen=True, slots=True)
class Host:
    """A BMC, and how it is known to be the right one."""

    url: str
    """`https://host[:port]`, or `http://...`."""
    ca: str = ""
    fingerprint: str = ""
    """64 lower-case hexadecimal digits; empty for none."""
    verify: bool = True

    @property
    def name(self) -> str:
        """The URL in one spelling, by which it is remembered who acted behind it."""
        return f"{urlsplit(self.url).scheme}://{self.bmc}"

    @property
    def encrypted(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.url.startswith("https:")

    @property
    def bmc(self) -> str:
        """The name of its lane."""
        parts = urlsplit(self.url)
        return bmc_name(parts.hostname or "", parts.port, 443 if self.encrypted else 80)


@dataclass(frozen=True, slots=True)
class Address:
    """One system behind a BMC."""

    provider: str
    host: Host
    path: str
    """`/redfish/v1/Systems/ID`; empty when the URL names none."""
    serial: str
    sizes: tuple[tuple[str, int], ...]
    """Resources of which the operator said how much there is."""
    booting: Booting
    uuid: str = ""
    """What the BMC told for it when it was added; empty where that is not known."""
    told_serial: str = ""
    """Likewise; not kept as `serial` where others behind the BMC told the same."""


def read_address(target: Target) -> Address:
    """Read the target. Raises `InvalidRequest`, with everything that is wrong with its settings."""
    settings, wrong = target.settings, _Wrong()
    for name, what in (*unknown(settings, SETTINGS, "Redfish"), *wrong_booting(settings)):
        wrong.say(name, what)
    fingerprint = settings.get("fingerprint", "").replace(":", "").lower()
    if fingerprint and not re.fullmatch("[0-9a-f]{64}", fingerprint):
        wrong.say("fingerprint", "must be the certificate's SHA-256: 64 hexadecimal digits, colons allowed")
    if settings.get("verify", "on") not in ("on", "off"):
        wrong.say("verify", "must be on or off")
    sizes = {name: settings[name] for name in RESOURCES if name in settings}
    for name, text in sizes.items():
        if not text.isdecimal() or not 0 < int(text) < 2**40:
            wrong.say(name, "must be a whole number above 0")
    wrong.refuse(target.name)
    parts = urlsplit(target.url)
    scheme = "http" if parts.scheme == "redfish+http" else "https"
    host = Host(f"{scheme}://{parts.netloc}", settings.get("ca", ""), fingerprint, settings.get("verify", "on") == "on")
    path = parts.path if "/Systems/" in parts.path else ""
    amounts = tuple((name, int(text)) for name, text in sizes.items())
    serial, who = settings.get("serial", ""), target.identity
    return Address(target.name, host, path, serial, amounts, read_booting(settings), who.uuid, who.serial)


class _Wrong:
    def __init__(self) -> None:
        self._found: list[tuple[str, str]] = []

    def say(self, name: str, what: str) -> None:
        self._found.append((f"settings.{name}", what))

    def refuse(self, provider: str) -> None:
        if self._found:
            told = "; ".join(f"{field} {what}" for field, what in self._found)
            raise InvalidRequest(f"{provider}: {told}", violations=self._found)
