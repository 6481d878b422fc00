"""A BMC that speaks IPMI and lies, as the cases of the matrix know it: the process, its machine, and its log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.drivers.ipmi_parts import PASSWORD, SIZES
from tests.metal.ipmi_steps import LASTING


@dataclass(frozen=True)
class Asked:
    """One request to the chassis, as it arrived."""

    asks: str
    part: str
    at: float
    acted: bool = False
    already: bool = False
    refused: bool = False
    answered: bool = True

    @property
    def parts(self) -> frozenset[str]:
        """What was asked for or looked at."""
        return frozenset({self.part})


class Chassis:
    """The machine behind the BMC, as the server that plays its part sees it."""

    image = ""

    def __init__(self, bmc: LyingIpmi) -> None:
        self._bmc = bmc

    @property
    def power(self) -> str:
        """`On` or `Off`, in truth."""
        return "On" if self._bmc.state()["on"] else "Off"

    @power.setter
    def power(self, to: str) -> None:
        assert to == "Off"
        self._bmc.happens(off=True)

    @property
    def target(self) -> str:
        """What the next boot is from."""
        return {1: "Pxe", 2: "Hdd"}.get(self._bmc.state()["selector"], "None")

    @property
    def enabled(self) -> str:
        """Whether its boot is overridden."""
        return "Once" if self._bmc.state()["selector"] else "Disabled"

    @property
    def boots(self) -> str:
        """What its firmware boots next."""
        return self.target

    @property
    def in_post(self) -> bool:
        """Whether it tests itself."""
        return self.power == "On" and time.time() < self._bmc.state()["post"]


class LyingIpmi:
    """One BMC, in a process of its own."""

    def __init__(self, folder: Path, lie: str, steps: Sequence[str], *, lasts: bool, mac: str) -> None:
        self._folder = folder
        self._said = {"lie": lie, "steps": list(steps), "lasts": lasts and lie in LASTING, "folder": str(folder)}
        self.url = ""
        self.settings = {**SIZES, "macs": mac}
        self.machine = Chassis(self)
        self.lock = threading.RLock()
        self.healed = False
        self._process: subprocess.Popen[bytes]
        self._read: tuple[int, dict[str, Any]] = (0, {})
        """How long the state's file was, and its last line."""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[LyingIpmi]:
        """The process, until the end of the block."""
        self._folder.mkdir()
        command = (sys.executable, "-P", "-m", "tests.metal.ipmi_bmc")
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        nowhere = subprocess.DEVNULL
        self._process = subprocess.Popen(  # noqa: ASYNC220 - it is begun in a moment, and then spoken to by lines
            command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, env=environment
        )
        try:
            self._tell({**self._said, "password": PASSWORD})
            async with asyncio.timeout(60):
                while not self._listens():
                    assert self._process.poll() is None, "the BMC ended"
                    await asyncio.sleep(0.02)
            self.url = f"ipmi://127.0.0.1:{self.state()['port']}"
            yield self
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _tell(self, said: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        self._process.stdin.flush()

    def _listens(self) -> bool:
        state = self._folder / "state"
        return state.exists() and state.read_bytes().endswith(b"\n")

    def state(self) -> dict[str, Any]:
        """What is so: the last whole line. It is read again only where there are more."""
        with (self._folder / "state").open("rb") as file:
            if os.fstat(file.fileno()).st_size != self._read[0]:
                content = file.read()
                self._read = len(content), json.loads(content[: content.rindex(b"\n")].splitlines()[-1])
        return self._read[1]

    def happens(self, **said: bool) -> None:
        """Something happens beside the BMC; it knows of it afterwards."""
        with self.lock:
            before = self.state()["heard"]
            self._tell(said)
            until = time.monotonic() + 30
            while self.state()["heard"] == before:
                assert self._process.poll() is None and time.monotonic() < until, "the BMC does not hear"
                time.sleep(0.002)

    def acts(self) -> list[str]:
        """How often it was switched, in the words of the other BMC."""
        return ["ComputerSystem.Reset"] * self.state()["switched"]

    @property
    def lies_to_come(self) -> str:
        """The steps that were not reached."""
        return " and ".join(self.state()["steps"])

    @property
    def rest(self) -> tuple[str, str, str]:
        """The truth."""
        return self.machine.power, "", self.machine.enabled

    def requests(self) -> list[Asked]:
        """The log."""
        log = self._folder / "log"
        return [Asked(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []

    def open_sessions(self) -> int:
        """IPMI's sessions end by themselves; those of the driver end with its process, which its own tests see to."""
        return 0

    def releases(self) -> None:
        """What comes now is the release."""
        self.happens(release=True)

    def worked(self) -> None:
        """The deploy agent has done what it was booted for."""
        self.happens(worked=True)

    def heal(self) -> None:
        """Lie no more."""
        self.healed = True
        self.happens(heal=True)
