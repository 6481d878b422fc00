"""The storage pool that holds everything: bases, disks, seeds, console logs and NVRAM are all volumes of one directory.

One directory, seen through libvirt's storage API, is what makes a remote hypervisor the same as the local one.
"""

from __future__ import annotations

import contextlib
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import libvirt

from mulligan.activities.drivers.libvirt.faults import is_absent, translate
from mulligan.activities.errors import Busy, HostNotReady, Unsupported

DEFAULT = "default"
DEFAULT_PATH = "/var/lib/libvirt/images"
REFRESH_SECONDS = 3.0
_FILE_POOLS = ("dir", "fs", "netfs")


@dataclass(frozen=True, slots=True)
class Pool:
    """A started pool of files."""

    handle: libvirt.virStoragePool
    name: str
    path: str
    provider: str

    def names(self, prefix: str) -> list[str]:
        """The names of the volumes that start with `prefix`, as libvirt knows them now."""
        return sorted(name for name in self.handle.listVolumes() if name.startswith(prefix))

    def volume(self, name: str) -> libvirt.virStorageVol | None:
        """The volume, None where there is none of that name."""
        try:
            return self.handle.storageVolLookupByName(name)
        except libvirt.libvirtError as error:
            if is_absent(error):
                return None
            raise

    def refresh(self, *, must: bool = True) -> None:
        """Look at the directory anew. While a volume is made libvirt refuses: that is waited for a moment, then it is
        `Busy`; or nothing, at once, when not `must`.

        libvirt also does this by itself whenever an upload ends, and then forgets for a moment what others just make.
        So a volume counts as absent only after a look of our own.
        """
        until = time.monotonic() + (REFRESH_SECONDS if must else 0.0)
        while True:
            try:
                self.handle.refresh(0)
            except libvirt.libvirtError as error:
                said = translate(error, f"refreshing pool {self.name}", self.provider)
                if not isinstance(said, Busy) or (must and time.monotonic() > until):
                    raise said from error
                if not must:
                    return
                time.sleep(0.02)
            else:
                return

    def delete(self, name: str) -> None:
        """Delete a volume; one that is not there is success."""
        volume = self.volume(name)
        if volume is None:
            return
        try:
            volume.delete(0)
        except libvirt.libvirtError as error:
            if not is_absent(error):
                raise


def open_pool(connection: libvirt.virConnect, name: str, provider: str) -> Pool:
    """The pool by name, started; the pool `default` is made when it is missing."""
    try:
        handle = connection.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if not is_absent(error):
            raise
        if name != DEFAULT:
            remedy = f"virsh pool-define-as {name} dir --target /path && virsh pool-start {name}"
            raise HostNotReady(
                f"{provider}: there is no storage pool {name!r}; make it with `{remedy}`", remedy=remedy, pool=name
            ) from error
        handle = _make_default(connection)
    if not handle.isActive():
        _start(handle)
    root = ET.fromstring(handle.XMLDesc(0))  # noqa: S314 - libvirt wrote it
    if root.get("type") not in _FILE_POOLS:
        raise Unsupported(
            f"{provider}: pool {name!r} is of type {root.get('type')}; machines need one of {', '.join(_FILE_POOLS)}. "
            "Set the provider's setting `pool` to such a pool",
            pool=name,
        )
    return Pool(handle, name, root.findtext("target/path", DEFAULT_PATH), provider)


def _start(handle: libvirt.virStoragePool) -> None:
    try:
        handle.create(libvirt.VIR_STORAGE_POOL_CREATE_WITH_BUILD)
    except libvirt.libvirtError:
        if not handle.isActive():  # another run may have started it meanwhile
            raise


def _make_default(connection: libvirt.virConnect) -> libvirt.virStoragePool:
    pool = ET.Element("pool", type="dir")
    ET.SubElement(pool, "name").text = DEFAULT
    ET.SubElement(ET.SubElement(pool, "target"), "path").text = DEFAULT_PATH
    with contextlib.suppress(libvirt.libvirtError):  # another run may have made it meanwhile: the lookup decides
        connection.storagePoolDefineXML(ET.tostring(pool, "unicode"), 0)
    handle = connection.storagePoolLookupByName(DEFAULT)
    handle.setAutostart(1)
    return handle
