"""What virtual machines and image builds need of a host: libvirt and what it uses, and the builders' programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mulligan.activities.errors import HostNotReady
from mulligan.activities.images.build.host import PACKAGE_OF
from mulligan.api.processes.findings import Check, Finding, fine, looked, note, wrong

if TYPE_CHECKING:
    import libvirt

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_MEND = "mulligan doctor --mend"


def host_checks() -> Iterator[Check]:
    """The checks, in the order in which one would mend."""
    yield lambda: programs("qemu", {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"})
    yield firmware
    yield lambda: programs("image builds", {name: PACKAGE_OF[name] for name in sorted(PACKAGE_OF)})
    yield lambda: programs("ssh", {"ssh": "openssh-client", "ssh-keygen": "openssh-client"})
    yield kvm
    yield libvirt_answers
    yield network
    yield pool


def mend_host() -> list[str]:
    """Start libvirt's daemons and open /dev/kvm where needed; what was done, a line each. Raises `HostNotReady`."""
    return _daemons().ensure_daemons()


def programs(name: str, package_of: dict[str, str]) -> Finding:
    """Every program is installed."""
    asked = f"are {', '.join(package_of)} installed?"
    missing = [program for program in package_of if shutil.which(program, path=_PATH) is None]
    if not missing:
        return fine(name, asked, "they are")
    packages = " ".join(sorted({package_of[program] for program in missing}))
    remedy = f"sudo apt-get install --no-install-recommends {packages}"
    return wrong(name, asked, f"there is no {', '.join(missing)}", remedy)


def firmware() -> Finding:
    """UEFI firmware for guests is there; without it only BIOS boots."""
    asked = "is UEFI firmware for guests (OVMF) installed?"
    for folder in ("/usr/share/OVMF", "/usr/share/edk2/ovmf", "/usr/share/qemu"):
        if any(Path(folder).glob("OVMF_CODE*")):
            return fine("uefi", asked, folder)
    return wrong("uefi", asked, "it is not; guests could boot by BIOS only", "sudo apt-get install ovmf")


def kvm() -> Finding:
    """Hardware virtualisation, and the trap of a /dev/kvm that only root may open."""
    asked = "may QEMU open /dev/kvm?"
    if not Path("/dev/kvm").exists():
        return note("kvm", asked, "this host has no /dev/kvm; guests are emulated, which works and is slower")

    def look() -> str:
        if _daemons().kvm_is_closed():
            raise HostNotReady("only root may, so libvirt would probe QEMU anew for every machine", remedy=_MEND)
        return "it may (whether guests run under it is proved when a provider is registered)"

    return looked("kvm", asked, look)


def libvirt_answers() -> Finding:
    """libvirt's daemons answer."""

    def look() -> str:
        with closing(_connect()) as connection:
            number = connection.getLibVersion()
            return f"libvirt {number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

    return looked("libvirt", "does libvirt answer at qemu:///system?", look)


def network() -> Finding:
    """The network that guests are on."""

    def look() -> str:
        with closing(_connect()) as connection:
            _named(connection.listNetworks() + connection.listDefinedNetworks(), "network", "net")
            return "active" if "default" in connection.listNetworks() else "defined; started with the first machine"

    return looked("network", "is there libvirt's network `default`?", look)


def pool() -> Finding:
    """The pool that disks are in; made when it is missing."""

    def look() -> str:
        with closing(_connect()) as connection:
            names = connection.listStoragePools() + connection.listDefinedStoragePools()
            return "there is" if "default" in names else "not yet; made with the first machine"

    return looked("pool", "is there libvirt's storage pool `default`?", look)


def _named(names: list[str], what: str, verb: str) -> None:
    if "default" in names:
        return
    remedy = f"virsh {verb}-define /usr/share/libvirt/networks/default.xml"
    raise HostNotReady(f"libvirt has no {what} `default`; it has {', '.join(names) or 'none'}", remedy=remedy)


def _connect() -> libvirt.virConnect:
    _daemons()
    import libvirt  # noqa: PLC0415 - not installed for the simulation alone

    from mulligan.activities.drivers.libvirt.faults import quiet  # noqa: PLC0415

    quiet()
    try:
        return libvirt.open("qemu:///system")
    except libvirt.libvirtError as error:
        raise HostNotReady(f"libvirt does not answer at qemu:///system: {error}", remedy=_MEND) from error


class _Daemons:
    """The part of `drivers.libvirt.daemons` that is used here."""

    ensure_daemons: Callable[[], list[str]]
    kvm_is_closed: Callable[[], bool]


def _daemons() -> _Daemons:
    try:
        from mulligan.activities.drivers.libvirt import daemons  # noqa: PLC0415 - needs libvirt-python
    except ImportError as error:
        raise HostNotReady(
            f"the Python binding of libvirt is not installed ({error})", remedy="make venv, in the checkout"
        ) from error
    return daemons  # type: ignore[return-value]
