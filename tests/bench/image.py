"""How long it takes to bring an image to a hypervisor, beside the tools that do one stage of it each."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.hypervisor import URL, Hypervisor, this_host
from tests.bench.prepare import Preparer, preparer
from tests.bench.results import Reach, Result

FLOOR = (
    "the slowest of the stages, each by the tool for it, alone: `curl | sha256sum` of the compressed image, `zstd -d`, "
    "`qemu-img convert` into the pool's directory; no tool waits for the disk, and Mulligan does before it believes. "
    "`waited for`: the slowest by a tool and `sync` of what it wrote. Each begins with nothing left to be written out"
)
MIB = 1 << 20
BLOCK = 64 << 10
ZEROS, NOISE = 0.3, 0.25
"""Shares of blocks that are holes, and that cannot be compressed; the rest is text."""
ROUNDS = 3
_COMMAND_SECONDS = 600
_MEMORY = 64
_SERVER = "import sys; from tests.bench.image import serve_files; serve_files(sys.argv[1], int(sys.argv[2]))"


def measure(quick: bool) -> Result:
    """Run the benchmark."""
    result = Result("image", FLOOR)
    sizes = (16, 64) if quick else (256, 2048)
    with tempfile.TemporaryDirectory() as folder, this_host() as hypervisor:
        directory = Path(folder)
        with serving(directory) as url, preparer(directory / "store") as prepare:
            warm = make_image(directory, 4, seed=0)
            prepare.ask(url=f"{url}/{warm[0].name}", digest=warm[1], **_where(hypervisor))
            above = {}
            for size in sizes:
                rounds = 1 if quick else ROUNDS
                above[size] = _size(result, hypervisor, prepare, url, directory, size, rounds)
        for size, mib in above.items():
            result.add(f"memory above rest, {size} MiB", mib, "MiB", above[sizes[0]], Reach(_MEMORY))
    return result


def _size(
    result: Result, hypervisor: Hypervisor, prepare: Preparer, url: str, directory: Path, size: int, rounds: int
) -> float:
    """Measure one size; the most memory that it took, in MiB."""
    ours: list[dict[str, Any]] = []
    stages: dict[str, list[float]] = {}
    waited: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}
    for number in range(rounds):
        packed, digest = make_image(directory, size, seed=1000 * size + number)
        asked = {"url": f"{url}/{packed.name}", "digest": digest, **_where(hypervisor)}
        for name, command in _commands(asked["url"], packed, directory, hypervisor).items():
            os.sync()  # what others have left to be written out would be waited for here
            seconds, used = _seconds(command)
            stages.setdefault(name, []).append(seconds)
            processor.setdefault(name, []).append(used)
            waited.setdefault(name, []).append(seconds + _sync(directory, hypervisor))
        os.sync()
        ours.append(prepare.ask(**asked))
        again = prepare.ask(**asked)
        result.require(again["moved"] == 0, f"a second machine of the same image moved {again['moved']} bytes")
        whole = _whole(hypervisor, digest)
        unpacked = directory / "stage.raw"
        result.require(whole is not None and _same(whole, unpacked), f"the base of {size} MiB is not the image's disk")
        for file in (packed, unpacked, hypervisor.folder / "stage.qcow2"):
            file.unlink()
    slowest = max(map(median, stages.values()))
    result.add(
        f"from source to pool, {size} MiB", median(one["seconds"] for one in ours), "s", slowest, Reach(1.15, "ratio")
    )
    slowest = max(map(median, waited.values()))
    result.add(f"  waited for, {size} MiB", median(one["seconds"] for one in ours), "s", slowest)
    for name, each in stages.items():
        result.add(f"  {name}, {size} MiB", median(each), "s")
    of_tools = sum(median(used) for used in processor.values())
    result.add(f"  processor time, of all tools, {size} MiB", median(one["processor"] for one in ours), "s", of_tools)
    told = ", ".join(f"{name} {seconds:.2g} s" for name, seconds in ours[-1]["stages"].items())
    result.notes.append(
        f"{size} MiB: what was last said of each stage, and when, in the last of {rounds} rounds: {told}"
    )
    return float(max(one["above_mib"] for one in ours))


def _where(hypervisor: Hypervisor) -> dict[str, str]:
    return {"name": "bench", "uri": URL, "pool": hypervisor.name}


def _commands(url: str, packed: Path, directory: Path, hypervisor: Hypervisor) -> dict[str, str]:
    unpacked, placed = shlex.quote(str(directory / "stage.raw")), hypervisor.folder / "stage.qcow2"
    return {
        "curl to sha256sum": f"curl --silent --fail {url} | sha256sum",
        "zstd -d": f"zstd --decompress --quiet --force {shlex.quote(str(packed))} -o {unpacked}",
        "qemu-img convert": f"qemu-img convert -f raw -O qcow2 {unpacked} {placed}",
    }


def _seconds(command: str) -> tuple[float, float]:
    """How long a command takes, and how much processor time."""
    began, used = time.perf_counter(), _of_children()
    subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL, timeout=_COMMAND_SECONDS)
    return time.perf_counter() - began, _of_children() - used


def _sync(directory: Path, hypervisor: Hypervisor) -> float:
    """How long it takes until what the tools wrote is on the disk; nothing to do where it is already."""
    files = [file for file in (directory / "stage.raw", hypervisor.folder / "stage.qcow2") if file.exists()]
    return _seconds(shlex.join(["sync", *map(str, files)]))[0] if files else 0.0


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _whole(hypervisor: Hypervisor, digest: str) -> Path | None:
    """The base in the pool's directory, as the driver names what is whole."""
    names = {file.name for file in hypervisor.folder.iterdir()}
    found = [name for name in names if digest.partition(":")[2][:32] in name and f"{name}.whole" in names]
    return hypervisor.folder / found[0] if found else None


