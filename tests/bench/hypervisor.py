"""This host's libvirt for a benchmark: a pool and a network of its own, and nothing left in either at the end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import libvirt

from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from mulligan.activities.drivers.libvirt.faults import quiet

URL = "qemu:///system"


@dataclass(frozen=True, slots=True)
class Hypervisor:
    """The connection, and the name that both pool and network have."""

    connection: libvirt.virConnect
    name: str
    folder: Path
    """The pool's directory."""
    gateway: str
    """This host's address in the network."""

    @property
    def pool(self) -> libvirt.virStoragePool:
        """The pool, looked at anew."""
        found = self.connection.storagePoolLookupByName(self.name)
        found.refresh()
        return found

    def domains(self) -> list[libvirt.virDomain]:
        """The domains whose disks are in the pool."""
        found = []
        for domain in self.connection.listAllDomains():
            with contextlib.suppress(libvirt.libvirtError):  # another's, and gone meanwhile
                if self.name in domain.XMLDesc():
                    found.append(domain)
        return found


@contextmanager
def this_host() -> Iterator[Hypervisor]:
    """Make pool and network, and take away whatever is in them afterwards.

    The pool cannot lie in a closed directory, because QEMU runs as another user.
    """
    quiet()
    ensure_daemons()
    run = uuid.uuid4().hex[:8]
    name, gateway = f"mulligan-bench-{run}", f"10.{180 + int(run[:2], 16) % 20}.{int(run[2:4], 16)}"
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    folder.chmod(0o711)
    connection = libvirt.open(URL)
    pool = connection.storagePoolCreateXML(
        f"<pool type='dir'><name>{name}</name><target><path>{folder}</path></target></pool>"
    )
    network = connection.networkCreateXML(
        f"<network><name>{name}</name><bridge name='mb{run}'/><ip address='{gateway}.1' netmask='255.255.255.0'>"
        f"<dhcp><range start='{gateway}.2' end='{gateway}.250'/></dhcp></ip></network>"
    )
    hypervisor = Hypervisor(connection, name, folder, f"{gateway}.1")
    try:
        yield hypervisor
    finally:
        for domain in hypervisor.domains():
            with contextlib.suppress(libvirt.libvirtError):  # it may have ended meanwhile
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)
        network.destroy()
        pool.destroy()
        connection.close()
        shutil.rmtree(folder)
