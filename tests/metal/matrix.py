"""Whole runs on servers whose BMC lies: a machine is made and released, and what is said is held against what is so.

Temporal, the workers, the inventory, the boot server and the driver are real; the BMC lies over a real connection, and
the server behind it, with its agent and its guest, is played. Most of a case is waiting (for a busy BMC, for a next
attempt), so that many are under way at once: a test waits for the end of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import aiohttp
import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities import deploy, erase
from mulligan.activities.calls import BY_AGENT, CONTROL_QUEUE
from mulligan.activities.drivers import orders
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.levers import LeverKind
from mulligan.activities.values import (
    Deadlines,
    Inspection,
    MachineRequest,
    MachineState,
    Outcome,
    Resources,
    Target,
    VerifyLevel,
)
from mulligan.workflows import runs
from tests.bootserver.agent_parts import DISK, Caller, an_agent
from tests.drivers.bmc.once import Request, sent_twice
from tests.drivers.bmc.parts import credentials_in
from tests.metal.cases import Case, Mending
from tests.metal.conftest import CONTENT, IMAGE, PATIENT
from tests.metal.played import PlayedServer
from tests.metal.steps import sides
from tests.services.temporal import running_temporal
from tests.workflows.stack import Stack, running_stack, until
from tests.workflows.steer import pull

Done = TypeVar("Done")

SHORT = replace(PATIENT, comes=8.0, silence=30.0, order_seconds=0.3, look_seconds=0.2, progress_seconds=0.25)
AT_ONCE = 32
"""Cases under way together."""
PATIENCE_SECONDS = 8.0
"""How long an order for power may yet show, in place of the 45 seconds that real BMCs get."""
WITHIN_SECONDS = 240.0
"""A case that has not ended by then hangs. Real ones take some seconds; the machine may be very busy."""
WITHIN = Deadlines(
    claim_seconds=60, image_seconds=180, boot_seconds=180, verify_seconds=180, run_seconds=600, undo_seconds=180
)

BRIEF_SECONDS = 40
"""How long what a lasting lie hinders is tried. A run that goes well up to the lie has to reach it within that."""


def deadlines_of(mending: Mending, steps: Sequence[str]) -> Deadlines:
    """What is hindered by a lie that lasts is given up soon; only that: what comes before may take its time.

    A lie that is told in the release hinders nothing of the machine's making, which must not fail first.
    """
    if mending is Mending.NONE:
        return WITHIN
    if all(step in sides(list(steps))[1] for step in steps):
        return replace(WITHIN, undo_seconds=60)
    brief = replace(WITHIN, boot_seconds=BRIEF_SECONDS, verify_seconds=BRIEF_SECONDS, undo_seconds=60)
    return brief if steps[0].startswith("boot.") else replace(brief, image_seconds=BRIEF_SECONDS)


class Lied(Protocol):
    """A BMC that lies, as far as a case must know it."""

    lies_to_come: str
    """The lie that was not told yet; empty once it was."""
    url: str
    settings: dict[str, str]
    """Of the provider."""

    @property
    def rest(self) -> tuple[str, str, str]:
        """The truth about the machine: its power, what is in its drive, whether its boot is overridden."""

    def requests(self) -> Sequence[Request]:
        """All that was asked of it, oldest first."""

    def releases(self) -> None:
        """What comes now is the release."""

    def worked(self) -> None:
        """The deploy agent has done what it was booted for."""

    def open_sessions(self) -> int:
        """How many sessions it has open."""

    healed: bool

    def heal(self) -> None:
        """Lie no more."""


@dataclass
class Guested(PlayedServer):
    """A server on whose disk a guest comes up as soon as the disk is booted, and calls home."""

    worked: Callable[[], None] = lambda: None
    """Told once the agent has done its work, before it says so."""

    async def _deploy(self, caller: Caller, told: dict[str, Any]) -> dict[str, Any] | None:
        return self._tell(await super()._deploy(caller, told))

    async def _erase(self, caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
        return self._tell(await super()._erase(caller, told))

    def _tell(self, result: Done) -> Done:
        self.worked()
        return result

    async def _boot(self) -> None:
        await super()._boot()
        if self.boots[-1] == "disk" and self.seed:
            url, token = (_in_seed(self.seed, f"mulligan_call_home_{name}") for name in ("url", "token"))
            body = {"hostname": "m", "status": "done", "addresses": ["127.0.0.1"], "disks": [{"mount": "/", **DISK}]}
            headers = {"Authorization": f"Bearer {token}"}
            async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers):
                pass  # it may have called before, when its server is switched on twice


def _in_seed(seed: bytes, name: str) -> str:
    found = re.search(rf"{name}: '?([^\s']+)".encode(), seed)
    assert found is not None
    return found.group(1).decode()


@dataclass
class Ended:
    """How it all ended."""

    provision: Outcome = Outcome.OPEN
    release: Outcome = Outcome.OPEN
    quarantined: bool = False
    """Whether it had to be, on the way."""
    wrong: list[str] = field(default_factory=list)
    """What was said and is not so, what was left, and what was sent twice."""
    said: list[str] = field(default_factory=list, compare=False)
    """What each run said at its end, for whoever reads why a case went wrong."""


class Known:
    """What the servers of one protocol are found to be, where their registration is not what is tried: seen once."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._found: Inspection | None = None

    async def of(self, stack: Stack, target: Target) -> Inspection:
        """As any of them is found; the first one is looked at."""
        async with self._turn:
            if self._found is None:
                async with stack.site.driver(target) as driver:
                    self._found = await driver.inspect(Deadline.after(60))
            return self._found


