"""The deploy agent's image really boots: as kernel and initrd, and as ISO by BIOS and by UEFI with Secure Boot."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mulligan.activities.agent import card_firmware
from mulligan.activities.agent.build import build_agent
from mulligan.activities.agent.card_firmware import PACKAGES
from mulligan.activities.agent.cpio import newc
from mulligan.activities.agent.image import FILES, HOLE_BYTES, ISO, MANIFEST, AgentImage, empty_hole
from mulligan.activities.agent.place import MAX_BYTES, put_in_place
from mulligan.activities.errors import HostNotReady, InvalidRequest, Unreachable, Unsupported
from mulligan.activities.images.build.tree import Drivers
from tests.agent.built import Built, agent_command
from tests.agent.emulated import BIOS, booted, secure_boot

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ARGUMENTS = "mulligan.url=http://10.9.8.7:7421/v1/agent/one-time-token mulligan.mac=52:54:00:00:00:01"
SHOWN = "arguments: mulligan.url=http://10.9.8.7:7421/v1/agent/... mulligan.mac=52:54:00:00:00:01"

PROGRAM = """\
import ctypes, gzip, hashlib, http.client, json, lzma, mmap, os, shutil, socket, subprocess, sys, threading
import time, urllib.request
began = time.monotonic()
tools = "blkdiscard blockdev efibootmgr hdparm ip nvme partprobe partx sfdisk sgdisk udhcpc wipefs zstd".split()
print("missing:", [tool for tool in tools if shutil.which(tool) is None])
print("versions:", [subprocess.run(words, capture_output=True).returncode for words in (
    ["blkdiscard", "-V"], ["efibootmgr", "-V"], ["hdparm", "-V"], ["nvme", "version"], ["partx", "-V"],
    ["sfdisk", "-V"], ["sgdisk", "-V"], ["wipefs", "-V"], ["zstd", "-V"])])
while len(os.listdir("/sys/block")) < 5 and time.monotonic() < began + 120:
    time.sleep(0.2)  # USB takes its time
print("disks:", sorted(os.listdir("/sys/block")), "links:", sorted(os.listdir("/sys/class/net")))
print("BIOS told:", [name for name in os.listdir("/sys/firmware/edd") if name == "int13_dev80"])
print("sha256:", hashlib.sha256(b"").hexdigest()[:8], "name:", socket.gethostbyname("localhost"))
sys.exit(3)
"""
"""Stands in for the agent's program, to say what such a program finds on the machine."""


def spliced(image: AgentImage, folder: Path, arguments: str) -> Path:
    """The ISO as a boot server sends it for one run."""
    data = bytearray(image.iso.read_bytes())
    data[image.hole_offset : image.hole_offset + image.hole_bytes] = image.hole(arguments)
    path = folder / "run.iso"
    path.write_bytes(data)
    return path


async def test_kernel_and_initrd_find_all_hardware_and_run_the_program(built: Built, tmp_path: Path) -> None:
    """Drivers of disks, CD and network are loaded, every tool runs, and how the program ended is said."""
    program = tmp_path / "more" / "agent" / "main.py"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM)
    initrd = tmp_path / "initrd"
    packed = built.image.initrd.read_bytes()
    initrd.write_bytes(packed + bytes(-len(packed) % 4) + b"".join(newc(tmp_path / "more")))
    drive = f"if=none,format=raw,readonly=on,file={built.image.kernel}"
    devices: tuple[str, ...] = (
        *("-drive", f"id=nvme,{drive}", "-device", "nvme,drive=nvme,serial=one"),
        *("-drive", f"id=usb,{drive}", "-device", "qemu-xhci", "-device", "usb-storage,drive=usb"),
        *("-drive", f"id=virtio,{drive}", "-device", "virtio-blk-pci,drive=virtio"),
        *("-drive", f"id=raid,{drive}", "-device", "megasas-gen2", "-device", "scsi-hd,drive=raid"),
        *("-cdrom", str(built.image.iso)),
        *("-nic", "user,restrict=on,model=e1000e", "-nic", "user,restrict=on,model=virtio"),
    )
    boot = ("-kernel", built.image.kernel, "-initrd", initrd, "-append", built.image.command_line(ARGUMENTS))
    second = tmp_path / "second.log"
    async with booted(tmp_path, *BIOS, *boot, *devices, "-serial", f"file:{second}") as machine:
        said = await machine.says("powering off in a minute")
    assert f"started by BIOS; {SHOWN}" in said
    assert "one-time-token" not in said
    assert "mulligan: missing: []" in said
    assert f"mulligan: versions: {[0] * 9}" in said
    assert "mulligan: disks: ['nvme0n1', 'sda', 'sdb', 'sr0', 'vda'] links: ['eth0', 'eth1', 'lo']" in said
    assert "mulligan: BIOS told: ['int13_dev80']" in said
    assert "mulligan: sha256: e3b0c442 name: 127.0.0.1" in said
    assert "mulligan: the agent's program ended with exit status 3; powering off in a minute" in said
    assert SHOWN in second.read_text()


