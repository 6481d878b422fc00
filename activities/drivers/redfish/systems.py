"""Which of the systems behind a BMC is meant. The serial number identifies a machine; a resource's id only a place."""

from __future__ import annotations

from collections.abc import Iterable

import sushy
from sushy import exceptions
from sushy.resources.system.system import System

from mulligan.activities.drivers.redfish.address import Address
from mulligan.activities.errors import Busy, Conflict, InvalidRequest, NotFound
from mulligan.activities.serials import other_uuid, plain_serial

ABSENT_SECONDS = 15.0
"""When a BMC that lists no system is asked again for one that it had."""


def serial_of(system: System) -> str:
    """The serial number; empty where there is none that tells machines apart."""
    text = str(system.serial_number or "").strip()
    return text if plain_serial(text) else ""


def find_system(root: sushy.Sushy, address: Address, *, known: bool = False) -> System:
    """The system, read afresh. `known` says that it was there before.

    Raises `NotFound` with those that there are, `InvalidRequest` when several could be meant, and `Conflict` when
    another machine is where ours was. `Busy` when a known one is not there and no other is, or tells no serial number:
    BMCs that restart have neither for a while.
    """
    try:
        return _found(root, address, known)
    except (NotFound, InvalidRequest, exceptions.ResourceNotFoundError):
        if known and lists_none(root):
            raise Busy(
                f"{address.provider}: the BMC at {address.host.url} had the system and lists none now, as BMCs do that "
                "restart; it is asked again; if that lasts, look at the BMC itself",
                after_seconds=ABSENT_SECONDS,
                provider=address.provider,
            ) from None
        if known:
            return _found(root, address, known)  # it may have come back since: what the BMC says now counts
        raise


def lists_none(root: sushy.Sushy) -> bool:
    """Whether it lists no system at all, or has no list."""
    try:
        return not root.get_system_collection().members_identities
    except exceptions.ResourceNotFoundError:
        return True


def _found(root: sushy.Sushy, address: Address, known: bool) -> System:
    """By path and serial number. A serial number that many machines have is as good as none, whoever said it."""
    known_by = plain_serial(address.serial)
    if not address.path:
        there = _all(root)
        return _by_serial(there, address, known) if known_by else _only(there, address)
    try:
        system = root.get_system(address.path)
    except exceptions.ResourceNotFoundError:
        there = _all(root)
        if not any(_is_ours(each, address) for each in there):
            asked = address.path.rpartition("/")[2]
            raise NotFound(
                f"{address.provider}: the BMC at {address.host.url} has no system {asked!r}; it has {_told(there)}",
                nearest=[each.identity for each in there],
                provider=address.provider,
            ) from None
        return _by_serial(there, address, known)
    if not known_by or _is(system, address.serial):
        return system
    there = _all(root)
    if any(_is_ours(each, address) for each in there):
        return _by_serial(there, address, known)
    if known and not serial_of(system):
        raise _untold(system, address)
    raise Conflict(
        f"{address.provider}: system {system.identity} at {address.host.url} has serial number "
        f"{system.serial_number or '(none)'}, not {address.serial}: another machine, which is left alone; if it is to "
        "be used in place of the other, remove the provider and add it again",
        provider=address.provider,
        serial=str(system.serial_number),
    )


def _all(root: sushy.Sushy) -> list[System]:
    return list(root.get_system_collection().get_members())


def _is(system: System, serial: str) -> bool:
    plain = plain_serial(serial)
    return bool(plain) and plain_serial(system.serial_number) == plain


def _is_ours(system: System, address: Address) -> bool:
    """Whether it has our serial number; where it is not at our path, and both UUIDs are told, that one too: some
    chassis tell one number for all of their nodes."""
    return _is(system, address.serial) and not (address.path and other_uuid(address.uuid, system.uuid))


def _by_serial(there: list[System], address: Address, known: bool) -> System:
    found = [each for each in there if _is_ours(each, address)]
    if len(found) == 1:
        return found[0]
    untold = [each for each in there if not serial_of(each)]
    if known and untold and not found:
        raise _untold(untold[0], address)
    raise NotFound(
        f"{address.provider}: the BMC at {address.host.url} has {len(found)} systems with serial number "
        f"{address.serial}; it has {_told(there)}",
        nearest=[each.identity for each in there],
        provider=address.provider,
    )


def _untold(system: System, address: Address) -> Busy:
    told = system.serial_number or ""
    return Busy(
        f"{address.provider}: system {system.identity} at {address.host.url} tells no serial number now "
        f"({told!r}); it had {address.serial}, or is another machine. BMCs that restart do not know it for a while, so "
        "it is asked again; if that lasts, look at the BMC itself. If it has lost the number for good, e.g. with its "
        "board, remove the provider and add it again",
        after_seconds=ABSENT_SECONDS,
        provider=address.provider,
    )


def _only(there: list[System], address: Address) -> System:
    if len(there) == 1:
        return there[0]
    useless = f"; {address.serial!r} is no serial number that tells one from another" if address.serial else ""
    raise InvalidRequest(
        f"{address.provider}: the BMC at {address.host.url} has {_told(there)}{useless}; say which is meant, by "
        "/Systems/ID at the end of its URL or by --set serial=NUMBER",
        violations=[("url", "names no system, and there is not exactly one")],
    )


def _told(systems: Iterable[System]) -> str:
    told = [f"{each.identity} (serial number {each.serial_number or 'unknown'})" for each in systems]
    return ", ".join(told[:16]) or "none"
