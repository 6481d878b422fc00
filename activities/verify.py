"""The verify step: evidence, newer than the boot, that the machine is up. Runs next to the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import aiohttp
from temporalio import activity

from mulligan.activities import calls
from mulligan.activities.beat import Beat, beating
from mulligan.activities.drivers.base import Addresses, BootProgress, Console, Deadline, Driver
from mulligan.activities.errors import VerifyFailed
from mulligan.activities.powered import Powered
from mulligan.activities.site import Site, able
from mulligan.activities.values import Evidence, PowerState, Service, ServiceKind, Target, VerifyLevel

POLL_SHARE = 0.01
"""How long to wait before the next look, of the time that was waited already: what it adds stays below a hundredth."""
POLL_SECONDS = (0.25, 1.0)
"""The shortest and the longest wait between two looks."""
READ_SECONDS = 10.0
PROBE_SECONDS = 5.0
CLOCK_TOLERANCE = timedelta(seconds=2)
"""How far a provider's clock may be behind the clock by which the boot is dated."""
OFF_SECONDS = 1.0
"""Readings of power off over so long are believed: the machine switched itself off."""
BANNER_SECONDS = 4.0
BANNER_LINES = 50
"""An SSH server may say other lines before its banner (RFC 4253, section 4.2)."""


@dataclass
class _Look:
    """What was seen so far of one machine."""

    target: Target
    asked: calls.ObserveIn
    powered: Powered
    evidence: dict[VerifyLevel, Evidence] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    console_offset: int = 0
    console_line: str = ""
    silent: str = ""
    progress: str = ""
    """How far its boot came, as its BMC says."""

    def wanted(self) -> list[VerifyLevel]:
        """The levels still to be proved."""
        levels = (VerifyLevel.POWER, VerifyLevel.CONSOLE, VerifyLevel.ADDRESS)
        return [level for level in levels if self.asked.level.includes(level) and level not in self.evidence]

    def awaiting(self) -> str:
        """What is awaited, and what was last observed."""
        seen = f"; its console last said {self.console_line[:120]!r}" if self.console_line else ""
        silent = f" ({self.silent})" if self.silent and VerifyLevel.ADDRESS in self.wanted() else ""
        said = f"; {self.progress}" if self.progress else ""
        return f"awaiting {' and '.join(self.wanted())} of {self.asked.mark.machine}{silent}{seen}{said}"

    def prove(self, level: VerifyLevel, source: str, observed: str, at: datetime) -> None:
        """Keep the first evidence for a level, if it is newer than the boot."""
        if level not in self.evidence and at >= self.asked.booted_at - CLOCK_TOLERANCE:
            self.evidence[level] = Evidence(level, source, observed[:300], at)


class VerifyActivities:
    """Observations of machines, and questions to their services."""

    def __init__(self, site: Site) -> None:
        self._site = site

    @activity.defn(name=calls.OBSERVE.name)
    async def observe(self, asked: calls.ObserveIn) -> calls.Observed:
        """Look at power, console and addresses until everything up to the level is proved."""
        look = _Look(asked.target, asked, Powered(asked.target, asked.mark, OFF_SECONDS))
        async with beating("looking") as beat, self._site.driver(asked.target) as driver:
            await _until(lambda: _look_once(driver, look), asked, beat, look.awaiting)
        evidence = tuple(look.evidence[level] for level in VerifyLevel if level in look.evidence)
        return calls.Observed("; ".join(e.observed for e in evidence), evidence, look.addresses)

    @activity.defn(name=calls.PROBE_SERVICE.name)
    async def probe(self, asked: calls.ProbeIn) -> calls.Observed:
        """Ask the service at every address until one answers."""
        last = {"said": "nothing yet"}
        evidence: list[Evidence] = []

        async def ask() -> bool:
            for address in asked.addresses:
                try:
                    async with asyncio.timeout(PROBE_SECONDS):
                        evidence.append(await ask_service(address, asked.service))
                except (OSError, TimeoutError, aiohttp.ClientError, WrongAnswer) as error:
                    last["said"] = f"{address}: {error or 'no answer'}"
                else:
                    return True
            return False

        def awaiting() -> str:
            return f"awaiting {asked.service.kind} on port {asked.service.port}; last: {last['said']}"

        async with beating(awaiting()) as beat:
            await _until(ask, asked, beat, awaiting)
        return calls.Observed(evidence[0].observed, tuple(evidence), asked.addresses)


