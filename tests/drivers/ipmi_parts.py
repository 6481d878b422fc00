"""What the tests of the IPMI driver share: OpenIPMI's simulator, virtualbmc, a BMC that lies, a relay that spoils."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.ipmi.driver import IpmiDriver, open_ipmi
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.values import Mark, Target
from tests.drivers.contract import until
from tests.drivers.ipmi_server import USER

PASSWORD = "canary-5e2d-secret"
GUID = "a123456789abcdefa123456789abcdef"
"""As the simulator's settings have it."""
SIZES = {"vcpu": "8", "memory_mib": "16384", "disk_gib": "400"}

_CAPABILITIES = bytes.fromhex("0600ff07000000000000000000092018c88100388e04b5")
"""Get Channel Authentication Capabilities, which any BMC answers to anyone."""

_CHASSIS = """#!/bin/sh
# A chassis as two files: what ipmi_sim calls to read and to change it.
cd "{folder}" || exit 1
shift
verb=$1
shift
case $verb in
get) for name in "$@"; do echo "$name:$(cat "$name")"; done ;;
set) while [ $# -gt 1 ]; do echo "$2" >"$1"; echo "$1 $2" >>changes; shift 2; done ;;
esac
"""

_LAN = """name "tests"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_admin none md2 md5 straight
    guid {guid}
  endlan
  chassis_control "{folder}/chassis 0x20"
  user 2 true "{user}" "{password}" admin 10 none md2 md5 straight
"""

_MACHINE = """mc_setbmc 0x20
mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02
sel_enable 0x20 1000 0x0a
mc_add_fru_data 0x20 0 {fru_size} data {fru}
sensor_add 0x20 0 1 1 1
main_sdr_add 0x20 {sdr}
sensor_set_threshold 0x20 0 1 readable 010000 0 90 0 0 0 0
sensor_set_event_support 0x20 0 1 enable scanning per-state {events} {events} {events} {events}
sensor_set_value 0x20 0 1 {degrees} 0
mc_enable 0x20
"""


def free_udp_port() -> int:
    """A port that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether a BMC listens there; blocks for a moment where none does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.1)
        client.connect(("127.0.0.1", port))
        if client.getsockname()[1] == port:
            return False  # nobody has the port, so that it was given to this socket, which would answer itself
        try:
            client.send(_CAPABILITIES)
            return bool(client.recv(100))
        except ConnectionRefusedError:
            time.sleep(0.05)
        except OSError:
            pass
    return False


@contextlib.contextmanager
def _serving(process: subprocess.Popen[bytes], port: int) -> Iterator[None]:
    """Wait until the BMC answers; end it afterwards."""
    try:
        until = time.monotonic() + 30
        while not answers(port):
            assert process.poll() is None, "the BMC ended"
            assert time.monotonic() < until, "the BMC does not answer"
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


@dataclass
class Sim:
    """A running `ipmi_sim`, whose chassis is two files."""

    port: int
    folder: Path

    def read(self, name: str) -> str:
        """The chassis' `power` or `boot` now."""
        return (self.folder / name).read_text().strip()

    @property
    def changes(self) -> list[str]:
        """Every change that the simulator was asked to make."""
        path = self.folder / "changes"
        return path.read_text().splitlines() if path.exists() else []


@contextlib.contextmanager
def ipmi_sim(folder: Path, degrees: int = 40, chassis: str = _CHASSIS, guid: str = GUID) -> Iterator[Sim]:
    """OpenIPMI's simulator, with a FRU and one temperature sensor; `chassis` is the script that it calls."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "state").mkdir()
    port, fru, sdr = free_udp_port(), _fru(), _sdr()
    (folder / "power").write_text("0\n")
    (folder / "boot").write_text("none\n")
    (folder / "chassis").write_text(chassis.replace("{folder}", str(folder)))
    (folder / "chassis").chmod(0o755)
    (folder / "lan.conf").write_text(_LAN.format(port=port, folder=folder, guid=guid, user=USER, password=PASSWORD))
    machine = _MACHINE.format(fru_size=len(fru), fru=_hex(fru), sdr=_hex(sdr), degrees=degrees, events="000" + "1" * 12)
    (folder / "machine.emu").write_text(machine)
    command = ["ipmi_sim", "-n", "-c", folder / "lan.conf", "-f", folder / "machine.emu", "-s", folder / "state"]
    with (folder / "out").open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    with _serving(process, port):
        yield Sim(port, folder)


@contextlib.contextmanager
def served(**said: object) -> Iterator[int]:
    """One of `ipmi_server`'s BMCs; gives its port."""
    port = free_udp_port()
    command = (sys.executable, "-P", "-m", "tests.drivers.ipmi_server")
    nowhere, root = subprocess.DEVNULL, str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=nowhere, stderr=nowhere, env=environment)
    assert process.stdin is not None
    process.stdin.write(json.dumps({"port": port, "password": PASSWORD, **said}).encode() + b"\n")
    process.stdin.flush()
    with _serving(process, port):
        yield port


