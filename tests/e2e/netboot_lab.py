"""Networks whose DHCP is an example of docs/bare-metal.md, and servers that boot from the network by each firmware.

The examples are taken from the guide as they stand there, with other addresses, names and folders. The firmware is
Debian's: OVMF, whose own clients do PXE and HTTP boot, and SeaBIOS. On a BIOS, QEMU's network boot is iPXE itself. So
that DHCP takes it for firmware, it is started here as a kernel, with a script that does not say that it is iPXE.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.metal_lab import BIOS, UEFI, Network, Rack, guide_blocks
from tests.services.stack import until
from tests.services.temporal import free_port

LOADERS = Path("/usr/lib/ipxe")
FILES = ("undionly.kpxe", "snponly.efi", "ipxe.lkrn")
LKRN_SCRIPT = """#!ipxe
set user-class firmware
dhcp && clear user-class && chain tftp://${next-server}/${filename}
"""

_FIRMWARE_SETTINGS = "<sysinfo type='fwcfg'>{entries}</sysinfo>"
_SETTING = "<entry name='opt/org.tianocore/{name}'>n</entry>"
_NO_ROM = "<rom enabled='no'/>"


@dataclass(frozen=True)
class Way:
    """How a server's firmware boots from the network."""

    name: str
    says: tuple[str, ...]
    """What it writes to its serial line before it comes to the boot server, in this order."""
    goes_on: str = "Linux version"
    """What it writes when it was sent on to its disk: what is there has begun."""


BIOS_PXE = Way("bios", ("/undionly.kpxe... ok", "using undi"))
UEFI_PXE = Way("uefi", ("NBP filename is snponly.efi", "NBP file downloaded successfully", "using SNP"))
UEFI_HTTP = Way("http", ("Start HTTP Boot over IPv4", "/snponly.efi", "using SNP"))
UEFI_CARD = Way("card", ("using virtio-",), "Start PXE over IPv4")
"""From a network card that has iPXE built in. The firmware goes on to its own network clients before the disk, and its
HTTP client waits for more than a minute; the test does not."""


def kind_of(way: Way, rack: Rack) -> dict[str, str]:
    """What a server's definition says for it to boot so."""
    if way is BIOS_PXE:
        folder = loaders(rack)
        kernel = f"<kernel>{folder}/ipxe.lkrn</kernel><initrd>{folder}/script</initrd><bios useserial='yes'/>"
        return {**BIOS, "features": kernel, "rom": _NO_ROM}
    off = ["IPv6PXESupport", *(["IPv4PXESupport"] if way is UEFI_HTTP else [])]
    told = _FIRMWARE_SETTINGS.format(entries="".join(_SETTING.format(name=name) for name in off))
    return {**UEFI, "told": told, "rom": "" if way is UEFI_CARD else _NO_ROM}


def loaders(rack: Rack) -> Path:
    """The folder from which iPXE is served."""
    folder = rack.folder / "loaders"
    if not folder.is_dir():
        folder.mkdir(mode=0o755)
        for name in FILES:
            shutil.copy(LOADERS / name, folder)
        (folder / "script").write_text(LKRN_SCRIPT)
    return folder


def _here(told: str, network: Network, rack: Rack, web: int) -> str:
    """An example with this network's addresses, and the folder and web server from which iPXE is served."""
    there = {"/srv/tftp": str(loaders(rack)), "http://10.0.0.1/": f"http://10.0.0.1:{web}/"}
    for what, instead in there.items():
        assert what in told
        told = told.replace(what, instead)
    return network.here(told)


@contextlib.contextmanager
def _web(rack: Rack, network: Network, port: int) -> Iterator[None]:
    """A web server for HTTP boot, of the standard library."""
    address = (f"{network.subnet}.1", port)
    asked = [sys.executable, "-m", "http.server", str(port), "--bind", address[0], "--directory", str(loaders(rack))]
    with _running(asked, rack.folder / f"web-{network.number}", "Serving HTTP on"):
        yield


@contextlib.contextmanager
def _running(asked: list[str], log: Path, started: str) -> Iterator[None]:
    """A server, from when it has said so until the end of the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(asked, stdout=out, stderr=out, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        until(lambda: started in log.read_text() or process.poll() is not None, what=f"the start of {asked[0]}")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def by_dnsmasq(rack: Rack) -> Iterator[Network]:
    """A bridge, on which a dnsmasq serves what the guide's ini blocks say."""
    network, port = Network(1, rack.network.boot_port), free_port()
    folder = rack.folder / "dnsmasq"
    folder.mkdir(mode=0o700)
    (folder / "conf").write_text(_here("".join(guide_blocks("ini")), network, rack, port))
    asked = ["dnsmasq", "--keep-in-foreground", f"--conf-file={folder}/conf", f"--interface={network.bridge}",
             "--bind-interfaces", "--except-interface=lo", "--port=0", f"--dhcp-leasefile={folder}/leases",
             "--log-facility=-", "--user=root", "--enable-ra", f"--dhcp-range={network.prefix}::,ra-only"]  # fmt: skip
    made = rack.connection.networkCreateXML(network.definition("").replace("<ip ", "<dns enable='no'/><ip ", 1))
    try:
        with _web(rack, network, port), _running(asked, folder / "log", "router advertisement on"):
            yield network
    finally:
        made.destroy()


@contextlib.contextmanager
def by_libvirt(rack: Rack) -> Iterator[Network]:
    """The network that the guide defines for libvirt as a whole."""
    network, port = Network(2, rack.network.boot_port), free_port()
    told = guide_blocks("xml")[1].replace("<name>servers</name>", f"<name>{network.name}</name>")
    told = told.replace("<bridge name='servers'/>", f"<bridge name='{network.bridge}'/>")
    told = told.replace("</ip>", f"</ip>{network.router}")
    made = rack.connection.networkCreateXML(_here(told, network, rack, port))
    try:
        with _web(rack, network, port):
            yield network
    finally:
        made.destroy()
