"""The real system libvirt, under pure emulation: a pool, a network and a driver for each suite.

Everything lives in a pool and a network of the run's own. The pool cannot lie under `tmp_path`, which pytest closes to
other users, because QEMU runs as another user: it is a temporary folder that only lets through.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import libvirt
import pytest

from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from mulligan.activities.drivers.libvirt.driver import LibvirtDriver, open_libvirt
from mulligan.activities.errors import Conflict
from mulligan.activities.values import Mark
from tests.drivers.contract import MarkFactory, soon
from tests.drivers.on_libvirt.host import NAME, RUN, SUBNET, target


@pytest.fixture(scope="module")
def connection() -> Iterator[libvirt.virConnect]:
    """A connection of the tests' own, to look and to plant things behind the driver's back."""
    ensure_daemons()
    found = libvirt.open("qemu:///system")
    yield found
    found.close()


@pytest.fixture(scope="module")
def pool(connection: libvirt.virConnect) -> Iterator[libvirt.virStoragePool]:
    """A pool of this run's own."""
    folder = Path(tempfile.mkdtemp(prefix=f"{NAME}-"))
    folder.chmod(0o711)
    made = connection.storagePoolCreateXML(
        f"<pool type='dir'><name>{NAME}</name><target><path>{folder}</path></target></pool>"
    )
    yield made
    made.destroy()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def network(connection: libvirt.virConnect) -> Iterator[libvirt.virNetwork]:
    """An isolated network with DHCP of this run's own."""
    made = connection.networkCreateXML(
        f"<network><name>{NAME}</name><bridge name='mt{RUN}'/><ip address='{SUBNET}.1' netmask='255.255.255.0'>"
        f"<dhcp><range start='{SUBNET}.2' end='{SUBNET}.99'/><bootp file='none'/></dhcp></ip></network>"
    )
    yield made
    made.destroy()


@pytest.fixture(scope="module")
async def driver(pool: libvirt.virStoragePool, network: libvirt.virNetwork) -> AsyncIterator[LibvirtDriver]:
    """The driver under test, open for the whole module."""
    opened = await open_libvirt(target(), soon())
    yield opened
    await opened.close()


@pytest.fixture
async def mark(driver: LibvirtDriver) -> AsyncIterator[MarkFactory]:
    """Marks of one machine; whatever carries them is removed at the end."""
    own, used = str(uuid.uuid4()), set()

    def make(fence: int = 1, machine_id: str | None = None) -> Mark:
        used.add(machine_id or own)
        return Mark("tests", f"m-{RUN}", machine_id or own, f"run-{fence}", fence)

    yield make
    for machine_id in used:
        last = Mark("tests", "m", machine_id, "cleaner", 1_000_000)
        with contextlib.suppress(Conflict):  # what a test planted is the test's to remove
            await driver.power_off(last, soon())
            await driver.undefine(last, soon())
            await driver.remove_disks(last, soon())