Spoil = Callable[[bytearray], bytearray | bytes | None]


class Relay:
    """Stands before a BMC on UDP, and spoils what it answers; None swallows it."""

    def __init__(self, bmc_port: int, spoil: Spoil) -> None:
        self.spoil = spoil
        self.asked = 0
        """How many packets the client sent."""
        self._bmc = ("127.0.0.1", bmc_port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._behind = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._behind.settimeout(1.0)
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._turn)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()
        self._behind.close()

    def _turn(self) -> None:
        while True:
            packet, client = self._socket.recvfrom(4096)
            if not packet:
                return
            self.asked += 1
            with contextlib.suppress(OSError):  # a BMC that is silent
                self._behind.sendto(packet, self._bmc)
                answer = self.spoil(bytearray(self._behind.recv(4096)))
                if answer is not None:
                    self._socket.sendto(answer, client)


def a_mark(fence: int = 1) -> Mark:
    """A machine's mark."""
    return Mark("tests", "web-1", "0a3f6c9e-5f1b-4a44-9e9c-9d6c1a8b2f00", f"run-{fence}", fence)


def soon(seconds: float = 60) -> Deadline:
    """Enough time for any single call."""
    return Deadline.after(seconds)


@contextlib.asynccontextmanager
async def opened(
    port: int, folder: Path, *, password: str = PASSWORD, user: str = USER, kept: Kept | None = None, **settings: str
) -> AsyncIterator[IpmiDriver]:
    """A driver, closed at the end of the block."""
    target = Target("srv-1", "default", f"ipmi://127.0.0.1:{port}", {**SIZES, **settings}, "rack")
    driver = await open_ipmi(target, Credential(user, password), folder, kept)
    try:
        yield driver
    finally:
        await driver.close()


def speakers() -> list[psutil.Process]:
    """The processes of this one that speak with BMCs."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if "mulligan.activities.drivers.ipmi.child" in child.cmdline():
                found.append(child)
    return found


def held() -> set[str]:
    """What the driver could leave in this process: ends of pipes to its processes, and threads but those of pools.

    Sockets of networks are not its own: it has none here, and clients of other tests, which live on, connect again.
    """
    pairs = {each.fd for each in psutil.Process().net_connections("unix")}
    ends = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(path.readlink())
            if target.startswith("pipe:") or (target.startswith("socket:") and int(path.name) in pairs):
                ends.add(target)
    return ends | {t.name for t in threading.enumerate() if not t.name.startswith(("asyncio_", "ThreadPoolExecutor"))}


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """The block ends without a process, a thread or a pipe of the driver; says which there is."""
    before = held()
    yield
    left: list[object] = []

    async def as_before() -> bool:
        left[:] = [*speakers(), *(held() - before)]
        return not left

    try:
        await until(as_before)
    except TimeoutError:
        raise AssertionError(f"left by the driver: {left}") from None


def _hex(data: bytes) -> str:
    return " ".join(f"{byte:#04x}" for byte in data)


def _fru() -> bytes:
    """A product area: maker, name, part, version, serial number (Platform Management FRU, 12)."""
    fields = b"".join(bytes([0xC0 | len(text)]) + text for text in (b"Contoso", b"R-1", b"P9", b"v2", b"SN-4711-A"))
    body = bytes([1, 0, 25]) + fields + bytes([0xC0, 0xC0, 0xC1])
    body += bytes(-(len(body) + 1) % 8)
    body = bytes([1, (len(body) + 1) // 8]) + body[2:]
    header = bytes([1, 0, 0, 0, 1, 0, 0])
    return header + bytes([-sum(header) & 0xFF]) + body + bytes([-sum(body) & 0xFF])


def _sdr() -> bytes:
    """A full record of a temperature sensor, in degrees Celsius (IPMI 2.0, 43.1)."""
    name = b"CPU Temp"
    body = bytes([0x20, 0, 1, 3, 1, 0x67, 0x68, 1, 1, *[0] * 6, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, *[0] * 5, *[0] * 6])
    body += bytes([0, 0, 0, 0, 0, 0xC0 | len(name)]) + name
    return bytes([0, 0, 0x51, 1, len(body)]) + body
