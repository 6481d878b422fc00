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

from tests.drivers.ipmi_parts import PASSWORD, SIZES, answers, free_udp_port
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
    def in_post(self) -> bool:
        """Whether it tests itself."""
        return self.power == "On" and time.time() < self._bmc.state()["post"]


class LyingIpmi:
    """One BMC, in a process of its own."""

    def __init__(self, folder: Path, lie: str, steps: Sequence[str], *, lasts: bool, mac: str) -> None:
        self._folder = folder
        self._said = {"lie": lie, "steps": list(steps), "lasts": lasts and lie in LASTING, "folder": str(folder)}
        self.port = free_udp_port()
        self.url = f"ipmi://127.0.0.1:{self.port}"
        self.settings = {**SIZES, "macs": mac}
        self.machine = Chassis(self)
        self.lock = threading.RLock()
        self.healed = False
        self._process: subprocess.Popen[bytes]

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
            self._tell({**self._said, "port": self.port, "password": PASSWORD})
            async with asyncio.timeout(60):
                while not await asyncio.to_thread(answers, self.port):
                    assert self._process.poll() is None, "the BMC ended"
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

    def state(self) -> dict[str, Any]:
        """What is so."""
        return dict(json.loads((self._folder / "state").read_text()))

    def happens(self, **said: bool) -> None:
        """Something happens to the machine by itself."""
        self._tell(said)

    def acts(self) -> list[str]:
        """How often it was switched, in the words of the other BMC."""
        return ["ComputerSystem.Reset"] * self.state()["switched"]

    @property
    def lies_to_come(self) -> str:
        """The steps that were not reached."""
        return "" if self.healed else " and ".join(self.state()["steps"])

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

    def heal(self) -> None:
        """Lie no more."""
        self.healed = True
        self.happens(heal=True)
