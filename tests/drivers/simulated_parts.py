"""What the tests of the simulated driver share: marks, seeds, a whole life, and a boot server that only listens."""

from __future__ import annotations

import io
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pycdlib
from aiohttp import web

from mulligan.activities.drivers.base import BaseImage, Deadline, Shape
from mulligan.activities.drivers.simulated import SimulatedDriver, open_simulated
from mulligan.activities.values import Firmware, ImageFormat, Mark, Resources, Target

BASE = BaseImage("sha256:" + "ab" * 32, Path("/nowhere"), ImageFormat.RAW, 1 << 30)
SHAPE = Shape(Resources(2, 2048, 20), Firmware.UEFI)


def soon(seconds: float = 20) -> Deadline:
    """Enough time for any single call."""
    return Deadline.after(seconds)


def target(query: str = "speed=0", host: str = "h1", **settings: str) -> Target:
    """A host of fleet `f` with this query in its address."""
    return Target(host, "default", f"simulated://f/{host}?{query}", settings)


async def opened(folder: Path, query: str = "", host: str = "h1", **settings: str) -> SimulatedDriver:
    """A host without delays."""
    return await open_simulated(target(f"speed=0&{query}" if query else "speed=0", host, **settings), folder)


def new_mark(fence: int = 1, machine_id: str | None = None) -> Mark:
    """A mark of a machine of its own, unless one is named."""
    return Mark("p", "m", machine_id or str(uuid.uuid4()), "run-1", fence)


def seed(url: str = "", token: str = "", hostname: str = "demo-1", instance: str = "i-1") -> bytes:
    """A NoCloud seed as Mulligan makes them; the same bytes whenever, and in whichever process, it is made."""
    lines = [f"instance-id: {instance}", f"local-hostname: {hostname}"]
    if url:
        lines += [f"mulligan_call_home_url: {url}", f"mulligan_call_home_token: {token}"]
    content = "\n".join([*lines, ""]).encode()
    disc, image = pycdlib.PyCdlib(), io.BytesIO()
    with patch("time.time", return_value=1e9):
        disc.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
        disc.add_fp(io.BytesIO(content), len(content), "/METADATA.;1", rr_name="meta-data", joliet_path="/meta-data")
        disc.write_fp(image)
    return image.getvalue()


async def made(driver: SimulatedDriver, mark: Mark, iso: bytes | None = None) -> None:
    """A machine ready to be powered on."""
    await driver.place_base(BASE, lambda *_: None, soon())
    await driver.create_disks(mark, BASE.digest, 20, iso or seed(), soon())
    await driver.define(mark, SHAPE, soon())


async def booted(driver: SimulatedDriver, mark: Mark, iso: bytes | None = None) -> None:
    """A machine that is on."""
    await made(driver, mark, iso)
    await driver.power_on(mark, soon())


async def unmade(driver: SimulatedDriver, mark: Mark) -> None:
    """The whole undo, in reverse."""
    await driver.power_off(mark, soon())
    await driver.undefine(mark, soon())
    await driver.remove_disks(mark, soon())


@dataclass
class Home:
    """A boot server's call-home door: what was said there, and with which status it answers, in turn (200 when out)."""

    url: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Keep the call with its token and peer."""
        said = await request.json()
        said |= {"token": request.headers["Authorization"], "peer": request.remote}
        self.calls.append(said)
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@asynccontextmanager
async def home_door() -> AsyncIterator[Home]:
    """A real HTTP server on loopback that guests can call."""
    home, app = Home(), web.Application()
    app.router.add_post("/call-home", home.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    home.url = f"http://127.0.0.1:{runner.addresses[0][1]}/call-home"
    try:
        yield home
    finally:
        await runner.cleanup()
