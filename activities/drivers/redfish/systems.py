"""Which of the systems behind a BMC is meant. The serial number identifies a machine; a resource's id only a place.

But some chassis tell one serial number for all of their nodes, and a node that is pulled, or not listed yet by a BMC
that restarts, must not lead to its neighbour, which would be switched off. So a system that is not where ours was is
ours only if it tells our UUID too, which is known since the server was added; one that does not tell it now is waited
for. Where ours is not known it is taken by its number only where the numbers are seen to tell systems apart: all that
are there, at least two, tell one each. A lone one may be the neighbour that is left. A number that others had too when
the server was added is not kept (`serial_to_keep`), so that the path alone leads to it, and must lead to that number.
"""

from __future__ import annotations

from collections.abc import Iterable

import sushy
from sushy import exceptions
from sushy.resources.system.system import System

from mulligan.activities.drivers.redfish.address import Address
from mulligan.activities.errors import Busy, Conflict, InvalidRequest, NotFound
from mulligan.activities.serials import other_uuid, plain_serial, telling_uuid

ABSENT_SECONDS = 15.0
"""When a BMC that lists no system is asked again for one that it had."""


def serial_of(system: System) -> str:
    """The serial number; empty where there is none that tells machines apart."""
    text = str(system.serial_number or "").strip()
    return text if plain_serial(text) else ""


def find_system(root: sushy.Sushy, address: Address, *, known: bool = False) -> System:
    """The system, read afresh. `known` says that it was there before.

    Raises `NotFound` with those that there are, `InvalidRequest` when several could be meant, and `Conflict` when
    another machine is where ours was. `Busy` when a known one is not there and no other is, or tells no serial number
    or no UUID: BMCs that restart have none of them for a while.
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
        if (moved := _elsewhere(there, address, known)) is not None:
            return moved
        asked = address.path.rpartition("/")[2]
        raise NotFound(
            f"{address.provider}: the BMC at {address.host.url} has no system {asked!r}; it has {_told(there)}",
            nearest=[each.identity for each in there],
            provider=address.provider,
        ) from None
    had = address.serial if known_by else address.told_serial
    if not plain_serial(had) or _is(system, had):
        return system
    if (moved := _elsewhere(_all(root), address, known)) is not None:
        return moved
    if known and not serial_of(system):
        raise _untold(system, address, "serial number", system.serial_number, had)
    raise Conflict(
        f"{address.provider}: system {system.identity} at {address.host.url} has serial number "
        f"{system.serial_number or '(none)'}, not {had}: another machine, which is left alone; if it is to "
        "be used in place of the other, remove the provider and add it again",
        provider=address.provider,
        serial=str(system.serial_number),
    )


def _all(root: sushy.Sushy) -> list[System]:
    return list(root.get_system_collection().get_members())


def _is(system: System, serial: str) -> bool:
    plain = plain_serial(serial)
    return bool(plain) and plain_serial(system.serial_number) == plain


def serial_to_keep(system: System) -> str:
    """The serial number by which a system that is added is to be found again; empty where it has none, or others behind
    its BMC tell the same."""
    serial, twins = serial_of(system), 0
    if serial:
        twins = sum(_is(each, serial) for each in _all(system.root))
    return serial if twins <= 1 else ""


def _ours(there: list[System], address: Address) -> list[System]:
    """Those that are ours, of systems that are not at our path: all that have our serial number and UUID; without a
    known UUID those that have the number, unless it may be the chassis'. What has no path is chosen by it all the same.
    """
    alike = [each for each in there if _is(each, address.serial)]
    if _knows_uuid(address):
        return [each for each in alike if other_uuid(address.uuid, each.uuid) is False]
    numbers = [plain_serial(each.serial_number) for each in there]
    tells_apart = len(numbers) > 1 and all(numbers) and len(set(numbers)) == len(numbers)
    return alike if tells_apart or not address.path else []


def _knows_uuid(address: Address) -> bool:
    return telling_uuid(address.uuid) is not None


def _untold_uuid(system: System, address: Address) -> bool:
    """Whether it has our serial number, and tells no UUID where ours is known."""
    return _is(system, address.serial) and _knows_uuid(address) and telling_uuid(system.uuid) is None


def _elsewhere(there: list[System], address: Address, known: bool) -> System | None:
    """Ours, where another path leads to it now; None where none of them is."""
    waits = known and any(_untold_uuid(each, address) for each in there)
    return _by_serial(there, address, known) if waits or _ours(there, address) else None


def _by_serial(there: list[System], address: Address, known: bool) -> System:
    found = _ours(there, address)
    if len(found) == 1:
        return found[0]
    untold = [each for each in there if not serial_of(each) or _untold_uuid(each, address)]
    if known and untold and not found:
        if _untold_uuid(untold[0], address):
            raise _untold(untold[0], address, "UUID", untold[0].uuid, address.uuid)
        raise _untold(untold[0], address, "serial number", untold[0].serial_number, address.serial)
    uuid = f" and UUID {address.uuid}" if _knows_uuid(address) else ""
    raise NotFound(
        f"{address.provider}: the BMC at {address.host.url} has {len(found)} systems with serial number "
        f"{address.serial}{uuid}; it has {_told(there)}",
        nearest=[each.identity for each in there],
        provider=address.provider,
    )


def _untold(system: System, address: Address, what: str, told: object, had: str) -> Busy:
    return Busy(
        f"{address.provider}: system {system.identity} at {address.host.url} tells no {what} now "
        f"({told or ''!r}); it had {had}, or is another machine. BMCs that restart do not know it for a while, so "
        "it is asked again; if that lasts, look at the BMC itself. If it has lost it for good, e.g. with its "
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
