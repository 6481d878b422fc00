"""From a directory to a bootable disk, without mounts, loop devices or privileges.

    1 MiB    BIOS boot partition (14)   GRUB's core image, found through the boot sector
    2 MiB    EFI system partition (15)  shim and GRUB as Debian signed them, under EFI/BOOT
    66 MiB   root (1)                   ext4; last on the disk, so that it can grow

Both firmwares end up in one configuration, /boot/grub/grub.cfg on the root file system.
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mulligan.activities.images.build.host import run

MIB = 1 << 20
SECTOR = 512
ESP_AT, ROOT_AT = 2 * MIB, 66 * MIB

TYPE_BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
TYPE_ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
TYPE_ROOT_X86_64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"

CORE_MODULES = ("biosdisk", "part_gpt", "ext2", "normal", "configfile", "test", "linux", "linux16")
PROGRAMS = ("grub-mkimage", "mcopy", "mformat", "mmd", "mke2fs", "qemu-img", "sfdisk", "unshare")


@dataclass(frozen=True, slots=True)
class Loaders:
    """Where Debian's boot loaders lie after unpacking: grub-pc-bin, shim-signed and grub-efi-amd64-signed."""

    tree: Path

    @property
    def bios(self) -> Path:
        """GRUB's modules for the PC BIOS."""
        return self.tree / "usr/lib/grub/i386-pc"

    @property
    def efi(self) -> dict[str, Path]:
        """The files under EFI/BOOT and where they come from."""
        signed = self.tree / "usr/lib/grub/x86_64-efi-signed"
        return {
            "BOOTX64.EFI": self.tree / "usr/lib/shim/shimx64.efi.signed",
            "grubx64.efi": signed / "grubx64.efi.signed",
        }


def write_disk(disk: Path, root: Path, loaders: Loaders, *, size_bytes: int, uuid: str, label: str) -> None:
    """Write a raw disk of that size: `root` becomes the root file system with that UUID, and the loaders start it.

    The EFI system partition's volume id is the UUID's first eight digits.
    """
    with disk.open("wb") as file:
        file.truncate(size_bytes)
    _write_root(disk, root, size_bytes - ROOT_AT - MIB, uuid, label)
    _write_table(disk, size_bytes)
    with tempfile.TemporaryDirectory(dir=disk.parent) as scratch:
        _write_esp(disk, loaders, uuid, Path(scratch))
        _write_bios_loader(disk, loaders, Path(scratch))


def to_qcow2(disk: Path, output: Path) -> None:
    """Convert the raw disk; holes stay holes."""
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, output)


def _write_root(disk: Path, root: Path, size_bytes: int, uuid: str, label: str) -> None:
    # Without root, a user namespace makes the builder's files root's. The features switched off are beyond GRUB 2.06.
    as_root = () if os.geteuid() == 0 else ("unshare", "--map-root-user", "--")
    features = "^metadata_csum_seed,^orphan_file"
    options = f"offset={ROOT_AT},nodiscard"
    kind = ("-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-O", features)
    run(*as_root, "mke2fs", *kind, "-U", uuid, "-L", label, "-d", root, "-E", options, disk, f"{size_bytes // 1024}k")


def _write_table(disk: Path, size_bytes: int) -> None:
    rows = (
        (14, MIB, ESP_AT - MIB, TYPE_BIOS_BOOT),
        (15, ESP_AT, ROOT_AT - ESP_AT, TYPE_ESP),
        (1, ROOT_AT, size_bytes - ROOT_AT - MIB, TYPE_ROOT_X86_64),
    )
    lines = [f"disk{n} : start={at // SECTOR}, size={size // SECTOR}, type={kind}" for n, at, size, kind in rows]
    run("sfdisk", "--quiet", disk, stdin="label: gpt\n" + "\n".join(lines) + "\n")


def _write_esp(disk: Path, loaders: Loaders, uuid: str, scratch: Path) -> None:
    volume = f"{disk}@@{ESP_AT}"
    sectors = (ROOT_AT - ESP_AT) // SECTOR
    shape = ("-T", str(sectors), "-h", "64", "-s", "32", "-H", str(ESP_AT // SECTOR))
    run("mformat", "-i", volume, *shape, "-N", uuid[:8], "-v", "ESP", "::")
    start = scratch / "grub.cfg"
    words = ("set prefix=($root)/boot/grub", "configfile $prefix/grub.cfg")
    start.write_text("\n".join((f"search.fs_uuid {uuid} root", *words)) + "\n")
    run("mmd", "-i", volume, "::EFI", "::EFI/BOOT", "::EFI/debian")
    for name, source in loaders.efi.items():
        run("mcopy", "-i", volume, source, f"::EFI/BOOT/{name}")
    run("mcopy", "-i", volume, start, "::EFI/debian/grub.cfg")
    with disk.open("r+b") as file:  # mformat writes a partition table of its own, which confuses those who look for one
        file.seek(ESP_AT + 446)
        file.write(bytes(64))


def _write_bios_loader(disk: Path, loaders: Loaders, scratch: Path) -> None:
    """Do what grub-bios-setup does for a BIOS boot partition: embed the core image and point the boot sector at it."""
    core_path = scratch / "core.img"
    form = ("-O", "i386-pc", "-d", loaders.bios, "-p", "(,gpt1)/boot/grub", "-o", core_path)
    run("grub-mkimage", *form, *CORE_MODULES)
    boot = bytearray((loaders.bios / "boot.img").read_bytes())
    core = bytearray(core_path.read_bytes())
    assert len(core) <= ESP_AT - MIB, "the core image must fit its partition"
    first = MIB // SECTOR
    struct.pack_into("<Q", boot, 0x5C, first)  # where the boot sector finds the core image
    boot[0x66:0x68] = b"\x90\x90"  # trust the drive number that the BIOS gives
    # The core image's first sector lists where the rest is: first sector, number of sectors, segment to load it to.
    struct.pack_into("<QHH", core, SECTOR - 12, first + 1, -(-len(core) // SECTOR) - 1, 0x820)
    with disk.open("r+b") as file:
        file.write(boot[:440])  # the rest of the sector is the partition table
        file.seek(MIB)
        file.write(core)
