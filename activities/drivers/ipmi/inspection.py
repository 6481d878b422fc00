"""What a machine is, as far as IPMI tells: who made it, and how its sensors are. Its size is the operator's word."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mulligan.activities.drivers.booting import agent_capabilities
from mulligan.activities.drivers.ipmi.address import Address
from mulligan.activities.drivers.ipmi.troubles import BmcTrouble, Trouble
from mulligan.activities.values import Inspection, InventoryRow, Kind

SENSOR_SECONDS = 20.0
"""Old BMCs take minutes for hundreds of sensors; an inspection does not wait for those."""
MOST_CHARACTERS = 200

Ask = Callable[..., Awaitable[Mapping[str, Any]]]


async def inspect_machine(address: Address, ask: Ask) -> Inspection:
    """Look at the machine. Raises `BmcTrouble` when the BMC cannot be asked."""
    await ask("power")
    boots = {"boot.network"} if await _offers_boot(ask) else set()
    booting = address.booting
    firmware = [f"firmware.{each}" for each in address.firmware]
    agent = agent_capabilities(boots, booting.boot_from, booting.macs, firmware)
    identity = await ask("identity")
    return Inspection(
        Kind.BARE_METAL,
        tuple(InventoryRow(name, amount) for name, amount in address.sizes),
        tuple(sorted({"arch.x86_64", "driver.ipmi", *firmware, *boots, *agent})),
        {},
        _facts(identity, await _sensors(ask), macs_missing=bool(boots) and not booting.macs),
    )


async def _offers_boot(ask: Ask) -> bool:
    """Whether the BMC knows boot flags."""
    try:
        await ask("boot")
    except BmcTrouble as error:
        if error.trouble in {Trouble.NOT_OFFERED, Trouble.FAILED}:
            return False
        raise
    return True


async def _sensors(ask: Ask) -> str:
    try:
        found = await ask("sensors", seconds=SENSOR_SECONDS)
    except BmcTrouble as error:
        if error.trouble is not Trouble.BUSY:
            raise
        return f"not read: the BMC takes longer than {SENSOR_SECONDS:.0f} s"
    if not found:
        return "none are told"
    if not found["bad"]:
        return f"{found['read']} read, all well"
    more = ", ..." if found["bad"] > len(found["named"]) else ""
    return f"{found['read']} read, {found['bad']} not well: {', '.join(found['named'])}{more}"


def _facts(identity: Mapping[str, str], sensors: str, *, macs_missing: bool) -> Mapping[str, str]:
    told = {
        "vendor": identity.get("vendor") or f"manufacturer {identity['manufacturer_id']}",
        "model": identity.get("product") or f"product {identity['product_id']}",
        "serial": identity.get("serial", ""),
        "uuid": identity.get("uuid", ""),
        "bmc": f"firmware {identity['firmware']}",
        "sensors": sensors,
        "not-told": "macs, by which it boots from the network: say them with --set macs=MAC" if macs_missing else "",
    }
    return {name: clean for name, value in told.items() if (clean := _clean(value))}


def _clean(text: str) -> str:
    """What a BMC says, fit for a line: printable and not endless."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:MOST_CHARACTERS]
