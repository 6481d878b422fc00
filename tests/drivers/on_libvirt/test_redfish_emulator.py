"""The Redfish driver against `sushy-emulator`, a BMC over libvirt, up to a real boot from media."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import bcrypt
import libvirt
import pycdlib
import pytest

from mulligan.activities.drivers.base import BootDevice
from mulligan.activities.drivers.libvirt.guest import boot_sector
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import NotFound
from mulligan.activities.values import Firmware, Kind, Mark, PowerState, Target
from tests.drivers.bmc.parts import a_mark, credentials_in
from tests.drivers.bmc.server import PASSWORD, USER
from tests.drivers.contract import MarkFactory, soon, until
from tests.drivers.on_libvirt.host import NAME
from tests.drivers.server_contract import ServerContract, VirtualMediaContract
from tests.services.stack import until as until_now
from tests.services.temporal import free_port

MAC = "52:54:00:47:11:01"
LINE = "mulligan: booted from virtual media"
EMULATOR = Path(sys.executable).with_name("sushy-emulator")
DOMAIN = """
<domain type='qemu'>
  <name>{name}</name><uuid>{id}</uuid><memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os {firmware}><type arch='x86_64' machine='{machine}'>hvm</type>{features}<boot dev='hd'/></os>
  <features><acpi/></features>
  <devices>
    <controller type='sata' index='0'/>
    <disk type='file'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
    <interface type='user'><mac address='{mac}'/></interface>
    <serial type='file'><source path='{console}'/></serial>
  </devices>
