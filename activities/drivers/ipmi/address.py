"""An IPMI provider's URL and settings, read into typed values.

ipmi://host[:port]
  vcpu= memory_mib= disk_gib=   what the machine has: IPMI tells none of it
  firmware=bios|uefi|both       by what it boots; both unless said otherwise
  and how it boots the deploy agent, always from the network: see `drivers.booting`
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from mulligan.activities.drivers import booting
from mulligan.activities.drivers.booting import BootFrom, Booting, read_booting, unknown, wrong_booting
from mulligan.activities.drivers.lane import plain_host
from mulligan.activities.errors import InvalidRequest
from mulligan.activities.values import RESOURCES, Firmware, Target

PORT = 623
FIRMWARES = {"bios": (Firmware.BIOS,), "uefi": (Firmware.UEFI,), "both": (Firmware.BIOS, Firmware.UEFI)}
SETTINGS = (*RESOURCES, "firmware", *booting.SETTINGS)
"""Every setting of the driver."""

MOST = 2**40


@dataclass(frozen=True, slots=True)
class Address:
    """One BMC, and what the operator says of its machine."""

    provider: str
    host: str
    port: int
    sizes: tuple[tuple[str, int], ...]
    """How much there is of each resource, as far as it is said."""
    firmware: tuple[Firmware, ...]
    booting: Booting
    guid: str = ""
    """What the BMC called the system's GUID when it was added; empty where that is not known, or not to be checked."""

    @property
    def bmc(self) -> str:
        """`host:port`, for people."""
        return _with_port(self.host, self.port)

    @property
    def name(self) -> str:
        """The same in one spelling, by which it is remembered who acted there."""
        return _with_port(plain_host(self.host), self.port)


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_address(target: Target) -> Address:
    """Read the target. Raises `InvalidRequest`, with everything that is wrong with its settings."""
    parts, settings = urlsplit(target.url), target.settings
    wrong = [*unknown(settings, SETTINGS, "IPMI"), *wrong_booting(settings)]
    sizes = {name: settings[name] for name in RESOURCES if name in settings}
    wrong += [
        (name, "must be a whole number above 0")
        for name, text in sizes.items()
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < MOST)
    ]
    if settings.get("firmware", "both") not in FIRMWARES:
        wrong.append(("firmware", f"must be one of {', '.join(FIRMWARES)}"))
    if settings.get("boot_from") == BootFrom.VIRTUAL_MEDIA:
        wrong.append(("boot_from", "must be network or auto: IPMI has no virtual media"))
    refuse(target.name, wrong)
    booting = read_booting(settings)
    return Address(
        target.name,
        parts.hostname or "",
        parts.port or PORT,
        tuple((name, int(text)) for name, text in sizes.items()),
        FIRMWARES[settings.get("firmware", "both")],
        booting,
        target.identity.guid if booting.check_identity else "",
    )


def require_sizes(address: Address) -> None:
    """Raise `InvalidRequest` unless the operator said how large the machine is."""
    said = dict(address.sizes)
    missing = [name for name in RESOURCES if name not in said]
    give = " ".join(f"--set {name}=NUMBER" for name in missing)
    refuse(address.provider, [(name, f"is not known: IPMI does not tell it; give {give}") for name in missing])


def refuse(provider: str, wrong: list[tuple[str, str]]) -> None:
    """Raise `InvalidRequest` if anything is wrong; each is (setting, what about it)."""
    if wrong:
        told = "; ".join(f"{name} {what}" for name, what in wrong)
        raise InvalidRequest(
            f"{provider}: settings: {told}", violations=[(f"settings.{name}", what) for name, what in wrong]
        )
