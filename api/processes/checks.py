"""What the stack itself needs of a host, and whether it answers when it runs."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.api.config import Settings
from mulligan.api.processes.findings import Check, Finding, fine, looked, note, wrong
from mulligan.api.processes.health import api_answers, pollers
from mulligan.api.processes.listeners import fixed_addresses
from mulligan.api.processes.ports import problem
from mulligan.api.processes.stack import PARTITION
from mulligan.api.processes.stack_file import StackFile
from mulligan.api.processes.temporal_dev import namespace_answers, temporal_program

_FREE_BYTES = 4 << 30


def stack_checks(settings: Settings) -> Iterator[Check]:
    """The checks, in the order in which one would mend."""
    yield python
    yield lambda: state_dir(settings.state_dir)
    yield temporal
    holder = StackFile(settings.state_dir).holder()
    if holder is None:
        yield lambda: note("stack", "does the embedded stack run?", "it does not", "mulligan up --detach")
        for setting, address in _ports(settings):
            yield functools.partial(port, setting, address)
        return
    yield lambda: fine("stack", "does the embedded stack run?", f"it does, as process {holder}")
    yield lambda: temporal_answers(settings)
    yield lambda: api(settings)
    yield lambda: worker(settings)


def python() -> Finding:
    """The interpreter is new enough."""
    asked, found = "is Python 3.11 or newer?", f"Python {sys.version.split()[0]} at {sys.executable}"
    return fine("python", asked, found) if sys.version_info >= (3, 11) else wrong("python", asked, found)


def state_dir(path: Path) -> Finding:
    """The state directory can be written and has room."""
    asked = f"is {path} writable, with {_FREE_BYTES >> 30} GiB free?"
    there = next(each for each in (path, *path.parents) if each.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return wrong("state", asked, f"{there} is not writable for this user", f"sudo chown {os.getuid()} {there}")
    free = shutil.disk_usage(there).free
    found = f"{free / 2**30:.1f} GiB free"
    if free < _FREE_BYTES:
        return wrong("state", asked, found, f"make room in {there}, or set MULLIGAN_STATE_DIR")
    return fine("state", asked, found)


def temporal() -> Finding:
    """The Temporal program is there and runs."""

    def version() -> str:
        words = [str(temporal_program()), "--version"]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    return looked("temporal", "is Temporal's program installed?", version)


def port(setting: str, address: str) -> Finding:
    """Nobody else listens where the stack wants to."""
    asked, why = f"is {address} free ({setting})?", problem(address)
    if not why:
        return fine("port", asked, "it is")
    return wrong("port", asked, why, f"ss -ltnp 'sport = :{address.rpartition(':')[2]}'")


def temporal_answers(settings: Settings) -> Finding:
    """Temporal serves the namespace."""
    asked = f"does Temporal serve namespace {settings.namespace} at {settings.temporal}?"
    if namespace_answers(settings.temporal, settings.namespace):
        return fine("temporal up", asked, f"it does; Web UI at http://{settings.temporal_ui}")
    return wrong("temporal up", asked, "no answer", f"less {settings.state_dir}/logs/temporal.log")


def api(settings: Settings) -> Finding:
    """The API server says that it is serving."""
    asked = f"does the API answer at {settings.api}?"
    if api_answers(settings.api):
        return fine("api up", asked, "it does")
    return wrong("api up", asked, "no answer", f"less {settings.state_dir}/logs/server.log")


def worker(settings: Settings) -> Finding:
    """Somebody takes the work."""
    queues = (CONTROL_QUEUE, partition_queue(PARTITION))
    asked = f"do workers poll {' and '.join(queues)}?"
    polled = {queue: pollers(settings, queue) for queue in queues}
    idle = [queue for queue, who in polled.items() if not who]
    if idle:
        log = f"{settings.state_dir}/logs/worker.log"
        return wrong("worker up", asked, f"nobody polls {', '.join(idle)}", f"less {log}")
    return fine("worker up", asked, ", ".join(sorted({who for each in polled.values() for who in each})))


def _ports(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "MULLIGAN_API", settings.api
    yield "MULLIGAN_TEMPORAL", settings.temporal
    yield "MULLIGAN_TEMPORAL_UI", settings.temporal_ui
    for address in fixed_addresses(settings.boot_listen):
        yield "MULLIGAN_BOOT_LISTEN", address
