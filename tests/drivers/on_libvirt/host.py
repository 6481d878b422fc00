"""What the suites on the real libvirt share: names of this run's own, the way to the host, and an image."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from mulligan.activities.values import Target
from tests.drivers.contract import boot_sector_image

RUN = uuid.uuid4().hex[:8]
NAME = f"mulligan-test-{RUN}"
SUBNET = f"10.{201 + int(RUN[:2], 16) % 40}.{int(RUN[2:4], 16)}"


def target(**settings: str) -> Target:
    """The system libvirt with this run's pool and network."""
    return Target(NAME, "default", "qemu:///system", {"accelerator": "tcg", "pool": NAME, "network": NAME} | settings)


def dense_image(folder: Path) -> Any:
    """An image of 32 MiB without a hole, unlike any other."""
    image = boot_sector_image(folder, f"mulligan: {uuid.uuid4()}")
    with image.path.open("ab") as file:
        for number in range(31):
            file.write(bytes([number + 1]) * (1 << 20))
    return image
