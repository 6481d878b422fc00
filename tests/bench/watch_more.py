"""More of watching: many runs at once with a watcher each, and a server that is killed while a run is watched."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.bench.embedded import Embedded, connected
from tests.bench.results import Reach, Result, percentile
from tests.bench.watchers import Watcher, watchers_of
from tests.e2e.deployment import Deployment

SLOW, FAST = "slow", "fast"
"""The hosts: one on which a run takes some seconds, with pauses between its events, and one without any delay."""
_AT_ONCE = 20
"""How many runs are asked for at the same time; they run all together."""


async def many_runs(result: Result, deployment: Deployment, many: int) -> None:
    """So many runs at once, each with one watcher."""
    names = [f"each-{number}" for number in range(many)]
    async with connected(deployment) as stack, watchers_of(deployment.api, names) as watchers:
        await stack.provision("settle", FAST)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str, watcher: Watcher) -> None:
            async with gate:
                await stack.provision(name, FAST, detach=True)
            await watcher.watch()

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for name, watcher in zip(names, watchers, strict=True):
                tasks.create_task(one(name, watcher))
        rate = many / (time.perf_counter() - began)
    lags = [came - happened for one in watchers for came, happened in one.times if happened > one.joins[0]]
    for percent, reaches in ((50, ()), (99, (Reach(250),))):
        name = f"event to watcher, {percent}th percentile, {many} runs with a watcher each"
        result.add(name, 1000 * percentile(lags, percent), "ms", None, *reaches)
    whole = {len(watcher.seen) for watcher in watchers}
    result.require(len(whole) == 1, f"of {many} equal runs watchers saw {sorted(whole)} events")
    result.notes.append(f"{many} runs at once, each with a watcher: {rate:.3g} runs/s, {len(lags)} deliveries measured")


async def after_a_restart(result: Result, deployment: Deployment, many: int) -> None:
    """Kill the API server while so many watch a run: each must come back and have every event once."""
    name = "restarted"
    async with connected(deployment) as stack, watchers_of(deployment.api, [name] * many) as watchers:
        await stack.provision(name, SLOW, detach=True)
        async with asyncio.TaskGroup() as tasks:
            for watcher in watchers:
                tasks.create_task(watcher.watch())
            await asyncio.gather(*(watcher.joined.wait() for watcher in watchers))
            killed = time.time()
            os.kill(stack.pids["server"], signal.SIGKILL)
        told = await _whole_story(stack, deployment, name)
    back = [watcher.joins[-1] - killed for watcher in watchers]
    caught_up = [_caught_up(watcher) - killed for watcher in watchers]
    result.add(f"server killed: the first of {many} watchers is back after", min(back), "s")
    result.add(f"server killed: the last of {many} watchers has all that it missed after", max(caught_up), "s")
    result.require(all(len(watcher.joins) > 1 for watcher in watchers), "a watcher did not notice that the server died")
    for watcher in watchers:
        missing, twice = set(told) - set(watcher.cursors), len(watcher.cursors) - len(set(watcher.cursors))
        result.require(watcher.cursors == told, f"a watcher missed {len(missing)} events and saw {twice} twice")


def _caught_up(watcher: Watcher) -> float:
    """When it had everything that had happened before it was back."""
    back = watcher.joins[-1]
    return max([back, *(came for came, happened in watcher.times if happened <= back)])


async def _whole_story(stack: Embedded, deployment: Deployment, name: str) -> list[str]:
    """The cursors of the run's events, as one sees them who asks after its end."""
    async with watchers_of(deployment.api, [name]) as (watcher,):
        await watcher.watch()
    return watcher.cursors