async def test_the_iso_boots_by_bios(built: Built, tmp_path: Path) -> None:
    """What was written into the hole becomes the kernel's arguments."""
    async with booted(tmp_path, *BIOS, "-cdrom", spliced(built.image, tmp_path, ARGUMENTS)) as machine:
        assert f"started by BIOS; {SHOWN}" in await machine.says("mulligan: deploy agent")


async def test_the_iso_boots_by_uefi_with_secure_boot(built: Built, tmp_path: Path) -> None:
    """Firmware that takes signed programs only starts it, as a USB stick, which many BMCs make of an ISO."""
    iso = spliced(built.image, tmp_path, ARGUMENTS)
    stick = ("-drive", f"if=none,id=stick,format=raw,readonly=on,file={iso}", "-device", "qemu-xhci")
    options = (*secure_boot(tmp_path), *stick, "-device", "usb-storage,drive=stick", "-nic", "none")
    async with booted(tmp_path, *options) as machine:
        assert f"started by UEFI with Secure Boot; {SHOWN}" in await machine.says("mulligan: deploy agent")


def test_the_build_is_small_and_tells_what_it_does(built: Built) -> None:
    """Kernel and initrd together, and the ISO, are at most 100 MiB; every file is what the manifest says."""
    image = built.image
    image.check()
    assert image.kernel.stat().st_size + image.initrd.stat().st_size <= 100 << 20
    assert image.iso.stat().st_size <= 100 << 20
    assert re.fullmatch("sha256:[0-9a-f]{64}", image.version)
    assert image.hole_bytes >= 4096
    assert "unpacking packages" in built.said and "100 %  deploy agent built" in built.said
    assert sorted(path.name for path in image.directory.iterdir()) == sorted((image.folder.name, MANIFEST))


def test_disks_of_a_storage_network_are_out_of_reach(built: Built) -> None:
    """The initrd has drivers of controllers and of network cards, and none of Fibre Channel or iSCSI."""
    with zstd.open(built.image.initrd) as file:
        modules = set(re.findall(rb"/([a-z0-9_-]+)\.ko\0", file.read()))
    assert {b"nvme", b"ahci", b"mpt3sas", b"megaraid_sas", b"smartpqi", b"virtio_scsi", b"usb-storage"} <= modules
    assert {b"igb", b"ixgbe", b"i40e", b"ice", b"tg3", b"bnxt_en", b"mlx5_core", b"r8169", b"virtio_net"} <= modules
    assert modules & {b"lpfc", b"qla2xxx", b"libiscsi", b"iscsi_tcp", b"nvme-tcp", b"nvme-fabrics", b"fnic"} == set()


LINUX = "6.1.0-1-amd64"
ASKING = [  # what a driver asks for, what there is besides, and what is packed
    ("pre: phy", {"phy": b"\0"}, {"card", "phy"}),
    ("pre: phy", {"phy": b"\0softdep=pre: phy-lib\0", "phy_lib": b"\0"}, {"card", "phy", "phy_lib"}),
    ("pre: crc", {"crc-fast": b"\0alias=crc\0", "crc-plain": b"\0alias=crc\0"}, {"card", "crc-fast", "crc-plain"}),
    ("pre: inside built-alias post: after nothing", {"after": b"\0"}, {"card", "after"}),
    ("pre: nothing", {}, None),
]


