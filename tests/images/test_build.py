"""The demo image is built from Debian's packages and really boots: QEMU, both firmwares, a NoCloud seed, SSH."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pycdlib
import pytest
import yaml
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mulligan.activities.errors import Conflict, HostNotReady, InvalidRequest
from mulligan.activities.images.build import BuiltImage, build_debian, build_demo, host
from mulligan.activities.values import Firmware
from tests.services.stack import alive, until

BOOT_SECONDS = 120
OVMF = Path("/usr/share/OVMF")
FLATTEN = Path(host.__file__).with_name("demo_flatten.sh")


@dataclass
class Built:
    image: BuiltImage
    steps: list[tuple[str, float]]
    workdir: Path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The demo image, built once for all tests."""
    folder = tmp_path_factory.mktemp("demo")
    steps: list[tuple[str, float]] = []
    image = build_demo(folder / "demo.qcow2", workdir=folder / "work", progress=lambda *step: steps.append(step))
    return Built(image, steps, folder / "work")


@dataclass
class Home:
    """Where a machine calls home; it is told to come back later the first time."""

    url: str = ""
    calls: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    turned_away: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        if not self.turned_away:
            self.turned_away += 1
            return web.Response(status=503)
        self.calls.append((request.headers["Authorization"], await request.json()))
        return web.Response(status=204)