async def _until(
    looked: Callable[[], Awaitable[bool]],
    asked: calls.ObserveIn | calls.ProbeIn,
    beat: Beat,
    awaiting: Callable[[], str],
) -> None:
    """Look again and again, counted from the first attempt, and give up with what was last observed.

    It gives up a little before its step's deadline, so that it can say so; what it tells is the deadline.
    """
    began = activity.info().scheduled_time
    while not await looked():
        beat(awaiting())
        waited = (datetime.now(UTC) - began).total_seconds()
        if waited >= asked.seconds:
            raise VerifyFailed(f"not proved within {asked.allowed or asked.seconds} s: {awaiting()}")
        await asyncio.sleep(min(max(POLL_SECONDS[0], waited * POLL_SHARE), POLL_SECONDS[1]))


async def _look_once(driver: Driver, look: _Look) -> bool:
    await _look_at_power(driver, look)  # every time: a guest that died will not speak any more
    if isinstance(driver, BootProgress) and look.wanted():
        await _look_at_progress(driver, look)
    for level in look.wanted():
        if level in _LOOKS:
            await _LOOKS[level](driver, look)
    return not look.wanted() and not look.powered.in_doubt


async def _look_at_power(driver: Driver, look: _Look) -> None:
    reading = await look.powered.look(driver)
    if reading.state is PowerState.ON:
        look.prove(VerifyLevel.POWER, "power", f"power is on ({reading.detail or reading.state})", reading.at)


async def _look_at_progress(driver: BootProgress, look: _Look) -> None:
    """What the BMC says of the boot. That an operating system runs stands for a console where there is none to read."""
    said = await driver.boot_progress(look.asked.mark, Deadline.after(READ_SECONDS))
    if said is None:
        return
    look.progress = said.said
    if (
        said.running
        and said.at is not None
        and VerifyLevel.CONSOLE in look.wanted()
        and not isinstance(driver, Console)
    ):
        look.prove(VerifyLevel.CONSOLE, "boot-progress", look.progress, said.at)


async def _look_at_console(driver: Driver, look: _Look) -> None:
    if isinstance(driver, BootProgress) and not isinstance(driver, Console):
        return  # looked at already
    mark = look.asked.mark
    chunk = await able(driver, Console, look.target).console(mark, look.console_offset, Deadline.after(READ_SECONDS))
    look.console_offset = chunk.next_offset
    if line := chunk.last_line:
        look.console_line = line
        look.prove(VerifyLevel.CONSOLE, "console", look.console_line, datetime.now(UTC))


async def _look_for_address(driver: Driver, look: _Look) -> None:
    seen = await able(driver, Addresses, look.target).addresses(look.asked.mark, Deadline.after(READ_SECONDS))
    look.silent = ", ".join(f"{source}: {why}" for source, why in seen.silent.items())
    if isinstance(driver, Console):
        await _look_at_console(driver, look)
    fresh = [s for s in seen.found if s.at >= look.asked.booted_at - CLOCK_TOLERANCE]
    if fresh:
        look.addresses = tuple(dict.fromkeys(s.address for s in fresh))
        first = fresh[0]
        quiet = f"; silent: {', '.join(seen.silent)}" if seen.silent else ""
        look.prove(VerifyLevel.ADDRESS, first.source, f"{first.address} seen by {first.source}{quiet}", first.at)


_LOOKS = {
    VerifyLevel.CONSOLE: _look_at_console,
    VerifyLevel.ADDRESS: _look_for_address,
}


class WrongAnswer(Exception):
    """Something answered, but not what was expected."""


async def ask_service(address: str, service: Service) -> Evidence:
    """Ask once; raises when there is no answer, or another than expected."""
    if service.kind is ServiceKind.HTTP:
        return await _ask_http(address, service)
    reader, writer = await asyncio.open_connection(address, service.port)
    try:
        if service.kind is ServiceKind.TCP:
            return _answered("tcp", f"{address} port {service.port} accepts connections")
        return _answered("ssh-banner", f"{address} port {service.port} says {(await _banner(reader))[:120]}")
    finally:
        writer.close()


async def _banner(reader: asyncio.StreamReader) -> str:
    """The line with which an SSH server names its version; raises `WrongAnswer` with what was said in its place."""
    said = ""
    try:
        async with asyncio.timeout(BANNER_SECONDS):
            for _ in range(BANNER_LINES):
                line = (await reader.readline()).decode("ascii", "replace")
                if line.startswith("SSH-"):
                    return line.strip()
                said = said or line.strip()
                if not line:
                    break
    except ValueError:
        raise WrongAnswer("expected an SSH banner, got a line without an end") from None
    except TimeoutError:
        if not said:
            raise
    raise WrongAnswer(f"expected an SSH banner, got {said[:80]!r}")


async def _ask_http(address: str, service: Service) -> Evidence:
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{service.port}{service.path}"
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False) as answer:
        if answer.status >= 400:
            raise WrongAnswer(f"{url} answered {answer.status}")
        return _answered("http", f"{url} answered {answer.status}")


def _answered(source: str, observed: str) -> Evidence:
    return Evidence(VerifyLevel.SERVICE, source, observed, datetime.now(UTC))