</domain>"""
UEFI = {
    "firmware": "firmware='efi'",
    "machine": "q35",
    "features": "<firmware><feature enabled='no' name='secure-boot'/></firmware>",
}
BIOS = {"firmware": "", "machine": "q35", "features": ""}


@dataclass
class Served:
    """A file behind HTTP, and who asked for what."""

    content: bytes
    url: str = ""
    fetched: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Server:
    """A machine behind the emulator."""

    target: Target
    console: Path


def mark_of(server: Server, fence: int = 1) -> Mark:
    """A mark of the machine that the server is for."""
    return Mark("tests", "m", server.target.name, f"run-{fence}-{server.target.name}", fence)


def disc() -> bytes:
    """A CD whose boot sector writes `LINE` to the serial port."""
    sector, made = boot_sector(LINE), pycdlib.PyCdlib()
    made.new()
    made.add_fp(io.BytesIO(sector.ljust(2048, b"\0")), 2048, "/BOOT.;1")
    made.add_eltorito("/BOOT.;1", bootcatfile="/BOOT.CAT;1", boot_load_size=4)
    written = io.BytesIO()
    made.write_fp(written)
    made.close()
    return written.getvalue()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The disc, on a web server that notes every request."""
    found = Served(disc())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.fetched.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(found.content)))
            self.end_headers()
            self.wfile.write(found.content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def emulator(pool: libvirt.virStoragePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The emulator's address; it asks for a password, and keeps media in this run's pool."""
    folder, port = tmp_path_factory.mktemp("emulator"), free_port()
    htpasswd = folder / "htpasswd"
    htpasswd.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    config = folder / "emulator.conf"
    config.write_text(
        f"SUSHY_EMULATOR_STORAGE_POOL = {NAME!r}\nSUSHY_EMULATOR_AUTH_FILE = {str(htpasswd)!r}\n"
        f"SUSHY_EMULATOR_STATE_DIR = {str(folder)!r}\nSUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n"
    )
    log = folder / "emulator.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [EMULATOR, "--config", config, "--port", str(port)], stdout=out, stderr=out, cwd=folder
        )
    try:
        until_now(lambda: b"Running on" in log.read_bytes() or process.poll() is not None, what="the emulator's start")
        assert process.poll() is None, log.read_text()
        yield f"redfish+http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def machine(connection: libvirt.virConnect, pool: Any, emulator: str, kind: dict[str, str]) -> Iterator[Server]:
    """A machine that is off, gone at the end with whatever it holds."""
    folder = Path(pool.XMLDesc().partition("<path>")[2].partition("</path>")[0])
    name = str(uuid.uuid4())
    console = folder / f"console-{name}"
    (disk := folder / f"disk-{name}.raw").write_bytes(b"\0" * 4096)
    xml = DOMAIN.format(name=f"{NAME}-{name[:8]}", id=name, console=console, mac=MAC, disk=disk, **kind)
    domain = connection.defineXML(xml)
    try:
        url = f"{emulator}/redfish/v1/Systems/{name}"
        yield Server(Target(name, "default", url, {"disk_gib": "1", "memory_mib": "128"}, "rack"), console)
    finally:
        if domain.isActive():
            domain.destroy()
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM)


class TestContract(ServerContract, VirtualMediaContract):
    """The rules that hold for every driver of a BMC, and for virtual media."""

    @pytest.fixture
    async def driver(
        self, connection: libvirt.virConnect, pool: Any, emulator: str, tmp_path: Path
    ) -> AsyncIterator[Any]:
        """On a machine of the test's own."""
        with machine(connection, pool, emulator, BIOS) as server:
            driver = await open_driver(server.target, state_dir=tmp_path, credentials=credentials_in(tmp_path))
            yield driver
            await driver.close()

    @pytest.fixture
    def mark(self) -> MarkFactory:
        """Of one machine."""
        return lambda fence=1, machine_id=None: a_mark(fence, machine_id or "m-1")

    @pytest.fixture
    def media_url(self, served: Served) -> str:
        """The emulator does fetch them."""
        return served.url


async def test_a_uefi_server_is_looked_at_told_where_to_boot_and_switched(
    connection: libvirt.virConnect, pool: Any, emulator: str, tmp_path: Path
) -> None:
    """Its boot mode is seen; the override is read back; power goes on and off."""
    with machine(connection, pool, emulator, UEFI) as server:
        driver: Any = await open_driver(server.target, state_dir=tmp_path, credentials=credentials_in(tmp_path))
        mark = mark_of(server)
        found = await driver.inspect(soon())
        assert found.kind is Kind.BARE_METAL
        assert {"firmware.uefi", "boot.virtual-media", "boot.network"} <= set(found.capabilities)
        assert {row.resource: row.total for row in found.inventory}.items() >= {"vcpu": 1, "disk_gib": 1}.items()
        assert MAC in found.facts["nics"]
        said = await driver.boot_next(mark, BootDevice.NETWORK, Firmware.UEFI, soon())
        assert said.agrees, said
        await driver.power_on(mark, soon())
        assert (await driver.power(mark, soon())).state is PowerState.ON
        await driver.power_off(mark, soon())
        assert (await driver.power(mark, soon())).state is PowerState.OFF
        await driver.close()


async def test_a_machine_boots_once_from_an_image_behind_a_url(
    connection: libvirt.virConnect, pool: Any, emulator: str, served: Served, tmp_path: Path
) -> None:
    """The BMC fetches the run's own URL, and what is on it speaks on the console; afterwards nothing is left."""
    with machine(connection, pool, emulator, BIOS) as server:
        driver: Any = await open_driver(server.target, state_dir=tmp_path, credentials=credentials_in(tmp_path))
        mark = mark_of(server)
        url = f"{served.url}/{mark.run_id}/agent.iso"
        await driver.insert_media(mark, url, soon())
        assert [path for path in served.fetched if mark.run_id in path] == [f"/{mark.run_id}/agent.iso"]
        assert len(await driver.remains(mark.machine_id, soon())) == 1
        assert (await driver.boot_next(mark, BootDevice.VIRTUAL_MEDIA, Firmware.ANY, soon())).agrees
        await driver.power_on(mark, soon())

        async def said() -> bool:
            return server.console.exists() and LINE in server.console.read_text(errors="replace")

        await until(said, 60)
        await driver.power_off(mark, soon())
        await driver.eject_media(mark, soon())
        assert await driver.remains(mark.machine_id, soon()) == ()
        await driver.close()


async def test_a_system_that_the_emulator_has_not(
    connection: libvirt.virConnect, pool: Any, emulator: str, tmp_path: Path
) -> None:
    """Those that there are, are named."""
    with machine(connection, pool, emulator, BIOS) as server:
        strange = Target("x", "default", f"{emulator}/redfish/v1/Systems/{uuid.uuid4()}", {}, "rack")
        driver: Any = await open_driver(strange, state_dir=tmp_path, credentials=credentials_in(tmp_path))
        with pytest.raises(NotFound, match="no system") as error:
            await driver.inspect(soon())
        assert server.target.name in error.value.nearest
        await driver.close()
