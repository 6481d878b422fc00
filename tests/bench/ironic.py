"""How many machines a stack makes in a second, beside a standalone Ironic that deploys fake hardware."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.embedded import Embedded, connected, running_stack
from tests.bench.peers import IRONIC, NoPeerError, have_part
from tests.bench.results import Reach, Result
from tests.bench.standalone import Deployed, Ironic, connected_ironic, running_ironic

FLOOR = (
    "a standalone Ironic, its all-in-one service with fake hardware and SQLite. A deployment there ends when the node "
    "is active; a run of ours ends when the machine is verified, and claims its provider itself"
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: dict[int, int]
    """How often so many at once."""


QUICK = Size({1: 2, 10: 1})
FULL = Size({1: 10, 10: 3, 200: 1})


@dataclass(slots=True)
class Series:
    """Rounds of as many at once: of each how many were made, in how many seconds."""

    made: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Machines a second, of the round in the middle."""
        return median(made / seconds for made, seconds in zip(self.made, self.seconds, strict=True))


def measure(quick: bool) -> Result:
    """Run the benchmark."""
    result, size = Result("ironic", FLOOR), QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as directory, running_stack(Path(directory)) as deployment:

        async def run() -> None:
            async with connected(deployment) as stack, AsyncExitStack() as peers:
                ironic = None
                if have_part(quick):
                    try:
                        ironic = await peers.enter_async_context(_peer(Path(directory) / "ironic"))
                        result.notes.append(f"the peer: {IRONIC}, with its defaults but for what it has to fake")
                    except NoPeerError as error:
                        result.notes.append(f"without the peer: {error}")
                else:
                    result.notes.append(
                        f"the peer, {IRONIC}, has no part in the quick run: it would have to be installed"
                    )
                await _measure(result, stack, ironic, size)

        asyncio.run(run())
        with closing(deployment.inventory()) as inventory:
            result.require(not inventory.audit(), f"the claims do not add up: {inventory.audit()}")
    return result


@asynccontextmanager
async def _peer(directory: Path) -> AsyncIterator[Ironic]:
    with running_ironic(directory) as address:
        async with connected_ironic(address) as ironic:
            yield ironic


async def _measure(result: Result, stack: Embedded, ironic: Ironic | None, size: Size) -> None:
    await asyncio.gather(*(stack.provision(f"warm-{number}") for number in range(5)))
    if ironic is not None:
        await ironic.enrol(["warm"])
        await ironic.deploy(["warm"])
    for at_once, rounds in size.rounds.items():
        ours, theirs = Series(), Series()
        for number in range(rounds):
            names = [f"n{at_once}-{number}-{each}" for each in range(at_once)]
            await _ours(ours, stack, names)
            if ironic is not None:
                await ironic.enrol(names)
                await _theirs(result, theirs, ironic, names)
        _tell(result, at_once, ours, theirs)
        result.require(sum(ours.made) == at_once * rounds, f"{at_once} at once: only {ours.made} were made")


async def _ours(series: Series, stack: Embedded, names: list[str]) -> None:
    began = time.perf_counter()
    done = await asyncio.gather(*(stack.provision(name) for name in names), return_exceptions=True)
    series.seconds.append(time.perf_counter() - began)
    series.made.append(sum(not isinstance(each, BaseException) for each in done))


async def _theirs(result: Result, series: Series, ironic: Ironic, names: list[str]) -> None:
    done: Deployed = await ironic.deploy(names)
    series.seconds.append(done.seconds)
    series.made.append(done.active)
    if done.errors:
        said = f"{len(names)} at once: Ironic left {len(names) - done.active} undeployed, e.g. {done.errors[0]}"
        result.notes.append(" ".join(said.split()))


def _tell(result: Result, at_once: int, ours: Series, theirs: Series) -> None:
    peer = theirs.rate if theirs.made else None
    if at_once == 1:
        alone = 1000 * median(theirs.seconds) if theirs.made else None
        result.add("one alone, median", 1000 * median(ours.seconds), "ms", alone)
        return
    reach = (Reach(3, "ratio", at_most=False),) if at_once == 10 else ()
    result.add(f"machines a second, {at_once} at once", ours.rate, "machines/s", peer, *reach)
    share = 100 * sum(theirs.made) / (at_once * len(theirs.made)) if theirs.made else None
    made = 100 * sum(ours.made) / (at_once * len(ours.made))
    result.add(f"  of them made, {at_once} at once", made, "%", share, Reach(100, at_most=False))
