"""The floor of watching: a bare gRPC server, in a process of its own, that sends as many watchers the same events."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from mulligan.v1 import provisioning_pb2 as pb
from mulligan.v1 import provisioning_pb2_grpc, run_pb2

BURSTS = 6
EVENTS_A_BURST = 2
"""In a run an action's end and the next one's start come together."""
_PAUSE_SECONDS = 0.3


class Fanout(provisioning_pb2_grpc.ProvisioningServiceServicer):
    """Sends bursts of events once so many watch."""

    def __init__(self, watchers: int) -> None:
        self._missing = watchers
        self._log: list[run_pb2.RunEvent] = []
        self._ended = False
        self._changed = asyncio.Event()
        self._complete = asyncio.Event()

    async def WatchRun(  # noqa: N802 - the protocol's name
        self, request: pb.WatchRunRequest, context: Any
    ) -> AsyncIterator[pb.WatchRunResponse]:
        """Every event, as it comes."""
        yield pb.WatchRunResponse(update=run_pb2.RunUpdate(run=run_pb2.Run(workflow_id=request.workflow_id)))
        self._missing -= 1
        if self._missing == 0:
            self._complete.set()
        position = 0
        while True:
            changed = self._changed
            for event in self._log[position:]:
                yield pb.WatchRunResponse(update=run_pb2.RunUpdate(event=event))
            position = len(self._log)
            if self._ended:
                return
            await changed.wait()

    async def send(self) -> None:
        """Wait for the watchers, then send."""
        await self._complete.wait()
        for burst in range(BURSTS):
            await asyncio.sleep(_PAUSE_SECONDS)
            for number in range(EVENTS_A_BURST):
                event = run_pb2.RunEvent(cursor=f"{burst}.{number}", step="boot", action="boot", message="x" * 40)
                event.at.GetCurrentTime()
                self._log.append(event)
            self._ended = burst == BURSTS - 1
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


async def serve(watchers: int) -> None:
    """Serve on a free port, which is printed, until everything was sent."""
    fanout = Fanout(watchers)  # type: ignore[abstract]  # the other methods answer that they are not there
    server = grpc.aio.server()
    provisioning_pb2_grpc.add_ProvisioningServiceServicer_to_server(fanout, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await fanout.send()
    await server.stop(grace=30)


def main() -> None:
    """The floor's server: its argument is the number of watchers."""
    asyncio.run(serve(int(sys.argv[1])))


@contextmanager
def fanout_server(watchers: int) -> Iterator[str]:
    """Run the server; gives its address."""
    program = [sys.executable, "-c", "from tests.bench.fanout import main; main()", str(watchers)]
    command = ["setpriv", "--pdeathsig", "KILL", *program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