@dataclass
class Lot:
    """One case: a provider of its own, from its registration to its release."""

    stack: Stack
    name: str
    bmc: Lied
    server: Guested
    known: Known
    mending: Mending = Mending.NONE
    steps: tuple[str, ...] = ()
    """Where its BMC lies."""
    ended: Ended = field(default_factory=Ended)

    async def run(self) -> Ended:
        """Register the server, make a machine of it, and release that."""
        async with playing(self.server):
            if not await self._registered():
                return self.ended
            self.ended.provision = await self._outcome(await self._provision())
            self._compare(self.ended.provision)
            if self.ended.provision is Outcome.QUARANTINED:
                self.bmc.heal()
            if self.ended.provision in (Outcome.READY, Outcome.QUARANTINED):
                self.ended.release = await self._outcome(await self.release())
                self._compare(self.ended.release)
            if self.ended.release is Outcome.QUARANTINED:
                self.bmc.heal()
                self.ended.release = await self._outcome(await self.release())
                self._compare(self.ended.release)
        twice = sent_twice(self.bmc.requests(), PATIENCE_SECONDS)
        self._must(not twice, f"sent twice: {twice}")
        self._must(not self.bmc.lies_to_come, f"{self.bmc.lies_to_come} was not reached: the case shows nothing")
        await self._logged_out()
        return self.ended

    async def _registered(self) -> bool:
        """By the run that an operator starts, again as an operator would where it fails; as if that had been done where
        the lie lasts, which begins later."""
        target = Target(self.name, "default", self.bmc.url, self.bmc.settings, "rack")
        if self.mending is not Mending.NONE:
            found = await self.known.of(self.stack, target)
            found = replace(found, settings={**found.settings, "macs": self.server.mac})
            self.stack.inventory.put_provider(self.name, "default", target.url, "rack", found, target.settings)
            return True
        for _ in range(3):
            handle = await self.stack.client.start_workflow(
                runs.ENROL, target, id=runs.enrol_id(self.name), task_queue=CONTROL_QUEUE, result_type=runs.EnrolOut
            )
            with contextlib.suppress(WorkflowFailureError):
                enrolled = await handle.result()
                self._must(BY_AGENT in enrolled.provider.capabilities, "registered without the deploy agent")
                return True
        self._must(False, "it could not be registered")
        return False

    async def _provision(self) -> WorkflowHandle[Any, Any]:
        request = MachineRequest(
            self.name, "m", "demo", Resources(1, 512, 1), provider=self.name, verify=VerifyLevel.GUEST,
            deadlines=deadlines_of(self.mending, self.steps), mulligans=0,
        )  # fmt: skip
        image = replace(IMAGE, source=(self.stack.directory / "demo.img").as_uri())
        return await self.stack.start(request, image=image)

    async def release(self) -> WorkflowHandle[Any, Any]:
        """As the API asks for it."""
        self.bmc.releases()
        machine = self.stack.inventory.machine(self.name, "m")
        claim = self.stack.inventory.claim_by_id(machine.claim_id)
        target = self.stack.inventory.provider(self.name).target
        asked = runs.ReleaseIn(
            machine.id, self.name, "m", claim.id, target, machine.run_id, claim.fence, by_agent=True
        )  # fmt: skip
        return await self.stack.client.start_workflow(
            runs.RELEASE, asked, id=runs.release_id(self.name, "m"), task_queue=CONTROL_QUEUE
        )

    async def _outcome(self, handle: WorkflowHandle[Any, Any]) -> Outcome:
        mending = asyncio.create_task(self._mend(handle))
        with contextlib.suppress(WorkflowFailureError):
            await handle.result()
        mending.cancel()
        await asyncio.gather(mending, return_exceptions=True)
        last = (await self.stack.story(handle))[-1]
        self.ended.said.append(last.message)
        return last.outcome

    async def _mend(self, handle: WorkflowHandle[Any, Any]) -> None:
        """Wait until an undo fails for the lie, then do what is to be done about it."""
        if self.mending is Mending.NONE:
            return

        async def hindered() -> bool:
            return not self.bmc.lies_to_come and await _cannot_undo(handle)

        await until(hindered, WITHIN_SECONDS, every=0.5)
        if self.mending is Mending.HEALS:
            self.bmc.heal()
        elif not self.bmc.healed:
            await pull(handle, LeverKind.ABORT)

    def _compare(self, said: Outcome) -> None:
        """What the run says, with the BMC, the disk, the claims and the records."""
        inventory, rest = self.stack.inventory, self.bmc.rest
        claims = [each for each in inventory.claims(project=self.name) if each.state != "released"]
        state = inventory.machine(self.name, "m").state
        drift = [str(each) for each in inventory.audit() if self.name in str(each)]
        self._must(not drift, f"{said}: the claims do not add up: {drift}")
        if said is Outcome.READY:
            self._must(state is MachineState.READY, f"ready, and recorded as {state}")
            self._must([each.state for each in claims] == ["permanent"], f"ready, and its claims are {claims}")
            self._must(rest[:2] == ("On", "") and self.server.disk == CONTENT, f"ready, and its server is {rest}")
            self._must(self.server.boots[-1] == "disk", f"ready, and it booted {self.server.boots}")
        elif said is Outcome.QUARANTINED:
            self.ended.quarantined = True
            self._must(state is MachineState.QUARANTINED, f"quarantined, and recorded as {state}")
            told = [each for each in claims if each.state == "quarantined" and each.reason and "release" in each.mend]
            self._must(len(told) == 1, f"quarantined, and its claims are {claims}")
        elif said in (Outcome.FAILED, Outcome.RELEASED):
            self._must(not claims, f"{said}, and it holds {claims}")
            self._must(rest == ("Off", "", "Disabled"), f"{said}, and its server is {rest}")
            self._must(self.server.disk == b"", f"{said}, and its disk is not clean")
        else:
            self._must(False, f"it ended {said}")

    async def _logged_out(self) -> None:
        async def none() -> bool:
            return self.bmc.open_sessions() == 0

        try:
            await until(none, 30)
        except TimeoutError:
            self._must(False, f"{self.bmc.open_sessions()} sessions were left open")

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.ended.wrong.append(otherwise)


