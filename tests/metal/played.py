"""A server behind the lying BMC, playing its part: it boots what the BMC was told, and its agent keeps the protocol.

Its disk is a file. What it fetches, it fetches over real HTTP from the real boot server; what it is told to boot it
reads from the BMC's state, once, as firmware does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import subprocess
import uuid
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.bootserver.agent_parts import DISK, Caller
from tests.drivers.bmc.server import LyingBmc

MAC = "52:54:00:00:00:01"
LOOK_SECONDS = 0.01


class Gone(Exception):
    """This boot of the agent has no business any more."""


@dataclass
class PlayedServer:
    """Runs until cancelled. What it does can be told before, and changed meanwhile."""

    bmc: LyingBmc
    dead: bool = False
    """Nothing it is told to boot ever comes up."""
    fails: dict[str, str] | None = None
    """The agent's error, in place of its work."""
    silent_after: str = ""
    """The phase after which the agent hangs."""
    hears_orders: bool = True
    half: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when half of the image is written."""
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """The agent stops at half of the image until this is set; it is, unless a test clears it."""
    boots: list[str] = field(default_factory=list)
    """What each power on booted: agent, live, disk, nothing."""
    live: bytes = b""
    """The medium, or the script, by which a live image was booted last."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The configurations that its agents got."""
    base: str = ""
    """Where DHCP sends it for a network boot."""
    disk: bytes = b""
    seed: bytes = b""
    consumes: bool = True
    """Its firmware takes the one-time override away once it is used; not all do."""
    mac: str = MAC
    """By which it boots from the network."""
    look_seconds: float = LOOK_SECONDS
    """Between two looks at its power."""
    report_seconds: float = LOOK_SECONDS
    """Between two of its agent's reports that say the same."""
    disk_said: dict[str, Any] = field(default_factory=lambda: dict(DISK))
    hardware: dict[str, Any] = field(default_factory=lambda: {"disks": [dict(DISK)]})
    """What its agent tells of the server itself."""

    def __post_init__(self) -> None:
        self.go_on.set()

    @property
    def on(self) -> bool:
        """Whether it has power."""
        with self.bmc.lock:
            return self.bmc.machine.power == "On"

    async def run(self) -> None:
        """Boot whenever power comes; whatever runs dies with the power."""
        while True:
            while not self.on:  # noqa: ASYNC110 - the power is the BMC's, in a thread
                await asyncio.sleep(self.look_seconds)
            resets, life = self._resets(), asyncio.create_task(self._boot())
            while self.on and self._resets() == resets:  # noqa: ASYNC110
                await asyncio.sleep(self.look_seconds)
            life.cancel()
            (ended,) = await asyncio.gather(life, return_exceptions=True)
            if isinstance(ended, Exception):
                raise ended

    def _resets(self) -> int:
        """How often the BMC switched it: an off and on between two looks must not be missed."""
        return self.bmc.acts().count("ComputerSystem.Reset")

    async def _boot(self) -> None:
        machine = self.bmc.machine
        while machine.in_post:  # noqa: ASYNC110 - the machine is the BMC's, in a thread
            await asyncio.sleep(self.look_seconds)
        with self.bmc.lock:
            target, image = machine.boots, machine.image
            if self.consumes:
                machine.has_booted()
        booted = b""
        if not self.dead and target == "Cd" and image:
            booted = await _fetched(image)
        elif not self.dead and target == "Pxe":
            booted = await _fetched(f"{self.base}?mac={self.mac}")
        url = _found(booted)
        if live := bool(booted) and not url and b"local disk" not in booted:
            self.live = booted
            for part in re.findall(rb"http://\S+/v1/boot/\S+?/(?:kernel|initrd)\b", booted):
                await _fetched(part.decode())
        self.boots.append("nothing" if self.dead else "agent" if url else "live" if live else "disk")
        if url:
            await self._agent(Caller(url, str(uuid.uuid4())))

    async def _agent(self, caller: Caller) -> None:
        status, body = await caller.get("configuration")
        if status != 200:
            self._off()
            return
        told = json.loads(body)
        self.asked.append(told)
        status, _ = await caller.post("reports", {"phase": "starting", "hardware": self.hardware})
        if status != 200:
            self._off()
            return
        if self.silent_after == "starting":
            return
        if self.fails is not None:
            await self._keep_saying(caller, "failed", error=self.fails)
            return
        try:
            result = await (self._deploy(caller, told) if told["kind"] == "deploy" else self._erase(caller, told))
        except Gone:
            self._off()
            return
        if result is not None:
            await self._keep_saying(caller, "waiting", result=result)

    async def _deploy(self, caller: Caller, told: dict[str, Any]) -> dict[str, Any] | None:
        status, why = await caller.post("permits", {"disk": self.disk_said, "what": "write"})
        if status != 204:
            await self._keep_saying(caller, "failed", error={"name": "REFUSED", "message": why.decode().strip()})
            return None
        size = told["image"]["bytes"]
        first = await _part(caller, f"bytes=0-{size // 2 - 1}")
        self.disk = first
        await self._report(caller, "writing", len(first), size)
        self.half.set()
        if self.silent_after == "writing":
            return None
        while not self.go_on.is_set():
            await self._report(caller, "writing", len(first), size)
            await asyncio.sleep(self.report_seconds)
        rest = await _part(caller, f"bytes={size // 2}-")
        self.disk = _disk(first + rest, told["image"]["compression"])
        digest = f"sha256:{hashlib.sha256(self.disk).hexdigest()}"
        assert digest == told["image"]["digest"]
        status, self.seed = await caller.get("seed")
        if status != 200:
            raise Gone
        wrote = {"written_bytes": len(self.disk), "digest": digest, "read_back": True}
        return {"disk": self.disk_said, "boot_entry": "Boot0007", **wrote}

    async def _erase(self, caller: Caller, told: dict[str, Any]) -> dict[str, Any]:
        status, _ = await caller.post("permits", {"disk": self.disk_said, "what": "erase"})
        if status != 204:
            raise Gone
        self.disk, self.seed = b"", b""
        done = {"disk": self.disk_said, "how": f"{told['erase']}: zeros", "read_back": "zeros"}
        return {"erase": told["erase"], "disks": [done]}

    async def _report(self, caller: Caller, phase: str, done: int, total: int) -> None:
        """Patiently, when the boot server is away; raises `Gone` when this boot has no business here."""
        try:
            status, _ = await caller.post("reports", {"phase": phase, "done": done, "total": total})
        except aiohttp.ClientConnectionError:
            return
        if status != 200:
            raise Gone

    async def _keep_saying(self, caller: Caller, phase: str, **said: Any) -> None:
        while True:
            try:
                status, body = await caller.post("reports", {"phase": phase, **said})
            except aiohttp.ClientConnectionError:
                status, body = 503, b""
            if status in {403, 404, 409, 410} or (b"power-off" in body and self.hears_orders):
                self._off()
                return
            await asyncio.sleep(self.report_seconds)

    def _off(self) -> None:
        with self.bmc.lock:
            self.bmc.machine.power = "Off"


async def _part(caller: Caller, part: str) -> bytes:
    """A part of the image; raises `Gone` when this boot gets none any more."""
    status, content = await caller.get("image", Range=part)
    if status != 206:
        raise Gone
    return content


def _disk(came: bytes, compression: str) -> bytes:
    """What the agent writes of what came."""
    if compression == "none":
        return came
    command = ["zstd", "--decompress", "--stdout", "--quiet"]
    return subprocess.run(command, input=came, capture_output=True, check=True).stdout


async def _fetched(url: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.read() if answer.status == 200 else b""


def _found(booted: bytes) -> str:
    """The URL on the kernel's command line, in a medium or a script; empty when there is none."""
    found = re.search(rb"mulligan\.url=(http://[^\s']+)", booted)
    return found.group(1).decode() if found else ""
