"""The agent on hardware that differs: network cards of which one leads to the boot server, disks of every kind.

One boot does several jobs, one after the other, because booting takes most of the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mulligan.activities.agent.cpio import newc
from mulligan.activities.agent.initramfs import ON_MACHINE
from tests.agent.boot_server import BootServer
from tests.agent.built import Built
from tests.agent.emulated import BIOS, BOOT_SECONDS, Machine, booted, plugged, stopped
from tests.agent.machine import MIB, SEED, deployment, digest, disk_image, erasing, image_with_large_sectors

USER_DATA = "#cloud-config\n" + "# " + "x" * 5000 + "\n"
SEVERAL = """\
import json, os, subprocess, sys
from agent.arguments import Arguments
from agent.network import reach
for url, more in json.load(open("/agent/jobs.json")):
    open("/run/line", "w").write(f"mulligan.url={url} {more}")
    words = [sys.executable, "-E", "-s", "-u", "-m", "agent.program", "--command-line", "/run/line"]
    print("the program ended with", subprocess.run(words).returncode, flush=True)
    print("name servers:", open("/etc/resolv.conf").read().split(), flush=True)
    for card in "eth0", "eth1", "eth2":
        subprocess.run(["ip", "address", "flush", "dev", card])
def tagging():
    "A boot server behind eth4, in a network of its own, whose frames are tagged; eth3 is on the same wire."
    words = ("ip link set eth4 up && ip link add link eth4 name tagged type vlan id 7 && ip link set tagged up && "
             "ip address add 10.7.0.1/24 dev tagged && mkdir /www && echo ok >/www/healthz && httpd -f -p 7421 -h /www")
    server = subprocess.Popen(["unshare", "-n", "sh", "-c", "read go; " + words], stdin=subprocess.PIPE,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while os.readlink(f"/proc/{server.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        pass
    subprocess.run(["ip", "link", "set", "eth4", "netns", str(server.pid)], check=True)
    server.stdin.write(b"go\\n")
    server.stdin.close()
tagging()
print("tagged:", reach(Arguments("http://10.7.0.1:7421/v1/agent/t", "10.7.0.2/24", vlan="7", mac="52:54:00:00:00:0d")))
sys.exit(3)
"""
"""Runs the agent's program for one job after the other; then finds its network behind a tag."""


def initrd_with_jobs(built: Built, folder: Path, jobs: Sequence[tuple[str, str]]) -> Path:
    """The agent that was built, which does these jobs (URL, further arguments) in turn."""
    more = folder / "more/agent"
    more.mkdir(parents=True)
    (more / "program.py").write_bytes((ON_MACHINE / "main.py").read_bytes())
    (more / "main.py").write_text(SEVERAL)
    (more / "jobs.json").write_text(json.dumps(jobs))
    packed = built.image.initrd.read_bytes()
    initrd = folder / "initrd"
    initrd.write_bytes(packed + bytes(-len(packed) % 4) + b"".join(newc(more.parent)))
    return initrd


def seed_iso(folder: Path) -> bytes:
    """A seed as it is made for machines."""
    files = folder / "seed"
    files.mkdir()
    (files / "user-data").write_text(USER_DATA)
    (files / "meta-data").write_text("instance-id: one\n")
    iso = folder / "seed.iso"
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-R", "-o", str(iso), str(files)]
    subprocess.run(command, check=True, capture_output=True)
    return iso.read_bytes()


def partition_start(disk: Path, number: int, sector: int) -> int:
    """Where a partition of a GPT begins, in bytes."""
    with disk.open("rb") as file:
        file.seek(2 * sector + 128 * (number - 1) + 32)
        return int.from_bytes(file.read(8), "little") * sector


def plugged_in(folder: Path, name: str, device: str, mib: int, drive: str = "") -> tuple[Path, tuple[str, ...]]:
    """A disk that somebody has used, and the options that plug it in."""
    path = folder / name
    path.write_bytes(b"old " * (MIB // 4) * mib)
    where = f"if=none,id={name},format=raw,file={path}{drive}"
    return path, ("-drive", where, "-device", f"{device},drive={name},serial={name}")


CARDS = (
    *("-netdev", "user,id=nowhere,restrict=on,dns=10.0.2.9", "-device", "e1000e,netdev=nowhere,mac=52:54:00:00:00:0a"),
    *("-netdev", "user,id=unplugged", "-device", "virtio-net-pci,netdev=unplugged,mac=52:54:00:00:00:0b"),
    *("-netdev", "user,id=leads", "-device", "virtio-net-pci,netdev=leads,mac=52:54:00:00:00:0c"),
)
"""The first has DHCP and the boot server's own network, and yet does not lead there; the second has no cable."""


WIRE = (
    *("-netdev", "hubport,id=wire1,hubid=1", "-device", "virtio-net-pci,netdev=wire1,mac=52:54:00:00:00:0d"),
    *("-netdev", "hubport,id=wire2,hubid=1", "-device", "virtio-net-pci,netdev=wire2,mac=52:54:00:00:00:0e"),
)
"""Two more cards, eth3 and eth4, on one wire that leads nowhere else."""


def within(server: BootServer) -> str:
    """Its address as the guest sees it."""
    return server.url.replace("127.0.0.1", "10.0.2.2")


async def test_the_card_that_leads_and_the_disk_that_suits_are_found(built: Built, tmp_path: Path) -> None:
    """By DHCP and by a given address; images for either sectors, each on its own kind of disk, one of them compressed;
    then all is erased."""
    large, plain = image_with_large_sectors(), disk_image(tmp_path, "gpt")
    to_large, to_plain, erase = deployment(large), deployment(plain, "zstd", serial="emulated"), erasing("full")
    seed = seed_iso(tmp_path)
    to_large.files = {**to_large.files, "seed": seed}
    to_large.configuration["seed"] = {"bytes": len(seed), "digest": digest(seed)}
    sectors = "virtio-blk-pci,logical_block_size=4096,physical_block_size=4096"
    native, native_options = plugged_in(tmp_path, "native", sectors, 40)
    emulated, options = plugged_in(tmp_path, "emulated", "scsi-hd,physical_block_size=4096", 40, ",discard=unmap")
    nvme, nvme_options = plugged_in(tmp_path, "nvme", "nvme", 48)
    ata, ata_options = plugged_in(tmp_path, "ata", "ide-hd", 40, ",discard=ignore")
    disks = (*native_options, "-device", "virtio-scsi-pci", *options, *nvme_options, *ata_options)
    erase.away = 10**9  # until what was written was looked at
    with contextlib.ExitStack() as servers:
        for server in (to_large, to_plain, erase):
            servers.enter_context(server)
        by_address = "mulligan.address=10.0.2.77/24"
        by_mac = "mulligan.address=10.0.2.78/24 mulligan.mac=52:54:00:00:00:0C"
        jobs = [(within(to_plain), ""), (within(to_large), by_address), (within(erase), by_mac)]
        kernel = ("-kernel", built.image.kernel, "-initrd", initrd_with_jobs(built, tmp_path, jobs))
        boot = (*kernel, "-append", built.image.command_line(""))
        async with booted(tmp_path, *BIOS, *boot, *CARDS, *WIRE, *disks, *stopped(tmp_path)) as machine:
            await plugged(tmp_path, "unplugged")
            for server, disk, image, sector in ((to_plain, emulated, plain, 512), (to_large, native, large, 4096)):
                result = await done(machine, server)
                assert (result["disk"]["serial"], result["disk"]["sector_bytes"]) == (disk.name, sector)
                assert disk.read_bytes()[MIB : 11 * MIB] == image[MIB : 11 * MIB]
                seed = partition_start(disk, result["seed_partition"], sector)
                check_seed(disk, seed, sector)
            erase.away = 0
            result = await done(machine, erase)
            said = await machine.says("powering off in a minute")
    for disk in (native, emulated, nvme, ata):
        assert not any(disk.read_bytes()), disk.name
    how = {each["disk"]["serial"]: each["how"] for each in result["disks"]}
    assert how.keys() == {"native", "emulated", "nvme", "ata"}
    assert how["nvme"].startswith("secure format; 1024 places")
    assert how["emulated"].startswith("discard; 1024 places")
    assert how["native"].startswith("overwritten with zeros, and read back whole")
    assert "no ATA secure erase: the disk offers none" in how["ata"]
    assert "not used: eth0 (52:54:00:00:00:0a, link), eth1 (52:54:00:00:00:0b, no link)" in said
    reached = re.findall(r"reached from (\S+) by eth2 \(52:54:00:00:00:0c\)", said)
    assert "tagged: 10.7.0.2 by eth3.7 (52:54:00:00:00:0d)" in said
    assert "name servers: ['nameserver', '10.0.2.3']" in said and "10.0.2.9" not in said
    assert len(reached) == 3 and reached[1:] == ["10.0.2.77", "10.0.2.78"]
    assert "mulligan: writing: writing the image to /dev/vda" in said and "mulligan: writing: 100 % after" in said


async def done(machine: Machine, server: BootServer) -> dict[str, Any]:
    """The result of a job, once it is told."""
    async with asyncio.timeout(BOOT_SECONDS):
        while not server.reports or server.last["phase"] not in ("waiting", "failed"):
            assert machine.process.returncode is None, machine.said()[-2000:]
            await asyncio.sleep(0.1)
    assert "result" in server.last, (server.last, machine.said()[-4000:])
    result: dict[str, Any] = server.last["result"]
    return result


def check_seed(disk: Path, start: int, sector: int) -> None:
    """A seed is where cloud-init finds it: an ISO as it came, or its files in a FAT of the disk's sectors."""
    if sector == 512:
        with disk.open("rb") as file:
            file.seek(start)
            assert file.read(len(SEED)) == SEED
        return
    found = subprocess.run(
        ["blkid", "-p", "-O", str(start), "-o", "export", disk], capture_output=True, text=True, check=True
    )
    assert {"TYPE=vfat", "LABEL=CIDATA", f"BLOCK_SIZE={sector}"} <= set(found.stdout.split())
    assert USER_DATA.encode() in disk.read_bytes()[start:]
