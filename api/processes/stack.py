"""The embedded stack: Temporal, the API server and one worker, for one state directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.api.config import Settings
from mulligan.api.processes.child import ChildSpec
from mulligan.api.processes.health import api_answers, worker_polls
from mulligan.api.processes.listeners import fixed_addresses
from mulligan.api.processes.ports import require_free
from mulligan.api.processes.stack_file import StackFile, StackState
from mulligan.api.processes.supervisor import Supervisor
from mulligan.api.processes.temporal_dev import EmbeddedTemporal, keep_closed_runs

PARTITION = "default"
"""The partition that the embedded worker serves."""

PROGRAM = (sys.executable, "-P", "-m", "mulligan.api.cli")
"""How a process of ours starts another one of ours."""

_QUEUES = (CONTROL_QUEUE, partition_queue(PARTITION))


def specs(settings: Settings) -> tuple[ChildSpec, ...]:
    """The children in the order in which they start."""
    embedded = EmbeddedTemporal(
        settings.temporal, settings.state_dir / "temporal.db", settings.temporal_ui, settings.namespace
    )

    def temporal_healthy(_pid: int) -> bool:
        try:
            keep_closed_runs(settings.temporal, settings.namespace)
        except grpc.RpcError:  # not yet: it is asked again
            return False
        return True

    return (
        ChildSpec("temporal", tuple(embedded.command()), temporal_healthy),
        ChildSpec("server", (*PROGRAM, "server"), lambda _pid: api_answers(settings.api)),
        ChildSpec(
            "worker",
            (*PROGRAM, "worker", "--control", "--partition", PARTITION),
            lambda pid: worker_polls(settings, pid, _QUEUES),
            stop_seconds=30.0,
        ),
    )


def require_ports(settings: Settings) -> None:
    """Raise `HostNotReady`, naming the setting, when something listens already where the stack wants to."""
    require_free("MULLIGAN_TEMPORAL", settings.temporal, "the embedded Temporal")
    require_free("MULLIGAN_TEMPORAL_UI", settings.temporal_ui, "Temporal's Web UI")
    require_free("MULLIGAN_API", settings.api, "the API server")
    for address in fixed_addresses(settings.boot_listen):
        require_free("MULLIGAN_BOOT_LISTEN", address, "the boot server")


async def run_stack(
    settings: Settings, *, say: Callable[[str], None], when_healthy: Callable[[], Awaitable[None]]
) -> None:
    """Run the stack in the foreground until a signal stops it; everything that lasts is in the state directory.

    Raises `Conflict` when the stack of this directory runs already, `HostNotReady` for a port that is taken or a
    process that cannot be started.
    """
    file = StackFile(settings.state_dir)
    with file.held():
        require_ports(settings)

        def publish(supervisor: Supervisor) -> None:
            file.write(_state(settings, supervisor))

        log_dir: Path = settings.state_dir / "logs"
        await Supervisor(specs(settings), log_dir, say=say, on_change=publish).run(when_healthy)


def _state(settings: Settings, supervisor: Supervisor) -> StackState:
    return StackState(
        pid=os.getpid(),
        healthy=supervisor.healthy,
        api=settings.api,
        ui=f"http://{settings.temporal_ui}",
        boot=", ".join(f"http://{address}" for address in fixed_addresses(settings.boot_listen)),
        children={child.spec.name: child.pid for child in supervisor.children},
    )