async def _cannot_undo(handle: WorkflowHandle[Any, Any]) -> bool:
    pending = (await handle.describe()).raw_description.pending_activities
    undos = [each for each in pending if "/undo/" in each.activity_id]
    return any(each.last_failure.message for each in undos)


@contextlib.asynccontextmanager
async def playing(server: Guested) -> AsyncIterator[None]:
    """The server plays its part within the block; what breaks it is raised at the end."""
    task = asyncio.create_task(server.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def stacked(directory: Path, password: str, *more: tuple[object, str, object]) -> AsyncIterator[Stack]:
    """A real stack whose drivers wait for moments where they would wait for many seconds; `more` says of which."""
    (directory / "demo.img").write_bytes(CONTENT)
    an_agent(directory / "agent")
    credentials_in(directory, password).rename(directory / "credentials.yaml")
    all_ = (
        (deploy, "Patience", lambda: SHORT),
        (erase, "Patience", lambda: SHORT),
        (orders, "PATIENCE_SECONDS", PATIENCE_SECONDS),
        *more,
    )
    with pytest.MonkeyPatch.context() as patch, running_temporal(directory / "temporal") as address:
        for module, name, value in all_:
            patch.setattr(module, name, value)
        async with running_stack(address, directory) as stack:
            yield stack


def chosen(request: pytest.FixtureRequest) -> list[Case]:
    """The cases of the test's file that are to be run."""
    return [item.callspec.params["case"] for item in request.session.items if item.path == request.path]


class Pool:
    """The cases that were chosen, some of them under way at once, in their order."""

    def __init__(
        self, begin: Callable[[Case], contextlib.AbstractAsyncContextManager[Lot]], cases: Iterable[Case]
    ) -> None:
        self._begin = begin
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks = {case: asyncio.create_task(self._one(case)) for case in dict.fromkeys(cases)}

    async def ended(self, case: Case) -> Ended:
        """How this one ended."""
        return await self._tasks[case]

    async def close(self) -> None:
        """Stop what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _one(self, case: Case) -> Ended:
        async with self._room, self._begin(case) as lot:
            try:
                async with asyncio.timeout(WITHIN_SECONDS):
                    return await lot.run()
            except TimeoutError:
                return replace(lot.ended, wrong=[*lot.ended.wrong, "it hangs"])
