"""What is asked of a BMC, as IPMI 2.0 defines it. Used in the child process only; every answer is plain values.

Power and boot flags are asked for byte by byte: pyghmi's own methods for them drop the completion code, and first look
for a vendor's peculiarities, some of which open further connections. FRU and sensors are pyghmi's to read.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from pyghmi.constants import Health
from pyghmi.exceptions import PyghmiException
from pyghmi.ipmi.command import Command
from pyghmi.ipmi.fru import FRU
from pyghmi.ipmi.oem.generic import OEMHandler
from pyghmi.ipmi.private.util import decode_wireformat_uuid

from mulligan.activities.drivers.ipmi.session import BmcSession
from mulligan.activities.drivers.ipmi.troubles import ENDS_SESSION, BmcTrouble, Trouble

CHASSIS, APPLICATION = 0x00, 0x06
_FRU_FIELDS = {"vendor": "Manufacturer", "product": "Product name", "serial": "Serial Number"}
_MOST_NAMED = 5


def power(session: BmcSession) -> Mapping[str, Any]:
    """Get Chassis Status (28.2)."""
    return {"on": bool(session.ask(CHASSIS, 0x01, least=1)[0] & 1)}


def switch(session: BmcSession, *, on: bool) -> Mapping[str, Any]:
    """Chassis Control (28.3): the verbs of state, power up or power down; sent once, whether it is answered or not."""
    return {"answered": session.ask_once(CHASSIS, 0x02, (1 if on else 0,))}


def boot(session: BmcSession) -> Mapping[str, Any]:
    """Get System Boot Options (28.13), boot flags (table 28-14)."""
    data = session.ask(CHASSIS, 0x09, (5, 0, 0), least=4)
    if data[1] & 0x7F != 5:
        raise BmcTrouble(Trouble.GARBLED, f"it answered with boot option {data[1] & 0x7F} instead of 5")
    return {
        "valid": bool(data[2] & 0x80) and not data[1] & 0x80,
        "persistent": bool(data[2] & 0x40),
        "uefi": bool(data[2] & 0x20),
        "selector": data[3] >> 2 & 0x0F,
    }


def set_boot(session: BmcSession, *, selector: int, uefi: bool) -> Mapping[str, Any]:
    """Set System Boot Options (28.12) for one boot, sent once; selector 0 removes the override.

    Before, the BMC is told not to forget the flags after a minute (parameter 3); one that cannot be told is not worse.
    """
    try:
        session.ask(CHASSIS, 0x08, (3, 0x08))
    except BmcTrouble as error:
        if error.trouble in ENDS_SESSION:
            raise
    flags = (0x80 | (0x20 if uefi else 0)) if selector else 0
    return {"answered": session.ask_once(CHASSIS, 0x08, (5, flags, selector << 2, 0, 0, 0))}


def identity(session: BmcSession) -> Mapping[str, Any]:
    """Get Device ID (20.1), the system's GUID (22.14), and the FRU of the whole; what it does not offer is left out."""
    data = session.ask(APPLICATION, 0x01, least=11)
    found = {
        "firmware": f"{data[2] & 0x7F}.{data[3]:02x}",
        "manufacturer_id": str(int.from_bytes(data[6:9], "little")),
        "product_id": str(int.from_bytes(data[9:11], "little")),
    }
    return found | guid(session) | _fru(session)


def guid(session: BmcSession) -> dict[str, str]:
    """Get System GUID (22.14); nothing where the BMC offers none, or only zeros."""
    told = _offered(lambda: session.ask(APPLICATION, 0x37, least=16))
    if told is None or not any(told):
        return {}
    return {"uuid": str(decode_wireformat_uuid(bytearray(told[:16]))).lower()}


def sensors(session: BmcSession, *, seconds: float) -> Mapping[str, Any]:
    """How many sensors could be read, and those that are not well. Raises `BmcTrouble` (BUSY) after `seconds`."""
    readings = _offered(lambda: list(_Reader(session, seconds).get_sensor_data()))
    if readings is None:
        return {}
    bad = [f"{reading.name} {reading.value if reading.value is not None else ''}{reading.units or ''}".strip()
           for reading in readings if reading.health != Health.Ok]  # fmt: skip
    return {"read": len(readings), "bad": len(bad), "named": bad[:_MOST_NAMED]}


ASKED: Mapping[str, Callable[..., Mapping[str, Any]]] = {
    "power": power,
    "switch": switch,
    "boot": boot,
    "set-boot": set_boot,
    "guid": guid,
    "identity": identity,
    "sensors": sensors,
}
"""Every question, by the name under which the driver asks it."""


class _Reader(Command):  # type: ignore[misc]  # pyghmi has no types
    """pyghmi's reader of FRU and sensors on a session that is there, without vendors' peculiarities, for some time."""

    def __init__(self, session: BmcSession, seconds: float) -> None:
        self.ipmi_session = session
        self.bmc = session.bmc
        self._oem, self._oemknown = OEMHandler(None, None), True
        self._sdr = self._sdrcachedir = None
        self._until = time.monotonic() + seconds

    def raw_command(self, *args: Any, **kwargs: Any) -> Any:
        """pyghmi reads a FRU in smaller pieces when it is told 0xC9 or 0xCA; OpenIPMI's simulator says 0xC8."""
        self._in_time()
        answer = super().raw_command(*args, **kwargs)
        return {**answer, "code": 0xCA} if answer.get("code") == 0xC8 else answer

    def xraw_command(self, *args: Any, **kwargs: Any) -> Any:
        self._in_time()
        return super().xraw_command(*args, **kwargs)

    def _in_time(self) -> None:
        if time.monotonic() > self._until:
            raise BmcTrouble(Trouble.BUSY, "reading took too long")


def _fru(session: BmcSession) -> dict[str, str]:
    """Maker, product and serial number of the product; of the board where the product's are not told."""
    info = _offered(lambda: FRU(ipmicmd=_Reader(session, 20)).info) or {}
    told = {}
    for key, field in _FRU_FIELDS.items():
        board = "Board " + field[0].lower() + field[1:]
        value = info.get(field) or info.get(board)
        if value:
            told[key] = str(value)
    return told


def _offered(read: Callable[[], Any]) -> Any:
    """What `read` gives; None when the BMC does not offer it, or not in a form that pyghmi understands."""
    try:
        return read()
    except BmcTrouble as error:
        if error.trouble in ENDS_SESSION or error.trouble is Trouble.BUSY:
            raise
    except (PyghmiException, NotImplementedError, IndexError, KeyError, ValueError, TypeError, struct.error):
        pass
    return None
