"""One child of the supervisor: started on the leash, watched, started again when it dies, and ended with patience."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mulligan.activities.errors import HostNotReady
from mulligan.activities.threads import run_blocking

LEASH = Path(__file__).with_name("leash.py")

_READY_POLL_SECONDS = 0.1
_BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SETTLE_SECONDS = 0.1
"""So long a child's end may be the first that is seen of a signal that ends the whole stack."""
_STEADY_SECONDS = 60.0
"""A child that ran so long before it died is started again at once."""
_FIRST_TRIES = 3
"""A child that dies so often before it was ever healthy cannot be started at all."""
_LOG_BYTES = 16 * 1024 * 1024
_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How a child is started and known to be healthy. `healthy` gets its pid and may block for seconds."""

    name: str
    command: tuple[str, ...]
    healthy: Callable[[int], bool]
    start_seconds: float = 60.0
    stop_seconds: float = 10.0


class Child:
    """Keeps one process running. `say` gets each thing that a person should know."""

    def __init__(self, spec: ChildSpec, log_dir: Path, say: Callable[[str], None], changed: Callable[[], None]) -> None:
        self.spec = spec
        self.log = log_dir / f"{spec.name}.log"
        self.healthy = asyncio.Event()
        self.pid = 0
        self._say = say
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._was_healthy = False
        self._failures = 0
        self._stopping = False

    def let_go(self) -> None:
        """Do not start it again, whatever ends it from now on."""
        self._stopping = True

    async def keep(self) -> None:
        """Run it until it is let go; raises `HostNotReady` when it dies again and again before it was ever healthy."""
        while True:
            began = time.monotonic()
            code = await self._run_once()
            if time.monotonic() - began > _STEADY_SECONDS:
                self._failures = 0
            self._failures += 1
            if not self._was_healthy and self._failures >= _FIRST_TRIES:
                raise self._hopeless(f"ended {_how(code)}, {_FIRST_TRIES} times")
            pause = _BACK_OFF_SECONDS[min(self._failures, len(_BACK_OFF_SECONDS)) - 1]
            await asyncio.sleep(_SETTLE_SECONDS)
            if self._stopping:
                return
            self._say(f"{self.spec.name} ended {_how(code)}; starting it again in {pause:g} s (log: {self.log})")
            await asyncio.sleep(pause)

    async def wait_healthy(self) -> None:
        """Wait until it is; raises `HostNotReady` when that takes longer than it may."""
        try:
            await asyncio.wait_for(self.healthy.wait(), self.spec.start_seconds)
        except TimeoutError:
            raise self._hopeless(f"is not healthy after {self.spec.start_seconds:g} s") from None

    async def stop(self, *, at_once: asyncio.Event) -> None:
        """Ask it to end, wait as long as it may take, then kill its group. `at_once` ends the patience."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._say(f"stopping {self.spec.name}: it may take up to {self.spec.stop_seconds:g} s for what it is doing")
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        ended = asyncio.ensure_future(process.wait())
        hurry = asyncio.ensure_future(at_once.wait())
        await asyncio.wait({ended, hurry}, timeout=self.spec.stop_seconds, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if not ended.done():
            self._say(f"{self.spec.name} did not end when asked to; killing it")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await ended

    async def _run_once(self) -> int:
        """Start it, watch until it is healthy, and wait for its end; gives its exit status."""
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        leash = (sys.executable, "-I", "-S", str(LEASH), str(os.getpid()))
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *leash, *self.spec.command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        self._process, self.pid = process, process.pid
        self._changed()
        watch = asyncio.create_task(self._watch_health(process.pid))
        try:
            return await process.wait()
        finally:
            watch.cancel()
            self.healthy.clear()
            self._changed()

    async def _watch_health(self, pid: int) -> None:
        while not await run_blocking(self.spec.healthy, pid):  # noqa: ASYNC110 - no event tells of another's health
            await asyncio.sleep(_READY_POLL_SECONDS)
        if self._was_healthy:
            self._say(f"{self.spec.name} is healthy again")
        self._was_healthy = True
        self.healthy.set()
        self._changed()

    def _hopeless(self, what: str) -> HostNotReady:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:] if self.log.exists() else []
        last = "\n  ".join(lines) or "(nothing)"
        return HostNotReady(
            f"the process `{self.spec.name}` {what}; its log says at the end:\n  {last}\n"
            "Mend what it names, then start again",
            remedy=f"less {shlex.quote(str(self.log))}",
            process=self.spec.name,
        )


def _how(code: int) -> str:
    if code >= 0:
        return f"with status {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"