@pytest.mark.parametrize(("asked", "others", "packed"), ASKING)
def test_what_a_driver_asks_for_is_packed_with_it(
    built: Built, tmp_path: Path, asked: str, others: dict[str, bytes], packed: set[str] | None
) -> None:
    """By its name or an alias, and what that asks for; a build without what is to come before it is none."""
    (busybox,) = (built.state_dir / "cache/agent-build/apt/debs").glob("busybox-static*.deb")
    subprocess.run(["dpkg-deb", "-x", busybox, tmp_path], check=True)
    for name, content in {"card": f"\0softdep={asked}\0".encode(), **others}.items():
        path = tmp_path / f"lib/modules/{LINUX}/kernel/{name}.ko"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x7fELF" + content + bytes(64))
    folder = tmp_path / "lib/modules" / LINUX
    (folder / "modules.builtin").write_text("kernel/inside.ko\n")
    (folder / "modules.builtin.modinfo").write_bytes(b"inside.license=GPL\0inside.alias=built_alias\0")
    drivers, target = Drivers(tmp_path, LINUX), tmp_path / "target"
    if packed is None:
        with pytest.raises(Unsupported, match=r"card\.ko needs nothing"):
            drivers.copy(target, ["card"])
    else:
        drivers.copy(target, ["card"])
        assert {path.stem for path in target.rglob("*.ko")} == packed


def test_what_drivers_ask_for_is_there(built: Built) -> None:
    """Cards with a Realtek chip are of no use without the driver of its PHY; other PHYs' are there too."""
    modules = {Path(name).stem: data for name, (_, data) in unpacked(built.image.initrd).items() if ".ko" in name}
    fields = {name: data.split(b"\0") for name, data in modules.items()}
    softdeps = [field[8:].decode() for found in fields.values() for field in found if field.startswith(b"softdep=")]
    asked = {word for each in softdeps for word in each.replace("post:", "pre:").split() if word != "pre:"}
    aliases = {field[6:].decode() for found in fields.values() for field in found if field.startswith(b"alias=")}
    assert {"realtek", "crct10dif"} <= asked
    assert asked - {name.replace("-", "_") for name in modules} - aliases == set()
    assert {"r8169", "realtek", "marvell", "broadcom", "micrel", "at803x"} <= modules.keys()
    mdio = "mdio:" + f"{0x001CC800:032b}"  # what the kernel asks modprobe for, once a card's chip told its PHY's number
    (names,) = [data for name, (_, data) in unpacked(built.image.initrd).items() if name.endswith("/modules.alias")]
    patterns = [line.split()[1:] for line in names.decode().splitlines() if line.startswith("alias mdio:")]
    assert [module for pattern, module in patterns if fnmatch(mdio, pattern)] == ["realtek"]


