"""The agent's ISO: one medium that boots by BIOS and by UEFI with Secure Boot, as a CD and as a USB stick.

UEFI starts shim, shim starts GRUB, GRUB starts the kernel: each signed by Debian, so that the one before accepts it.
BIOS starts a GRUB made here. Both end up in /boot/grub/grub.cfg, which has the hole for a run's arguments. GRUB knows
its own medium by a file that bears this build's name, so that no other medium in the machine is taken for it.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from mulligan.activities.agent.image import FIXED_ARGUMENTS, empty_hole
from mulligan.activities.errors import Unsupported
from mulligan.activities.images.build.disk import Loaders
from mulligan.activities.images.build.host import run

PACKAGES = ("shim-signed", "grub-efi-amd64-signed", "grub-pc-bin")
PROGRAMS = ("grub-mkimage", "mcopy", "mformat", "mmd", "xorriso")

LABEL = "MULLIGAN_AGENT"
ESP_KIB = 6 * 1024
CORE_MODULES = (
    *("biosdisk", "part_gpt", "part_msdos", "iso9660", "normal", "configfile", "test", "search", "search_fs_file"),
    *("linux", "linux16", "echo", "sleep", "reboot"),
)
REMOVABLE_GRUB = "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"
"""The one that looks for its configuration on its own medium first."""
GPT_GUID = "6d756c6c-6967-416e-8167-656e74000001"

EPOCH = "1735689600"
"""The time that is written into the medium (2025-01-01), so that equal contents make equal bytes."""


def write_iso(iso: Path, boot: Path, packages: Path, *, name: str) -> int:
    """Write the ISO with the kernel and the initrd of the folder `boot`; returns where its hole begins, in bytes.

    `name` is this build's own. `boot` becomes the medium's /boot, and its loaders are added to it.
    """
    loaders = Loaders(packages)
    grub = boot / "grub"
    grub.mkdir()
    mark = f"mulligan-{name}"
    (boot / mark).touch()
    template = Path(__file__).with_name("grub.cfg").read_text()
    config = template.replace("@arguments@", FIXED_ARGUMENTS).replace("@hole@\n", empty_hole().decode())
    (grub / "grub.cfg").write_text(config)
    start = f"search --no-floppy --file --set=root /boot/{mark}\nset prefix=($root)/boot/grub\n"
    _write_bios_loader(grub / "eltorito.img", loaders, boot.parent / "core.cfg", start)
    esp = boot.parent / "esp.img"
    _write_esp(esp, loaders, boot.parent / "esp.cfg", start + "configfile $prefix/grub.cfg\n")
    _write_medium(iso, boot, esp, loaders)
    return _find_hole(iso)


def _write_bios_loader(image: Path, loaders: Loaders, config: Path, start: str) -> None:
    config.write_text(start)
    form = ("-O", "i386-pc-eltorito", "-d", loaders.bios, "-p", "/boot/grub", "-c", config, "-o", image)
    run("grub-mkimage", *form, *CORE_MODULES)


def _write_esp(esp: Path, loaders: Loaders, config: Path, start: str) -> None:
    """The EFI system partition: shim, and the GRUB that Debian signed for media, which reads this configuration."""
    config.write_text(start)
    dated = ("env", f"SOURCE_DATE_EPOCH={EPOCH}")
    run(*dated, "mformat", "-C", "-i", esp, "-T", str(ESP_KIB * 2), "-h", "64", "-s", "32", "-N", "4d554c4c", "::")
    run(*dated, "mmd", "-i", esp, "::EFI", "::EFI/BOOT", "::boot", "::boot/grub")
    run(*dated, "mcopy", "-i", esp, loaders.efi["BOOTX64.EFI"], "::EFI/BOOT/BOOTX64.EFI")
    run(*dated, "mcopy", "-i", esp, loaders.tree / REMOVABLE_GRUB, "::EFI/BOOT/grubx64.efi")
    run(*dated, "mcopy", "-i", esp, config, "::boot/grub/grub.cfg")


def _write_medium(iso: Path, boot: Path, esp: Path, loaders: Loaders) -> None:
    for path in (*boot.rglob("*"), boot):
        os.utime(path, (int(EPOCH), int(EPOCH)))
    bios = ("-b", "boot/grub/eltorito.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
    stick = ("--grub2-boot-info", "--grub2-mbr", loaders.bios / "boot_hybrid.img", "--mbr-force-bootable")
    partition = ("-append_partition", "2", "0xef", esp, "-appended_part_as_gpt", "-partition_offset", "16")
    uefi = ("-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot")
    form = ("-o", iso, "-V", LABEL, "-r", "-iso-level", "3", "--gpt_disk_guid", GPT_GUID)
    dated = ("env", f"SOURCE_DATE_EPOCH={EPOCH}", "xorriso", "-as", "mkisofs")
    run(*dated, *form, *bios, *stick, *partition, *uefi, "-graft-points", f"boot={boot}")


def _find_hole(iso: Path) -> int:
    """Where the hole begins: once, and once only, in the whole medium."""
    hole = empty_hole()
    with iso.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as bytes_:
        at = bytes_.find(hole)
        if at < 0 or bytes_.find(hole, at + 1) >= 0:
            raise Unsupported("the agent's medium does not hold its GRUB configuration once and in one piece")
        return at
