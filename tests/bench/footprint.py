"""What a stack costs that does nothing, and what each run leaves: memory, history, calls, bytes on disk."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import psutil

from mulligan.workflows.runs import provision_id
from tests.bench.embedded import PROJECT, Embedded, connected, running_stack
from tests.bench.observed import cpu_seconds, memory_mib
from tests.bench.results import Result
from tests.e2e.deployment import Deployment

_SETTLE_RUNS = 5


def measure(quick: bool) -> Result:
    """Run the benchmark."""
    result = Result("footprint", "none; these figures are stated, not compared")
    with tempfile.TemporaryDirectory() as directory, running_stack(Path(directory)) as deployment:
        assert deployment.process is not None
        pids = {"supervisor": deployment.process.pid, **deployment.state["children"]}
        asyncio.run(_measure(result, deployment, pids, runs=10 if quick else 100, idle=1.0 if quick else 10.0))
    return result


async def _measure(result: Result, deployment: Deployment, pids: dict[str, int], runs: int, idle: float) -> None:
    async with connected(deployment) as stack:
        await _idle(result, stack, pids, idle)
        for number in range(_SETTLE_RUNS):
            await stack.provision(f"settle-{number}")
        await _per_run(result, stack, pids, runs)


async def _idle(result: Result, stack: Embedded, pids: dict[str, int], seconds: float) -> None:
    """Before the first machine is made."""
    for name, pid in pids.items():
        result.add(f"idle: memory of {name}", memory_mib(pid), "MiB")
    result.add("idle: memory in all", sum(memory_mib(pid) for pid in pids.values()), "MiB")
    calls, cpu = await stack.calls.so_far(), cpu_seconds(pids)
    await asyncio.sleep(seconds)
    used = sum(cpu_seconds(pids).values()) - sum(cpu.values())
    result.add("idle: processor, of one core", 100 * used / seconds, "%")
    made = (await stack.calls.so_far() - calls).total()
    result.add("idle: calls to Temporal", made / seconds, "calls/s")


async def _per_run(result: Result, stack: Embedded, pids: dict[str, int], runs: int) -> None:
    memory, disk = {name: memory_mib(pid) for name, pid in pids.items()}, _disk(stack.state_dir)
    calls = await stack.calls.so_far()
    for number in range(runs):
        await stack.provision(f"run-{number}")
    made = await stack.calls.so_far() - calls
    events = await stack.history("run-0")
    described = await stack.client.get_workflow_handle(provision_id(PROJECT, "run-0")).describe()
    size = described.raw_description.workflow_execution_info.history_size_bytes
    result.add("a run: events in its history", len(events), "events")
    result.add("a run: its history", size / 1024, "KiB")
    result.require(len(events) == described.history_length, "the history was not read to its end")
    result.add("a run alone: calls to Temporal", made.total() / runs, "calls")
    for operation, count in made.most_common(6):
        result.add(f"  of it {operation}", count / runs, "calls")
    for name, before in _disk(stack.state_dir).items():
        result.add(f"a run: {name} on disk", (before - disk[name]) / runs / 1024, "KiB")
    for name, pid in pids.items():
        grown = 1024 * (memory_mib(pid) - memory[name]) / runs
        result.add(f"a run: memory that {name} keeps (caches warming included)", grown, "KiB")
    threads = ", ".join(f"{name} {psutil.Process(pid).num_threads()}" for name, pid in pids.items())
    result.notes.append(f"{runs} runs, one after the other; threads at the end: {threads}")


def _disk(state_dir: Path) -> dict[str, int]:
    """Bytes of the databases, write-ahead logs included."""
    groups = {"Temporal": "temporal.db*", "inventory and stories": "mulligan.sqlite*", "simulation": "drivers/*"}
    return {name: sum(file.stat().st_size for file in state_dir.glob(glob)) for name, glob in groups.items()}