def unpacked(initrd: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of everything in an initrd."""
    with zstd.open(initrd) as file:
        archive, at, found = file.read(), 0, {}
    while True:
        fields = [int(archive[at + 6 + 8 * field : at + 14 + 8 * field], 16) for field in range(13)]
        begins = at + 110 + fields[11]
        name, begins = archive[at + 110 : begins - 1].decode(), -(-begins // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], archive[begins : begins + fields[6]])
        at = -(-(begins + fields[6]) // 4) * 4


def test_all_firmware_that_the_drivers_ask_for_is_there(built: Built) -> None:
    """As far as Debian's packages have it: each file, by each name; what no driver asks for is not."""
    files = unpacked(built.image.initrd)
    fields = {field for name, (_, data) in files.items() if name.endswith(".ko") for field in data.split(b"\0")}
    asked = {field.removeprefix(b"firmware=").decode() for field in fields if field.startswith(b"firmware=")}
    debs = [*(built.state_dir / "cache/agent-build/apt/debs").glob("firmware-*.deb")]
    listings = [subprocess.run(["dpkg-deb", "-c", deb], capture_output=True, text=True, check=True) for deb in debs]
    lines = [line.split() for listing in listings for line in listing.stdout.splitlines()]
    offered = {line[5].removeprefix("./lib/firmware/") for line in lines if not line[0].startswith("d")}
    assert len(asked & offered) == built.image.firmware
    assert {"rtl_nic/rtl8168h-2.fw", "bnx2/bnx2-mips-09-6.2.1b.fw", "intel/ice/ddp/ice.pkg"} <= asked & offered
    there = {name.removeprefix("lib/firmware/"): mode for name, (mode, _) in files.items() if "lib/firmware/" in name}
    assert asked & offered <= there.keys()
    links = {name: files[f"lib/firmware/{name}"][1].decode() for name, mode in there.items() if stat.S_ISLNK(mode)}
    led_to = {os.path.normpath(os.path.join(os.path.dirname(name), where)) for name, where in links.items()}  # noqa: PTH118, PTH120
    assert led_to <= there.keys()
    assert {name for name, mode in there.items() if not stat.S_ISDIR(mode)} - asked <= led_to
    assert {name.split("/")[3] for name in files if name.endswith("/copyright")} == set(PACKAGES)


def test_where_there_is_no_firmware_it_is_said_how_to_do_without(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror without the component, and one that lacks a package of it; the build that was there stays."""
    monkeypatch.setattr(card_firmware, "COMPONENT", "no-such-component")
    with pytest.raises(Unreachable, match=r"no-such-component.*mulligan agent build --no-firmware"):
        build_agent(built.image.directory, workdir=tmp_path, progress=lambda *_: None)
    monkeypatch.undo()
    monkeypatch.setattr(card_firmware, "PACKAGES", (*PACKAGES, "firmware-of-nobody"))
    with pytest.raises(Unreachable, match=r"do not have firmware-of-nobody.*mulligan agent build --no-firmware"):
        build_agent(built.image.directory, workdir=built.state_dir / "cache/agent-build", progress=lambda *_: None)
    assert AgentImage.load(built.image.directory) == built.image


def test_an_interrupted_build_leaves_everything_as_it_was(built: Built, tmp_path: Path) -> None:
    """Ctrl-C in the middle removes what was begun; the build that was there stays and is whole.

    What was begun is without firmware, so that nothing in it lacks its source.
    """
    before = sorted(built.image.directory.iterdir())
    cache, brought = tmp_path / "cache", []
    shutil.copytree(built.state_dir / "cache/agent-build", cache)

    def interrupt(what: str, _: float) -> None:
        if what == "compressing it":
            (tree,) = built.image.directory.glob(".building-*/tree")
            brought.extend(tree.rglob("*.ko"))
            assert not (tree / "lib/firmware").exists() and not list(tree.rglob("copyright"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_agent(built.image.directory, workdir=cache, progress=interrupt, firmware=False)
    assert brought
    assert sorted(built.image.directory.iterdir()) == before
    AgentImage.load(built.image.directory).check()
    assert not list(cache.rglob("firmware-*.deb"))
    assert "non-free" not in (cache / "apt/sources.list").read_text()


def made(directory: Path, content: bytes, **sizes: int) -> AgentImage:
    """A build of small files put in place; `sizes` makes a file longer."""
    new = directory / "new"
    new.mkdir(parents=True)
    for name in FILES:
        (new / name).write_bytes(content + (empty_hole() if name == ISO else b""))
        os.truncate(new / name, max(sizes.get(name, 0), (new / name).stat().st_size))
    return put_in_place(new, directory, hole_offset=len(content), linux="6.1")


def test_a_newer_build_replaces_the_one_before(tmp_path: Path) -> None:
    """All see the new one at once; who still serves the one before can, and what is older is gone."""
    first, second = made(tmp_path, b"first"), made(tmp_path, b"second")
    assert AgentImage.load(tmp_path) == second != first
    assert first.iso.exists()
    third = made(tmp_path, b"third")
    assert AgentImage.load(tmp_path) == third
    assert second.iso.exists() and not first.folder.exists()
    assert made(tmp_path, b"third") == third


def test_building_again_mends_a_damaged_build(tmp_path: Path) -> None:
    """Also when what is built is the same, byte for byte."""
    image = made(tmp_path, b"same")
    image.kernel.write_bytes(b"SAME")
    with pytest.raises(HostNotReady, match="has other bytes than were built"):
        image.check()
    made(tmp_path, b"same").check()


@pytest.mark.parametrize("name", FILES)
def test_too_large_a_build_is_thrown_away(tmp_path: Path, name: str) -> None:
    """What is over the limit is refused, and the build that was there stays."""
    image = made(tmp_path, b"small")
    with pytest.raises(Unsupported, match="100 are served"):
        made(tmp_path, b"large", **{name: MAX_BYTES + 1})
    assert AgentImage.load(tmp_path) == image


def test_what_is_missing_or_damaged_is_named_with_what_mends_it(tmp_path: Path) -> None:
    """No build, a truncated file, a hole that is filled, and a manifest that is none."""
    with pytest.raises(HostNotReady, match="there is none") as caught:
        AgentImage.load(tmp_path)
    assert caught.value.remedy == "mulligan agent build"
    image = made(tmp_path, b"x")
    image.initrd.write_bytes(b"")
    with pytest.raises(HostNotReady, match=r"initrd.img has 0 bytes, and 1 were built"):
        AgentImage.load(tmp_path)
    image.initrd.unlink()
    with pytest.raises(HostNotReady, match=r"initrd.img cannot be read: No such file"):
        AgentImage.load(tmp_path)
    image = made(tmp_path, b"y")
    image.iso.write_bytes(bytes(1 + HOLE_BYTES))
    with pytest.raises(HostNotReady, match="has no room for kernel arguments at byte 1"):
        AgentImage.load(tmp_path)
    for manifest in ("", "{}", '{"files": 3}', "[]"):
        (tmp_path / MANIFEST).write_text(manifest)
        with pytest.raises(HostNotReady, match=r"manifest.json cannot be read"):
            AgentImage.load(tmp_path)


def test_a_hole_is_filled_to_the_last_byte(tmp_path: Path) -> None:
    """However long the arguments are; what does not fit or would end the script's string is refused."""
    image = made(tmp_path, b"x")
    assert len(image.hole("")) == len(image.hole(ARGUMENTS)) == image.hole_bytes
    assert image.hole(ARGUMENTS).startswith(f"set mulligan='{ARGUMENTS}'\n".encode())
    assert image.command_line(ARGUMENTS).startswith("console=") and image.command_line(ARGUMENTS).endswith(ARGUMENTS)
    with pytest.raises(InvalidRequest, match="Linux takes 2047"):
        image.hole("x" * 2048)
    for strange in ("it's", 'a"b', "a\\b", "a\nb", "ä", "a$b", "a;b"):
        with pytest.raises(InvalidRequest, match="read as something else"):
            image.hole(strange)


def test_the_command_shows_what_is_built(built: Built, tmp_path: Path) -> None:
    """For people and for programs; where nothing is built, it says what to type."""
    shown = agent_command(built.state_dir, "show")
    assert built.image.version in shown.stdout and str(built.image.iso) in shown.stdout
    told = json.loads(agent_command(built.state_dir, "show", "--output", "json").stdout)
    assert told["version"] == built.image.version
    assert told["iso"] == {"path": str(built.image.iso), "size_bytes": built.image.iso.stat().st_size}
    assert told["firmware"] == built.image.firmware
    made(tmp_path / "other/agent", b"free")
    assert "none: built with --no-firmware" in agent_command(tmp_path / "other", "show").stdout
    nothing = agent_command(tmp_path, "show")
    assert nothing.returncode == 11 and "next: mulligan agent build" in nothing.stderr
    assert not (tmp_path / "agent").exists()
