"""What the tests of BMC drivers share: marks, targets, and a driver opened on the lying BMC."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.values import Mark, Target
from tests.drivers.bmc.server import PASSWORD, USER, LyingBmc


def a_mark(fence: int = 1, machine_id: str = "m-1") -> Mark:
    """A machine's mark, with a run of its own for each fence."""
    return Mark("tests", "web-1", machine_id, f"run-{fence}", fence)


def credentials_in(folder: Path, password: str = PASSWORD) -> Path:
    """A file with the credential `rack`."""
    path = folder / f"credentials-{uuid.uuid4().hex[:6]}.yaml"
    path.touch(0o600)
    path.write_text(f'rack:\n  username: "{USER}"\n  password: "{password}"\n')
    return path


def a_target(bmc: LyingBmc, path: str = "/redfish/v1/Systems/1", **settings: str) -> Target:
    """The BMC's system as a provider."""
    return Target("srv-1", "default", bmc.url + path, settings, "rack")


@asynccontextmanager
async def opened(
    bmc: LyingBmc, folder: Path, target: Target | None = None, kept: Kept | None = None
) -> AsyncIterator[Any]:
    """A driver, closed at the end of the block."""
    credentials = credentials_in(folder)
    driver = await open_driver(target or a_target(bmc), state_dir=folder, credentials=credentials, kept=kept)
    try:
        yield driver
    finally:
        await driver.close()