@asynccontextmanager
async def home() -> AsyncIterator[Home]:
    """A small HTTP server that the guest reaches through QEMU's user network."""
    house = Home()
    app = web.Application()
    app.router.add_post("/call-home", house.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    house.url = f"http://10.0.2.2:{runner.addresses[0][1]}/call-home"
    try:
        yield house
    finally:
        await runner.cleanup()


@dataclass
class Key:
    private: Path
    public: str


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """An SSH key of this test's own."""
    secret = Ed25519PrivateKey.generate()
    path = tmp_path / "key"
    path.touch(mode=0o600)
    encoding, ssh = serialization.Encoding, serialization.PrivateFormat.OpenSSH
    path.write_bytes(secret.private_bytes(encoding.PEM, ssh, serialization.NoEncryption()))
    public = secret.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return Key(path, f"{public} {'a comment that makes the line long enough to be folded ' * 2}".strip())


def write_seed(path: Path, files: dict[str, str]) -> Path:
    """A NoCloud seed of these files."""
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, vol_ident="cidata", rock_ridge="1.09", joliet=3)
    for number, (name, text) in enumerate(files.items()):
        data = text.encode()
        iso.add_fp(io.BytesIO(data), len(data), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
    iso.write(str(path))
    iso.close()
    return path


@dataclass
class Machine:
    """A running QEMU."""

    process: asyncio.subprocess.Process
    console: Path
    port: int
    key: Key

    def said(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition, unless the machine ends or the deadline passes first."""
        try:
            async with asyncio.timeout(BOOT_SECONDS):
                while not condition():
                    assert self.process.returncode is None, f"QEMU ended: {self.said()[-2000:]}"
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"not within {BOOT_SECONDS} s; the console's end: {self.said()[-2000:]}")

    async def ssh(self, user: str, command: str) -> str:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes")
        words = [word for option in options for word in ("-o", option)]
        target = ("-i", str(self.key.private), "-p", str(self.port), f"{user}@127.0.0.1", command)
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("ssh", *words, *target, stdout=pipe, stderr=pipe)
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output.decode().strip()

    async def press_power_button(self) -> None:
        """Press it, and wait for the machine to shut itself down."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"system_powerdown\n")
        await self.process.stdin.drain()
        async with asyncio.timeout(60):
            await self.process.wait()


@asynccontextmanager
async def booted(
    folder: Path, disk: Path, seed: tuple[str, ...], firmware: Firmware, key: Key
) -> AsyncIterator[Machine]:
    """QEMU under pure emulation with this disk and seed; ended with the block."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    pflash: tuple[str, ...] = ()
    if firmware is Firmware.UEFI:
        shutil.copy(OVMF / "OVMF_VARS_4M.fd", folder / "vars.fd")
        code = f"if=pflash,format=raw,readonly=on,file={OVMF / 'OVMF_CODE_4M.fd'}"
        pflash = ("-drive", code, "-drive", f"if=pflash,format=raw,file={folder / 'vars.fd'}")
    console = folder / "console.log"
    console.unlink(missing_ok=True)
    network = f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{port}-:22"
    process = await asyncio.create_subprocess_exec(
        *("qemu-system-x86_64", "-accel", "tcg", "-machine", "q35", "-cpu", "max", "-m", "512", "-display", "none"),
        *(*pflash, "-drive", f"if=virtio,format=qcow2,file={disk}", *seed, "-nic", network),
        *("-serial", f"file:{console}", "-monitor", "stdio"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield Machine(process, console, port, key)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def overlay(folder: Path, image: BuiltImage) -> Path:
    """A bigger disk on top of the image."""
    disk = folder / "disk.qcow2"
    base = ("-b", str(image.path), "-F", image.format.value)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *base, str(disk), "2G"], check=True, timeout=30)
    return disk


async def test_the_demo_boots_by_bios_and_keeps_what_is_written(demo: Built, tmp_path: Path, key: Key) -> None:
    """With a SATA seed and DHCP: users, keys, grown disk, call home; then the power button, and a second boot."""
    async with home() as house:
        config = {
            "hostname": "demo-7",
            "ssh_authorized_keys": [key.public],
            "users": ["default", {"name": "ada", "ssh_authorized_keys": [key.public]}],
        }
        meta = {"instance-id": "i-7", "local-hostname": "other"}
        meta |= {"mulligan_call_home_url": house.url, "mulligan_call_home_token": "token-7"}
        files = {"meta-data": yaml.safe_dump(meta), "user-data": "#cloud-config\n" + yaml.safe_dump(config)}
        seed = ("-cdrom", str(write_seed(tmp_path / "seed.iso", files)))
        disk = overlay(tmp_path, demo.image)
        async with booted(tmp_path, disk, seed, Firmware.BIOS, key) as machine:
            await machine.until(lambda: "mulligan: called home" in machine.said() and "login:" in machine.said())
            assert "demo-7 login:" in machine.said()
            assert await machine.ssh("demo", "hostname") == "demo-7"
            assert await machine.ssh("ada", "id -un") == "ada"
            blocks = await machine.ssh("root", "df -k / | tail -n 1 | awk '{ print $2 }'")
            assert int(blocks) > 1_700_000
            host_key = await machine.ssh("root", "dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key")
            await machine.ssh("demo", "echo kept > note")
            await machine.press_power_button()
        (authorization, body), *more = house.calls
        assert authorization == "Bearer token-7" and not more
        assert body["hostname"] == "demo-7" and body["instance_id"] == "i-7" and body["addresses"] == ["10.0.2.15"]
        assert body["status"] == "done" and body["errors"] == []
        assert isinstance(body["disks"], list) and len(body["disks"]) == 1
        root = body["disks"][0]
        assert (root["mount"], root["path"], root["size_bytes"]) == ("/", "/dev/vda", 2 << 30)
        assert isinstance(body["ssh_host_keys"], list) and body["ssh_host_keys"][0] in host_key
        async with booted(tmp_path, disk, seed, Firmware.BIOS, key) as machine:
            await machine.until(lambda: "mulligan: called home" in machine.said())
            assert await machine.ssh("demo", "cat note") == "kept"
            assert await machine.ssh("root", "dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key") == host_key
        assert house.calls[1][1]["boot_id"] != body["boot_id"]


async def test_the_demo_boots_by_uefi_and_runs_a_script(demo: Built, tmp_path: Path, key: Key) -> None:
    """With a virtio seed, a static address and a script as user data, whose failure is told when calling home."""
    async with home() as house:
        meta = {"instance-id": "i-8", "local-hostname": "demo-8", "public-keys": [key.public]}
        meta |= {"mulligan_call_home_url": house.url, "mulligan_call_home_token": "token-8"}
        ethernet = {"addresses": ["10.0.2.15/24"], "gateway4": "10.0.2.2", "nameservers": {"addresses": ["10.0.2.3"]}}
        files = {
            "meta-data": json.dumps(meta),
            "user-data": "#!/bin/sh\necho ran as $(id -un) > /home/demo/script\nexit 3\n",
            "network-config": yaml.safe_dump({"version": 2, "ethernets": {"id0": ethernet}}),
        }
        path = write_seed(tmp_path / "seed.iso", files)
        seed = ("-drive", f"if=virtio,format=raw,readonly=on,file={path}")
        async with booted(tmp_path, overlay(tmp_path, demo.image), seed, Firmware.UEFI, key) as machine:
            await machine.until(lambda: "mulligan: called home" in machine.said())
            assert await machine.ssh("demo", "hostname; cat script /etc/resolv.conf; ls -d /sys/firmware/efi") == (
                "demo-8\nran as root\nnameserver 10.0.2.3\n/sys/firmware/efi"
            )
    [(authorization, body)] = house.calls
    assert authorization == "Bearer token-8" and body["addresses"] == ["10.0.2.15"] and body["status"] == "error"
    assert body["errors"] == ["user-data ended with exit status 3; its output is in /var/log/user-data.log"]


def test_the_build_tells_its_progress_and_the_images_facts(demo: Built) -> None:
    """Progress never goes back and ends at one; size and format are what QEMU sees; only the cache stays."""
    parts = [part for _, part in demo.steps]
    assert parts == sorted(parts) and parts[0] == 0.0 and parts[-1] == 1.0
    command = ["qemu-img", "info", "--output=json", "-f", "qcow2", str(demo.image.path)]
    info = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout)
    assert info["virtual-size"] == demo.image.virtual_size_bytes and "backing-filename" not in info
    assert sorted(path.name for path in demo.workdir.iterdir()) == ["apt", "lock"]
    assert [path.name for path in demo.image.path.parent.iterdir() if path.is_file()] == ["demo.qcow2"]


def test_an_interrupted_build_leaves_nothing_but_the_cache(demo: Built, tmp_path: Path) -> None:
    """Ctrl-C near the end removes what was begun, and an image that was there before stays as it was."""
    output = tmp_path / "out" / "demo.qcow2"
    output.parent.mkdir()
    output.write_text("the image of an earlier build")

    def interrupt(what: str, _: float) -> None:
        if what == "converting the disk":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_demo(output, workdir=demo.workdir, progress=interrupt)
    assert output.read_text() == "the image of an earlier build"
    assert list(output.parent.iterdir()) == [output]
    assert sorted(path.name for path in demo.workdir.iterdir()) == ["apt", "lock"]


def test_missing_programs_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without the tools is told which packages to install, before anything is fetched."""
    monkeypatch.setitem(host.ENVIRONMENT, "PATH", str(tmp_path))
    with pytest.raises(HostNotReady) as caught:
        build_demo(tmp_path / "demo.qcow2", workdir=tmp_path / "work", progress=lambda *_: None)
    assert "mformat" in caught.value.message
    assert caught.value.remedy.startswith("apt-get install") and "mtools qemu-utils" in caught.value.remedy
    assert not (tmp_path / "demo.qcow2").exists()


def test_an_interrupted_program_is_ended_with_its_children(tmp_path: Path) -> None:
    """Leaving while a program runs ends all of its session before the interrupt goes on."""
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        host.watch("sh", "-c", "sleep 1000 & echo $$; echo $!; wait", on_line=interrupt)
    until(lambda: not any(alive(pid) for pid in pids), what="the end of both")  # a killed process takes a moment to go


def test_two_builds_do_not_share_a_work_directory(tmp_path: Path) -> None:
    """The second build is refused while the first one holds the directory."""
    (tmp_path / "work").mkdir()
    with (tmp_path / "work" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Conflict, match="another build"):
            build_demo(tmp_path / "demo.qcow2", workdir=tmp_path / "work", progress=lambda *_: None)


def test_a_failing_program_is_reported_with_its_last_words(tmp_path: Path) -> None:
    """Its name, exit status and what it said are in the error."""
    with pytest.raises(HostNotReady, match=r"sh failed with exit status 3[\s\S]*no such thing"):
        host.watch("sh", "-c", "echo no such thing >&2; exit 3", on_line=lambda _: None)


@pytest.mark.parametrize("name", ["Bookworm", "bookworm;reboot", "", "--help"])
def test_a_release_is_a_code_name(tmp_path: Path, name: str) -> None:
    """Anything else is refused before a program sees it."""
    with pytest.raises(InvalidRequest, match="not the name of a Debian release"):
        build_debian(tmp_path / "x.qcow2", workdir=tmp_path, progress=lambda *_: None, release=name)


DOCUMENT = {
    "hostname": "demo-1",
    "ssh_authorized_keys": ["ssh-ed25519 AAAA " + "word " * 30 + "end", "ssh-rsa BBBB it's # not a comment: yes"],
    "users": ["default", {"name": "ada", "keys": ['say "hi"', "back\\slash"]}, [["1", "x"], {"x": {"y": "z: w"}}]],
    "ethernets": {"id0": {"match": {"name": "e*"}, "addresses": ["10.0.0.5/24"], "gateway4": "10.0.0.1"}},
}


@pytest.mark.parametrize(
    "text",
    [
        yaml.safe_dump(DOCUMENT),
        yaml.safe_dump(DOCUMENT, default_flow_style=True),
        yaml.safe_dump(DOCUMENT, indent=4, width=40),
        yaml.safe_dump(DOCUMENT, default_style='"'),
        json.dumps(DOCUMENT),
        json.dumps(DOCUMENT, indent=2),
    ],
    ids=["block", "flow", "narrow", "quoted", "json", "json-indented"],
)
def test_the_guest_reads_yaml_and_json_as_python_does(text: str) -> None:
    """However a seed's document was written, the demo's shell reader finds the same values at the same paths."""

    def leaves(value: object, path: str = "") -> dict[str, str]:
        if not isinstance(value, dict | list):
            return {path: str(value)}
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for name, item in items for k, v in leaves(item, f"{path}/{name}" if path else str(name)).items()}

    done = subprocess.run(["sh", str(FLATTEN)], input=text, text=True, capture_output=True, check=True, timeout=10)
    assert dict(line.split("\t", 1) for line in done.stdout.splitlines()) == leaves(DOCUMENT)
