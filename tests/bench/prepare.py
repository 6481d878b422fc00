"""The image step by itself, in a process of its own: the product's store and libvirt driver, and what they use.

Reads one JSON object a line, `{"url", "digest", "name", "uri", "pool", "network"}`, and answers one: seconds, processor
seconds, bytes moved, and the most memory it had beyond what it had at rest.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.libvirt.driver import open_libvirt
from mulligan.activities.images.store import ImageStore
from mulligan.activities.values import Compression, Image, ImageFormat, Target

_DEADLINE_SECONDS = 600.0
_RESET_PEAK = "5"
"""See proc(5), clear_refs."""


def status_kib(field: str) -> int:
    """A field of this process's status, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(f"/proc/self/status has no {field}")


def at_rest_kib() -> int:
    """This process's resident memory in KiB now, from where its peak is counted anew."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    return status_kib("VmRSS")


async def prepare(store: ImageStore, asked: dict[str, str]) -> dict[str, Any]:
    """Do what the activity does: nothing where the provider has the image, else fetch, check and place it."""
    image = Image(asked["name"], asked["url"], asked["digest"], ImageFormat.RAW, Compression.ZSTD)
    target = Target("bench", "default", asked["uri"], {"accelerator": "tcg", "pool": asked["pool"]})
    moved: dict[str, int] = {}
    stages: dict[str, float] = {}
    began, used = time.perf_counter(), time.process_time()

    def progress(message: str, done: int, _total: int) -> None:
        moved[message] = max(moved.get(message, 0), done)
        stages[message] = round(time.perf_counter() - began, 3)

    rest, deadline = at_rest_kib(), Deadline.after(_DEADLINE_SECONDS)
    driver = await open_libvirt(target, deadline)
    try:
        if not await driver.has_base(image.digest, deadline):
            base = await store.ensure(image, progress, deadline)
            await driver.place_base(base, progress, deadline)
    finally:
        await driver.close()
    seconds = time.perf_counter() - began
    above = (status_kib("VmHWM") - rest) / 1024
    used = time.process_time() - used
    return {"seconds": seconds, "processor": used, "moved": sum(moved.values()), "above_mib": above, "stages": stages}


async def serve(directory: Path) -> None:
    """Answer until the input ends."""
    store = ImageStore(directory)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await prepare(store, json.loads(line))), flush=True)


class Preparer:
    """The process, seen from outside."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, **asked: str) -> dict[str, Any]:
        """Prepare an image; what that took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def preparer(directory: Path) -> Iterator[Preparer]:
    """Run it, with its image store in that directory."""
    program = [sys.executable, "-c", "from tests.bench.prepare import main; main()", str(directory)]
    pipe, root = subprocess.PIPE, Path(__file__).parents[2]
    command = ["setpriv", "--pdeathsig", "KILL", *program]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield Preparer(process)
        finally:
            process.kill()


def main() -> None:
    """The process: its argument is the store's directory."""
    asyncio.run(serve(Path(sys.argv[1])))
