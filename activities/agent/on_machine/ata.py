"""An ATA disk's own erasing (ACS-4, 4.18 "Security feature set"), and the password that it needs meanwhile.

To be erased a disk must have a password, which goes with the erasing. When that is interrupted, the password stays, and
the disk is locked from the next power-on; so it is always the same one, and the next boot of the agent takes it back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .hardware import Disk
from .tools import Failed, run

PASSWORD = "mulligan"  # noqa: S105 - no secret: it must be known to the next boot
LEAST_SECONDS = 4 * 3600.0
_WORDS = re.compile(r"^(?:[0-9a-f]{4} ?){8}$", re.MULTILINE)
_LARGEST = re.compile(r"max sectors\s*=\s*\d+/(\d+)(?!.*invalid)")
MOST_SECTORS = 2**48
"""More than any ATA disk has: what says so was not understood."""
UNSUPPORTED = "UNSUPPORTED"
"""The name of the failure to do what the disk does not offer."""


@dataclass(frozen=True)
class Security:
    """Words 89, 90 and 128 of what a disk identifies itself with."""

    supported: bool = False
    enabled: bool = False
    """It has a password."""
    locked: bool = False
    """It gives and takes nothing until it hears the password."""
    frozen: bool = False
    """It takes no change of its security; most firmware sees to that at power-on."""
    expired: bool = False
    """Too many wrong passwords were tried."""
    enhanced: bool = False
    minutes: int = 0
    """How long erasing takes; 0 where it does not say."""
    enhanced_minutes: int = 0


def decode(words: Sequence[int]) -> Security:
    """What the 256 words of IDENTIFY DEVICE say of it."""
    supported, enabled, locked, frozen, expired, enhanced = (bool(words[128] >> bit & 1) for bit in range(6))
    return Security(supported, enabled, locked, frozen, expired, enhanced, _minutes(words[89]), _minutes(words[90]))


def _minutes(word: int) -> int:
    """In steps of two minutes: of 15 bits, or of 8 on older disks."""
    return 2 * (word & 0x7FFF if word >> 15 else word & 0xFF)


def security(path: str) -> Security:
    """The disk's security as it is now. Raises `Failed` for what is no ATA disk."""
    printed = run("hdparm", "--Istdout", path, seconds=60)
    words = [int(word, 16) for line in _WORDS.findall(printed) for word in line.split()]
    if len(words) != 256:
        raise Failed("TOOL_FAILED", f"{path} does not identify itself: {len(words)} words came")
    return decode(words)


def native_bytes(disk: Disk) -> int:
    """How large the disk really is, a host protected area (ACS-3, 4.11) included; 0 where it does not say."""
    with suppress(Failed):
        found = _LARGEST.search(run("hdparm", "-N", disk.path, seconds=60))
        sectors = int(found[1]) if found else 0
        return sectors * disk.sector_bytes if sectors < MOST_SECTORS else 0
    return 0


def hidden(disk: Disk, native: int) -> str:
    """What to do about a part of the disk that nobody sees, and so nobody erases; empty where it has none. It is not
    lifted here: whoever made it may need it, and most disks take that only once after each power-on."""
    if native <= disk.size_bytes:
        return ""
    lift = f"`hdparm -N p{native // disk.sector_bytes} {disk.path}`"
    return (
        f"it hides {native - disk.size_bytes} bytes at its end (a host protected area), which no erase reaches: "
        f"lift that with {lift} and switch the server off and on, or replace the disk"
    )


def secure_erase(disk: Disk, check: Callable[[], None]) -> None:
    """Let the disk erase itself. Raises `Failed`, with why it cannot; no password stays where that can be helped."""
    now = security(disk.path)
    if why := _why_not(now):
        raise Failed(UNSUPPORTED, why)
    if not now.enabled:
        _hdparm(disk, "set-pass")
    enhanced = now.enhanced and not disk.rotational  # for solid-state disks it reaches what no longer has an address
    minutes = now.enhanced_minutes if enhanced else now.minutes
    try:
        _hdparm(disk, "erase-enhanced" if enhanced else "erase", max(LEAST_SECONDS, 2.0 * 60 * minutes), check)
    finally:
        take_back(disk)


def _why_not(now: Security) -> str:
    if not now.supported:
        return "the disk offers none"
    if now.frozen:
        return "the firmware has frozen the disk's security"
    return "the disk has heard too many wrong passwords" if now.expired else ""


def take_back(disk: Disk) -> None:
    """Take our password off a disk whose erasing was interrupted; one with another's password stays as it is."""
    with suppress(Failed):
        now = security(disk.path)
        if now.enabled and not now.frozen and not now.expired:
            if now.locked:
                _hdparm(disk, "unlock")
            _hdparm(disk, "disable")


def take_all_back(disks: Iterable[Disk]) -> None:
    """From every ATA disk of the machine."""
    for disk in disks:
        if disk.ata and not disk.removable:
            take_back(disk)


def is_locked(disk: Disk) -> bool:
    """Whether the disk neither gives nor takes anything."""
    with suppress(Failed):
        return disk.ata and security(disk.path).locked
    return False


def _hdparm(disk: Disk, what: str, seconds: float = 60.0, check: Callable[[], None] = lambda: None) -> None:
    run("hdparm", "--user-master", "u", f"--security-{what}", PASSWORD, disk.path, seconds=seconds, check=check)
