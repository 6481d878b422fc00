"""`qemu-img`, held to limits, without this process's environment, and ended when its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import HostNotReady, Unreachable

Heard = Callable[[bytes], None]


async def qemu_img(
    verb: str, *words: str, limits: Sequence[str], deadline: Deadline, heard: Heard = lambda said: None
) -> tuple[int, bytes, str]:
    """Run it to its end: its exit status, its output (of which `heard` is told as it comes), and its complaint.

    `limits` are those of prlimit(1). Raises `HostNotReady` where one of the two is not installed, and `Unreachable`
    when the deadline passes.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *("prlimit", *limits, "qemu-img", verb, *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise _missing("prlimit", "util-linux") from error
    assert process.stdout is not None and process.stderr is not None
    try:
        async with asyncio.timeout(deadline.remaining):
            out, complaint = await asyncio.gather(_all_of(process.stdout, heard), process.stderr.read())
            code = await process.wait()
    except TimeoutError as error:
        raise Unreachable(f"qemu-img {verb} did not end within the time given; it will be tried again") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = complaint.decode(errors="replace").strip()
    if code == 127 or "failed to execute qemu-img" in said:
        raise _missing("qemu-img", "qemu-utils")
    return code, out, said


async def _all_of(stream: asyncio.StreamReader, heard: Heard) -> bytes:
    said = b""
    while piece := await stream.read(4096):
        heard(piece)
        said += piece
    return said


def _missing(program: str, package: str) -> HostNotReady:
    return HostNotReady(
        f"disk images are checked and converted with {program}, which is not installed on this host; install it",
        remedy=f"apt-get install --no-install-recommends {package}",
    )
