"""How many machines a stack makes in a second, and how long one takes, beside workflows that do nothing."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.bench.embedded import Embedded, connected, running_stack
from tests.bench.floor import Shape, floor_worker, run_floor
from tests.bench.observed import cpu_seconds
from tests.bench.results import Reach, Result

FLOOR = (
    "a workflow with as many activities that do nothing, on the same Temporal, with the same worker settings; "
    "`shaped`: the same with the run's own task queues, timers and search attributes"
)
_OPERATIONS = 8
"""How many of the most frequent operations are told."""

MULLIGAN, BARE, SHAPED = "mulligan", "floor", "shaped"

Job = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    at_once: int
    rounds: int
    singles: int


QUICK = Size(at_once=20, rounds=1, singles=3)
FULL = Size(at_once=200, rounds=2, singles=30)


@dataclass(slots=True)
class Series:
    """What was measured of one kind of work."""

    alone: list[float] = field(default_factory=list)
    """Seconds that one took by itself."""
    rates: list[float] = field(default_factory=list)
    """Runs a second, of each round of many at once."""
    cpu: dict[str, float] = field(default_factory=dict)
    """Processor seconds in the rounds, by process."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls to Temporal in the rounds, by operation."""


def measure(quick: bool) -> Result:
    """Run the benchmark."""
    result = Result("orchestration", FLOOR)
    with (
        tempfile.TemporaryDirectory() as directory,
        running_stack(Path(directory)) as deployment,
        floor_worker(deployment.temporal) as floor_pid,
    ):

        async def run() -> None:
            async with connected(deployment) as stack:
                await _measure(result, stack, floor_pid, QUICK if quick else FULL)

        asyncio.run(run())
        with closing(deployment.inventory()) as inventory:
            result.require(not inventory.audit(), f"the claims do not add up: {inventory.audit()}")
    return result


async def _measure(result: Result, stack: Embedded, floor_pid: int, size: Size) -> None:
    await stack.provision("first")
    shape = Shape.of(await stack.history("first"))
    result.notes.append(
        f"a run schedules {len(shape.far)} activities, {sum(shape.far)} of them for the partition, {shape.local} local "
        f"ones and {shape.timers} timers, and sets search attributes {shape.told} times; rounds of {size.at_once}, "
        f"{size.rounds} of each kind in turn"
    )
    jobs: dict[str, Job] = {
        MULLIGAN: stack.provision,
        BARE: lambda name: run_floor(stack.client, name, shape.bare),
        SHAPED: lambda name: run_floor(stack.client, f"shaped-{name}", shape),
    }
    pids = {**{f"mulligan {name}": pid for name, pid in stack.pids.items()}, "floor worker": floor_pid}
    series = {kind: Series() for kind in jobs}
    for kind, job in jobs.items():
        await _together(job, [f"warm-{kind}-{number}" for number in range(5)])
    for number in range(size.singles):
        for kind, job in jobs.items():
            series[kind].alone.append(await _seconds(job(f"single-{number}")))
    for number in range(size.rounds):
        for kind, job in jobs.items():
            await _round(stack, series[kind], job, [f"many-{number}-{each}" for each in range(size.at_once)], pids)
    _tell(result, series, size)


async def _round(stack: Embedded, series: Series, job: Job, names: list[str], pids: Mapping[str, int]) -> None:
    calls, cpu = await stack.calls.so_far(), cpu_seconds(pids)
    seconds = await _seconds(_together(job, names))
    for process, used in cpu_seconds(pids).items():
        series.cpu[process] = series.cpu.get(process, 0) + used - cpu[process]
    series.calls += await stack.calls.so_far() - calls
    series.rates.append(len(names) / seconds)


async def _together(job: Job, names: list[str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(_one(job, name))


async def _one(job: Job, name: str) -> None:
    await job(name)


async def _seconds(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


def _tell(result: Result, series: Mapping[str, Series], size: Size) -> None:
    ours, bare, shaped = series[MULLIGAN], series[BARE], series[SHAPED]
    many, done = f"{size.at_once} at once", size.rounds * size.at_once
    rate = Reach(0.9, "ratio", at_most=False)
    result.add(f"throughput, {many}", median(ours.rates), "runs/s", median(bare.rates), rate)
    result.add(f"throughput, {many}, shaped", median(ours.rates), "runs/s", median(shaped.rates))
    one = [1000 * median(each.alone) for each in (ours, bare, shaped)]
    result.add("one run alone, median", one[0], "ms", one[1], Reach(1.3, "ratio"), Reach(120))
    result.add("one run alone, median, shaped", one[0], "ms", one[2])
    total = [1000 * sum(each.cpu.values()) / done for each in (ours, bare, shaped)]
    result.add("processor time a run", total[0], "ms", total[1])
    result.add("processor time a run, shaped", total[0], "ms", total[2])
    for process, floor in (("temporal", "mulligan temporal"), ("worker", "floor worker"), ("server", "")):
        used = 1000 * ours.cpu[f"mulligan {process}"] / done
        result.add(f"  of it {process}", used, "ms", 1000 * bare.cpu[floor] / done if floor else None)
        if floor:
            result.add(f"  of it {process}, shaped", used, "ms", 1000 * shaped.cpu[floor] / done)
    calls = [each.calls.total() / done for each in (ours, bare, shaped)]
    result.add("calls to Temporal a run", calls[0], "calls", calls[1])
    result.add("calls to Temporal a run, shaped", calls[0], "calls", calls[2])
    for operation, count in ours.calls.most_common(_OPERATIONS):
        result.add(f"  of it {operation}", count / done, "calls", bare.calls[operation] / done)
