"""The demo image: Debian's kernel, busybox and dropbear on a real disk, up in seconds even under emulation.

GRUB starts the kernel with an initramfs, which grows the ext4 root file system to the disk and enters it; there, small
shell scripts (beside this module) read the NoCloud seed, bring up network and SSH, and call home.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
import uuid as uuids
from pathlib import Path

from mulligan.activities.images.build import disk
from mulligan.activities.images.build.host import exclusive, require, run
from mulligan.activities.images.build.output import BuiltImage, Progress, digest, published
from mulligan.activities.images.build.packages import Archive, unpack
from mulligan.activities.images.build.tree import Drivers, executable, install
from mulligan.activities.values import Firmware, ImageFormat

SIZE_BYTES = 256 * disk.MIB
SCRIPTS = Path(__file__).parent

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio-rng", "virtio_mmio"),
    *("ext4", "crc32c_generic", "isofs", "vfat", "nls_cp437", "nls_ascii", "sr_mod", "sd_mod"),
    *("ahci", "ata_piix", "nvme", "usb-storage", "uas", "xhci-pci", "ehci-pci"),
    *("e1000", "e1000e", "igb", "evdev", "button"),
)
"""The drivers that the demo brings along, with what they depend on; which of them are loaded, the hardware says."""

FOLDERS = ("dev", "proc", "sys", "run", "tmp", "root", "home", "etc/acpi/PWRF", "var/log", "var/lib")
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/group": "root:x:0:\ntty:x:5:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\n",
    "etc/shells": "/bin/sh\n",
    "etc/hostname": "demo\n",
    "etc/issue": "Mulligan demo image; log in over SSH with a key of the request\n",
    "etc/motd": "This is a machine that Mulligan provisioned from its demo image (busybox on a Debian kernel).\n",
    "etc/os-release": 'ID=mulligan-demo\nNAME="Mulligan demo"\nPRETTY_NAME="Mulligan demo image"\n',
    "etc/profile": "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n",
    "etc/inittab": """\
::sysinit:/usr/lib/mulligan/boot
::once:/usr/lib/mulligan/late
ttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100
tty1::respawn:/sbin/getty 38400 tty1 linux
::ctrlaltdel:/sbin/reboot
::shutdown:/bin/sync
::shutdown:/bin/umount -a -r
""",
}
# On a BIOS, the kernel's 16-bit entry unpacks it 1.4 s sooner under emulation than the 32-bit one does.
GRUB_CFG = """\
set arguments="root=UUID={uuid} console=tty0 console=ttyS0,115200 panic=30"
if [ "$grub_platform" = pc ]; then
  linux16 /boot/vmlinuz $arguments
  initrd16 /boot/initrd.img
else
  linux /boot/vmlinuz $arguments
  initrd /boot/initrd.img
fi
boot
"""
EXECUTABLES = {"boot": "demo_boot.sh", "late": "demo_late.sh", "dhcp": "demo_dhcp.sh", "flatten": "demo_flatten.sh"}


def build_demo(output: Path, *, workdir: Path, progress: Progress) -> BuiltImage:
    """Build the demo image at `output` (qcow2), with downloads cached in `workdir`.

    Raises HostNotReady for what the host lacks, Unreachable for what cannot be fetched, Conflict where another build
    uses the work directory. Nothing is left behind but the cache, whether it fails or is interrupted.
    """
    workdir = workdir.resolve()
    with exclusive(workdir):
        require((*disk.PROGRAMS, "apt-get", "dpkg-deb"), free_bytes=1024 * disk.MIB, at=workdir)
        with tempfile.TemporaryDirectory(dir=workdir, prefix="demo-") as scratch, published(output) as partial:
            _build(Path(scratch), partial, Archive(workdir / "apt", "bookworm"), progress)
            sha256 = digest(partial)
    progress("demo image built", 1.0)
    firmware = (Firmware.BIOS, Firmware.UEFI)
    return BuiltImage(output, ImageFormat.QCOW2, SIZE_BYTES, "x86_64", firmware, sha256, "demo")


def _build(scratch: Path, output: Path, archive: Archive, progress: Progress) -> None:
    progress("fetching Debian's package lists", 0.0)
    archive.refresh()
    kernel = archive.dependency("linux-image-amd64")
    programs = archive.closure("dropbear-bin", "e2fsprogs", "fdisk")
    loaders = ("shim-signed", "grub-efi-amd64-signed", "grub-pc-bin")
    fetched = archive.fetch(
        (kernel, "busybox-static", *loaders, *programs),
        lambda part: progress("fetching packages", 0.2 + 0.3 * part),
    )
    progress("unpacking packages", 0.5)
    packages = scratch / "packages"
    unpack(fetched, packages)
    progress("making the initramfs", 0.7)
    root, uuid = scratch / "root", str(uuids.uuid4())
    _make_root(packages, root)
    _make_boot(packages, kernel.removeprefix("linux-image-"), scratch, root / "boot", uuid)
    progress("writing the disk", 0.85)
    raw = scratch / "disk.raw"
    disk.write_disk(raw, root, disk.Loaders(packages), size_bytes=SIZE_BYTES, uuid=uuid, label="mulligan-demo")
    progress("converting the disk", 0.95)
    disk.to_qcow2(raw, output)


def _make_root(packages: Path, root: Path) -> None:
    """The root file system: busybox for nearly everything, dropbear for SSH, and the scripts."""
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "root").chmod(0o700)
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "etc/shadow").chmod(0o600)
    (root / "etc/mtab").symlink_to("/proc/mounts")
    (root / "var/run").symlink_to("/run")
    install(packages, root, "bin/busybox", "usr/sbin/dropbear", "usr/bin/dropbearkey")
    for name in ("bin/sh", "sbin/init"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to("/bin/busybox")
    for name, script in EXECUTABLES.items():
        executable(root / "usr/lib/mulligan" / name, (SCRIPTS / script).read_text())
    shutil.copy(SCRIPTS / "demo_common.sh", root / "usr/lib/mulligan/common")
    executable(root / "etc/acpi/PWRF/00000080", "#!/bin/sh\nexec /sbin/poweroff\n")


def _make_boot(packages: Path, version: str, scratch: Path, boot: Path, uuid: str) -> None:
    """Kernel, initramfs and the configuration by which GRUB starts them."""
    (boot / "grub").mkdir(parents=True)
    shutil.copy(packages / f"boot/vmlinuz-{version}", boot / "vmlinuz")
    tree = scratch / "initramfs"
    install(packages, tree, "bin/busybox", "sbin/resize2fs", "sbin/sfdisk")
    Drivers(packages, version).copy(tree, MODULES)
    executable(tree / "init", (SCRIPTS / "demo_initramfs.sh").read_text())
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    archive = scratch / "initramfs.cpio"
    busybox = packages / "bin/busybox"
    run(busybox, "cpio", "-o", "-H", "newc", "-R", "0:0", "-F", archive, stdin=names + "\n", cwd=tree)
    (boot / "initrd.img").write_bytes(gzip.compress(archive.read_bytes(), compresslevel=6))
    (boot / "grub/grub.cfg").write_text(GRUB_CFG.format(uuid=uuid))