def _same(one: Path, other: Path) -> bool:
    return subprocess.run(["cmp", "--silent", one, other], check=False, timeout=_COMMAND_SECONDS).returncode == 0


def make_image(directory: Path, mib: int, seed: int) -> tuple[Path, str]:
    """A disk with holes, text and noise in it, compressed by zstd; and the digest of that."""
    chance = random.Random(seed)
    words = [chance.randbytes(3).hex().encode() for _ in range(4096)]
    text = b" ".join(chance.choices(words, k=200_000))
    disk, packed = directory / "disk.raw", directory / f"disk-{seed}.raw.zst"
    with disk.open("wb") as file:
        for _ in range(mib * MIB // BLOCK):
            kind = chance.random()
            if kind < ZEROS:
                file.seek(BLOCK, os.SEEK_CUR)
            elif kind < ZEROS + NOISE:
                file.write(chance.randbytes(BLOCK))
            else:
                start = chance.randrange(len(text) - BLOCK)
                file.write(text[start : start + BLOCK])
        file.truncate(mib * MIB)
    subprocess.run(["zstd", "--quiet", disk, "-o", packed], check=True, timeout=_COMMAND_SECONDS)
    disk.unlink()
    with packed.open("rb") as file:
        return packed, f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """A file server in a process of its own; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        program = [sys.executable, "-c", _SERVER, str(directory), str(listener.fileno())]
        command = ["setpriv", "--pdeathsig", "KILL", *program]
        with subprocess.Popen(command, pass_fds=[listener.fileno()], cwd=Path(__file__).parents[2]) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.kill()


def serve_files(directory: str, fd: int) -> None:
    """Serve a directory on a listening socket, by the kernel's own copying."""
    from aiohttp import web  # noqa: PLC0415 - only the server needs it

    app = web.Application()
    app.router.add_static("/", directory)
    web.run_app(app, sock=socket.socket(fileno=fd), print=None)
