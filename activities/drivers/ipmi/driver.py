"""The IPMI driver: the Protocols of `drivers.base`, each call one turn of its BMC's conversation."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.base import BootDevice, BootReading, Deadline, PowerReading
from mulligan.activities.drivers.fences import Fences
from mulligan.activities.drivers.ipmi import boot
from mulligan.activities.drivers.ipmi.address import PORT, Address, read_address, require_sizes
from mulligan.activities.drivers.ipmi.conversation import Conversation
from mulligan.activities.drivers.ipmi.faults import error_of
from mulligan.activities.drivers.ipmi.inspection import inspect_machine
from mulligan.activities.drivers.ipmi.troubles import (
    ENDS_SESSION,
    NOT_IN_THIS_STATE,
    REFUSES_LOG_IN,
    BmcTrouble,
    Trouble,
)
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.lane import bmc_name
from mulligan.activities.drivers.logins import LoginGates
from mulligan.activities.drivers.orders import APART_SECONDS, UNSEEN, Known, Orders
from mulligan.activities.errors import AccessDenied, Busy, Conflict, Leftover, Unreachable, Unsupported
from mulligan.activities.serials import other_uuid
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Firmware, Inspection, Mark, PowerState, Target

SETTLE_SECONDS = 10.0
"""How long one call waits for the BMC to say what it was asked to bring about."""
_LOOK_SECONDS = 0.3
CHASSIS = "chassis"
"""What the orders for power are kept by."""


class IpmiDriver:
    """One server. Satisfies Driver, Power and BootTarget; its disks are the deploy agent's."""

    moves_bytes = True

    def __init__(self, address: Address, conversation: Conversation, fences: Fences, *, shared: bool) -> None:
        self._address = address
        self._conversation = conversation
        self._fences = fences
        self._shared = shared
        self._open = True
        conversation.lane.join()

    async def inspect(self, deadline: Deadline) -> Inspection:
        """Read who made the machine and how its sensors are. A claim may hold it: its fence stays, and is told."""
        require_sizes(self._address)
        async with self._turn("looking at the machine", deadline, registered=False):
            found = await inspect_machine(self._address, lambda verb, **said: self._ask(verb, deadline, **said))
            newest = await run_blocking(self._fences.newest, self._address.name)
        return replace(found, fence=newest)

    async def remains(self, machine_id: str, deadline: Deadline) -> tuple[str, ...]:
        """Nothing: what a BMC keeps, power and override, carries no mark."""
        return ()

    async def power(self, mark: Mark, deadline: Deadline) -> PowerReading:
        """The chassis' power."""
        async with self._turn("reading the power", deadline):
            reading, contact = await self._power(deadline), self._conversation.contact
            if reading.state is PowerState.ON:
                await run_blocking(self._orders.seen_on, CHASSIS, contact)
                return reading
            return replace(reading, doubtful=(await self._known()).doubts_off(contact))

    async def power_on(self, mark: Mark, deadline: Deadline) -> None:
        """Switch on, and see it."""
        await self._switch("switching on", mark, PowerState.ON, deadline)

    async def power_off(self, mark: Mark, deadline: Deadline) -> None:
        """Cut the power, and see it."""
        await self._switch("switching off", mark, PowerState.OFF, deadline)

    async def boot_next(self, mark: Mark, device: BootDevice, firmware: Firmware, deadline: Deadline) -> BootReading:
        """Set the boot flags for one boot, and read them."""
        if device not in boot.SELECTORS:
            raise Unsupported(
                f"{self._address.provider}: IPMI has no virtual media; it can be told to boot from "
                f"{' or '.join(boot.SELECTORS)}, or register the machine through Redfish",
                provider=self._address.provider,
            )
        async with self._turn(f"asking for one boot from {device}", deadline, mark):
            flags = await self._ask("boot", deadline)
            before = boot.reading(flags, device, firmware)
            if before.agrees and before.once and before.device is not None and boot.mode_is(flags, firmware):
                return before
            uefi = boot.uefi_flag(flags, firmware, self._address.firmware)
            flags = await self._set_boot(flags, deadline, selector=boot.SELECTORS[device], uefi=uefi)
            return boot.reading(flags, device, firmware, fresh=True)

    async def boot_override(self, mark: Mark, deadline: Deadline) -> BootReading:
        """Read the boot flags."""
        async with self._turn("reading the boot override", deadline):
            return boot.reading(await self._ask("boot", deadline))

    async def clear_boot_override(self, mark: Mark, deadline: Deadline) -> None:
        """Remove the override, asked for twice because BMCs forget; one that knows no "none" (virtualbmc) is told to
        boot from disk, as it would, unless it says so already."""
        async with self._turn("removing the boot override", deadline, mark):
            flags = await self._ask("boot", deadline)
            if boot.is_clear(flags, tried=None):
                return
            for selector in (boot.NONE, boot.NONE, boot.SELECTORS[BootDevice.DISK]):
                if flags["selector"] != selector:
                    flags = await self._set_boot(flags, deadline, selector=selector, uefi=flags["uefi"])
                if boot.is_clear(flags, tried=selector):
                    return
        left = boot.reading(flags).detail
        raise Leftover(
            f"{self._address.provider}: the BMC at {self._address.bmc} was asked to forget the boot override, and "
            f"still says {left}; it is asked again",
            objects=[left],
        )

    async def close(self) -> None:
        """Leave the conversation; the last one to leave ends it."""
        if self._open:
            self._open = False
            await self._conversation.lane.leave(now=not self._shared)

    async def _power(self, deadline: Deadline) -> PowerReading:
        on = (await self._ask("power", deadline))["on"]
        state = PowerState.ON if on else PowerState.OFF
        return PowerReading(state, datetime.now(UTC), f"chassis power is {state}")

    async def _switch(self, doing: str, mark: Mark, wanted: PowerState, deadline: Deadline) -> None:
        """Read, ask if it is not so, and read until it is.

        It is asked once: when the answer is lost, or the BMC does not show it yet, later calls only look, for as long
        as it may yet show (`Orders`). One that asks for the contrary waits for that too.

        "Off" of a BMC that may have restarted since the machine was on is not believed, as over Redfish: it is switched
        off all the same, and again, until the BMC answers that it does it, or has refused it twice.
        """
        async with self._turn(doing, deadline, mark):
            known, state = await self._known(), (await self._power(deadline)).state
            before, contact = PowerState(known.ordered) if known.pending else None, self._conversation.contact
            if before not in {None, wanted, state}:
                await self._seen(before, deadline)
                state = before
            if state is not wanted:
                if before is not wanted:
                    await self._order(wanted, deadline, UNSEEN if wanted is PowerState.ON else contact, known.left_on)
                await self._seen(wanted, deadline)
            elif wanted is PowerState.OFF and known.doubts_off(contact):
                await self._make_sure(deadline, known)
            left_on = self._conversation.contact if wanted is PowerState.ON else None
            await run_blocking(self._orders.end, CHASSIS, left_on)

    async def _order(self, wanted: PowerState, deadline: Deadline, left_on: str, before: str | None) -> bool:
        """Send it, once; whether it was answered. What was known to be left on `before` is so if it is refused."""
        await run_blocking(self._orders.give, CHASSIS, wanted, left_on)
        try:
            answered = bool((await self._ask("switch", deadline, on=wanted is PowerState.ON))["answered"])
        except BmcTrouble as trouble:
            if trouble.trouble not in ENDS_SESSION:  # it was refused, so nothing happened
                await run_blocking(self._orders.refused, CHASSIS, before if wanted is PowerState.ON else left_on)
            raise
        if answered:
            await run_blocking(self._orders.answered, CHASSIS)
        return answered

    async def _make_sure(self, deadline: Deadline, known: Known) -> None:
        """Switch it off although the BMC says that it is, until that was answered, or refused as of one that is off."""
        if known.pending:
            if known.answered:
                return
            raise self._doubted("the answer to the order was lost, and it is given again in a while")
        if time.time() - known.refused_at < APART_SECONDS:
            raise self._doubted("it did not take the order, and is asked again")
        try:
            answered = await self._order(PowerState.OFF, deadline, UNSEEN, known.left_on)
        except BmcTrouble as trouble:
            if trouble.trouble in ENDS_SESSION:
                raise
            as_off = trouble.code == NOT_IN_THIS_STATE or trouble.trouble is Trouble.NOT_OFFERED
            await run_blocking(functools.partial(self._orders.refused_off, CHASSIS, as_off=as_off))
            if known.balks or (as_off and known.refused_at):
                return
            if not as_off:
                raise
            said = f"it does not take the order (code {trouble.code:#04x}), and is asked again"
            raise self._doubted(said, APART_SECONDS) from None
        if not answered:
            raise BmcTrouble(Trouble.NO_ANSWER, "to the order to switch off what it calls off")
        await self._seen(PowerState.OFF, deadline)

    def _doubted(self, then: str, seconds: float = 5.0) -> Busy:
        return Busy(
            f"{self._address.provider}: the BMC at {self._address.bmc} says that the machine is off, and may have "
            f"restarted since it was on; {then}",
            after_seconds=seconds,
        )

    async def _seen(self, wanted: PowerState, deadline: Deadline) -> None:
        """Read until it is so."""
        until = Deadline.after(min(SETTLE_SECONDS, max(0.0, deadline.remaining - 1.0)))
        while (reading := await self._power(deadline)).state is not wanted:
            if until.remaining <= 0:
                raise Busy(
                    f"{self._address.provider}: the BMC at {self._address.bmc} took the order for power {wanted}, "
                    f"and still says {reading.state}; it is looked at again",
                    after_seconds=5.0,
                )
            await asyncio.sleep(_LOOK_SECONDS)

    async def _set_boot(
        self, before: Mapping[str, Any], deadline: Deadline, *, selector: int, uefi: bool
    ) -> Mapping[str, Any]:
        """Set the flags, once, and read them; raises `BmcTrouble` where the answer was lost and nothing has changed."""
        answered = (await self._ask("set-boot", deadline, selector=selector, uefi=uefi))["answered"]
        flags = await self._ask("boot", deadline)
        if not answered and flags == before:
            raise BmcTrouble(Trouble.NO_ANSWER, "and the boot flags are as they were")
        return flags

    @property
    def _orders(self) -> Orders:
        return self._conversation.orders

    async def _known(self) -> Known:
        return await run_blocking(self._orders.of, CHASSIS)

    async def _ask(self, verb: str, deadline: Deadline, **said: object) -> Mapping[str, Any]:
        return await self._conversation.ask(verb, deadline, **said)

    async def _require_itself(self, deadline: Deadline) -> None:
        """Raise `Conflict` where another BMC answers at the address than the one that was added."""
        known = self._address.guid
        if known and other_uuid(known, told := await self._conversation.guid(deadline)):
            raise Conflict(
                f"{self._address.provider}: the BMC at {self._address.bmc} has GUID {told}, not {known}: another "
                "server's, which is left alone. See where the address leads (DHCP, a swapped cable); if it is the same "
                "server, with a new board or firmware, add the provider again (one whose GUID changes by itself: "
                f"`mulligan provider set {self._address.provider} --set check_identity=off`)",
                provider=self._address.provider,
                guid=told,
            )

    @contextlib.asynccontextmanager
    async def _turn(
        self, doing: str, deadline: Deadline, mark: Mark | None = None, *, registered: bool = True
    ) -> AsyncIterator[None]:
        """The BMC for oneself; its troubles come out as errors. With a mark: unless a newer claim acted already."""
        what, conversation = f"{self._address.provider}: {doing}", self._conversation
        deadline.check(what)
        async with conversation.lane.turn(what, deadline, lambda: conversation.may_ask(what, patient=registered)):
            try:
                await self._conversation.begin_turn()
                if registered:
                    await self._require_itself(deadline)
                if mark is not None:
                    await run_blocking(self._fences.take, self._address.name, mark)
                yield
            except BmcTrouble as trouble:
                error = error_of(trouble, self._address.provider, self._address.bmc, doing)
                if isinstance(error, Unreachable):
                    await run_blocking(self._orders.silent)
                if isinstance(error, AccessDenied) and trouble.trouble in REFUSES_LOG_IN:
                    conversation.gate.refused(error, given=False, patient=registered)
                raise error from None


async def open_ipmi(target: Target, credential: Credential, state_dir: Path, kept: Kept | None) -> IpmiDriver:
    """A driver; the BMC is spoken to when the first thing is asked of it.

    With `kept`, all openings share the BMC's session and its lane, and with those over Redfish when it is logged in to.
    Raises `InvalidRequest` for settings that are wrong.
    """
    address = read_address(target)

    gates = kept.gates if kept is not None else LoginGates()
    gate = gates.of(bmc_name(address.host, address.port, PORT), credential)

    def make() -> Conversation:
        return Conversation(address.host, address.port, credential, state_dir, gate)

    key = ("ipmi", address.host, address.port, credential)
    conversation = kept.get(key, make) if kept is not None else make()
    return IpmiDriver(address, conversation, Fences(state_dir / "ipmi"), shared=kept is not None)
