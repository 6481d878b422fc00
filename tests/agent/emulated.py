"""A machine under pure emulation that the agent's image is booted on, and what it says on its serial consoles."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

BOOT_SECONDS = 240
"""Far more than any boot needs, for hosts that are busy."""
OVMF = Path("/usr/share/OVMF")
BIOS = ("-machine", "q35")


def secure_boot(folder: Path) -> tuple[str, ...]:
    """UEFI with Microsoft's keys enrolled, which refuses whatever is not signed."""
    shutil.copy(OVMF / "OVMF_VARS_4M.ms.fd", folder / "vars.fd")
    code = f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.secboot.fd'}"
    variables = f"if=pflash,format=raw,file={folder / 'vars.fd'}"
    locked = ("-global", "driver=cfi.pflash01,property=secure,value=on")
    return ("-machine", "q35,smm=on", *locked, "-drive", code, "-drive", variables)


def stopped(folder: Path) -> tuple[str, ...]:
    """A machine that waits until `plugged` lets it go on."""
    return ("-S", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off")


async def plugged(folder: Path, *unplugged: str) -> None:
    """Let the machine go on, with no cable in these network cards (by the id of their `-netdev`)."""
    async with asyncio.timeout(BOOT_SECONDS):
        while not (folder / "qmp").exists():  # noqa: ASYNC110 - QEMU makes it
            await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_unix_connection(folder / "qmp")
    links = [{"execute": "set_link", "arguments": {"name": name, "up": False}} for name in unplugged]
    for command in ({"execute": "qmp_capabilities"}, *links, {"execute": "cont"}):
        writer.write(json.dumps(command).encode() + b"\n")
        while "return" not in (answer := json.loads(await reader.readline())):
            assert "error" not in answer, answer
    writer.close()
    await writer.wait_closed()


class Machine:
    """A running QEMU."""

    def __init__(self, process: asyncio.subprocess.Process, console: Path) -> None:
        self.process = process
        self.console = console

    def said(self) -> str:
        """All that came out of the first serial port."""
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    async def says(self, words: str) -> str:
        """Wait until a line with these words is complete; returns all that was said."""
        try:
            async with asyncio.timeout(BOOT_SECONDS):
                while not any(words in line for line in self.said().split("\n")[:-1]):
                    assert self.process.returncode is None, f"QEMU ended: {self.said()[-2000:]}"
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"no {words!r} within {BOOT_SECONDS} s; the console's end: {self.said()[-2000:]}")
        return self.said()


@asynccontextmanager
async def booted(folder: Path, *options: str | Path) -> AsyncIterator[Machine]:
    """QEMU with these options, without a network that leads anywhere; ended with the block."""
    console = folder / "console.log"
    process = await asyncio.create_subprocess_exec(
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-display", "none", "-no-reboot"),
        *("-serial", f"file:{console}", "-monitor", "none", *map(str, options)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield Machine(process, console)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
