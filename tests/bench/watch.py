"""How soon watchers see what happened in runs, and what it costs Temporal that they watch."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.embedded import ROOMY, Embedded, connected, lasting, running_stack
from tests.bench.fanout import fanout_server
from tests.bench.observed import cpu_seconds
from tests.bench.results import Reach, Result, percentile
from tests.bench.watch_more import FAST, SLOW, after_a_restart, many_runs
from tests.bench.watchers import watchers_of
from tests.e2e.deployment import Deployment

if TYPE_CHECKING:
    pass

FLOOR = (
    "the same number of streams of a bare gRPC server that sends the same events. Times are counted from the time that "
    "Temporal's history gives the event (for the floor: from the call that sends it), by the same clock"
)
WATCHING = ("GetWorkflowExecutionHistory", "PollWorkflowExecutionHistory", "DescribeWorkflowExecution")
"""The calls by which runs are watched."""
_STREAMS_PER_CHANNEL = 50
_WATCH_SECONDS = 120.0


@dataclass(slots=True)
class Watched:
    """What one run's watchers saw."""

    lags: list[float] = field(default_factory=list)
    """Seconds from each event to each watcher, of events that came after all of them had joined."""
    told: list[list[str]] = field(default_factory=list)
    """The cursors that each watcher saw."""
    calls: int = 0
    server: float = 0.0
    """Processor seconds of the API server, from the start of the run to its end."""
    history: Counter[str] = field(default_factory=Counter)
    """How many events of each type the history has."""


def measure(quick: bool) -> Result:
    """Run the benchmark."""
    result = Result("watch", FLOOR)
    many = 20 if quick else 500
    joining, pause = (1.5, 0.2) if quick else (12, 1.4)
    host = f"{SLOW}?{ROOMY}&hold=create_disks:*:{joining},define:*:{pause},console:*:{pause}"
    with (
        tempfile.TemporaryDirectory() as directory,
        running_stack(Path(directory), host, f"{FAST}?{ROOMY}") as deployment,
    ):
        asyncio.run(_measure(result, deployment, many))
        asyncio.run(many_runs(result, deployment, many))
        asyncio.run(after_a_restart(result, deployment, many))
    return result


async def _measure(result: Result, deployment: Deployment, many: int) -> None:
    async with connected(deployment) as stack:
        unwatched = await _watched(stack, deployment.api, "unwatched", 0)
        one = await _watched(stack, deployment.api, "one", 1)
        all_ = await _watched(stack, deployment.api, "many", many)
    _tell(result, one, all_, await _bare(many), many)
    for watched, count in ((one, 1), (all_, many)):
        seen = {tuple(each) for each in watched.told}
        result.require(len(seen) == 1, f"{count} watchers saw {len(seen)} different stories")
        added = watched.history - unwatched.history
        result.require(not added, f"{count} watchers added to the history: {dict(added)}")
    added = all_.history - unwatched.history
    result.add(f"events added to the history by {many} watchers", added.total(), "events", None, Reach(0))
    result.require(
        all_.calls < 2 * one.calls + 10, f"{many} watchers made {all_.calls} calls to Temporal, one made {one.calls}"
    )


async def _bare(many: int) -> list[float]:
    """Seconds from each event of the bare server to each watcher."""
    with fanout_server(many) as address:
        async with watchers_of(address, ["bare"] * many) as watchers, asyncio.TaskGroup() as tasks:
            for watcher in watchers:
                tasks.create_task(watcher.watch())
    return [came - happened for watcher in watchers for came, happened in watcher.times]


def _tell(result: Result, one: Watched, all_: Watched, bare: list[float], many: int) -> None:
    for percent, reaches in ((50, ()), (99, (Reach(50),)), (100, ())):
        alone, crowd, floor = (1000 * percentile(each, percent) for each in (one.lags, all_.lags, bare))
        name = "longest" if percent == 100 else f"{percent}th percentile"
        result.add(f"event to watcher, {name}, 1 watcher", alone, "ms")
        result.add(f"event to watcher, {name}, {many} watchers", crowd, "ms", floor, *reaches)
    result.add("calls to Temporal for watching, 1 watcher", one.calls, "calls")
    result.add(f"calls to Temporal for watching, {many} watchers", all_.calls, "calls")
    told = sum(len(each) for each in all_.told)
    result.add(f"API server's processor time an event and watcher, {many} watchers", 1e6 * all_.server / told, "µs")
    result.notes.append(f"{len(all_.lags)} deliveries measured; the {many} watchers are one process on the same cores")


async def _watched(stack: Embedded, address: str, name: str, count: int) -> Watched:
    """Make a machine while so many watch, and gather what they saw."""
    await stack.provision(name, SLOW, detach=True)
    before, server = await stack.calls.so_far(), {"server": stack.pids["server"]}
    used = cpu_seconds(server)["server"]
    joined = time.time()
    async with watchers_of(address, [name] * count) as watchers:
        async with asyncio.TaskGroup() as tasks:
            for watcher in watchers:
                tasks.create_task(watcher.watch())
            await asyncio.gather(*(watcher.joined.wait() for watcher in watchers))
            joined = time.time()
        after = await stack.calls.so_far()
    history = Counter(lasting(await stack.history(name)))
    used = cpu_seconds(server)["server"] - used
    watched = Watched(server=used, calls=sum(after[call] - before[call] for call in WATCHING), history=history)
    for watcher in watchers:
        watched.told.append([event.cursor for _, event in watcher.seen])
        watched.lags += [came - happened for came, happened in watcher.times if happened > joined]
    return watched
