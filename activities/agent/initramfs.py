"""The agent's root file system: busybox, Python, what writes and erases disks, and drivers for servers.

Left out on purpose: graphics, sound, wireless, keyboards; drivers of Fibre Channel and iSCSI adapters, so that no disk
of a storage network is ever in reach; Python's parts for users, tests and TLS.
"""

from __future__ import annotations

from pathlib import Path

from mulligan.activities.agent.card_firmware import install_firmware
from mulligan.activities.agent.interpreter import compile_program, install_python
from mulligan.activities.images.build.host import run
from mulligan.activities.images.build.tree import Drivers, copy, executable, install

HERE = Path(__file__).parent
ON_MACHINE = HERE / "on_machine"
"""The agent's program: every Python file there becomes one of the package `agent`, whose module `main` is run."""

PACKAGES = (
    *("busybox-static", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib"),
    *("fdisk", "gdisk", "util-linux", "nvme-cli", "hdparm", "efibootmgr", "zstd"),
    *("libblkid1", "libbz2-1.0", "libc6", "libcap2", "libdbus-1-3", "libefiboot1", "libefivar1", "libexpat1"),
    *("libfdisk1", "libffi8", "libgcc-s1", "libgcrypt20", "libgpg-error0", "libjson-c5", "liblz4-1", "liblzma5"),
    *("libmount1", "libnvme1", "libpcre2-8-0", "libpopt0", "libreadline8", "libselinux1", "libsmartcols1", "libssl3"),
    *("libstdc++6", "libsystemd0", "libtinfo6", "libudev1", "libuuid1", "libzstd1", "zlib1g"),
)
"""Besides the kernel: what is run, and the libraries that it needs (the build says when one is missing)."""

PROGRAMS = (
    *("bin/busybox", "bin/lsblk", "usr/bin/partx", "usr/bin/zstd", "bin/efibootmgr"),
    *("sbin/blkdiscard", "sbin/blockdev", "sbin/hdparm", "sbin/sfdisk", "sbin/sgdisk", "sbin/wipefs", "usr/sbin/nvme"),
)
"""Whatever else is called is an applet of busybox."""

DRIVER_FOLDERS = (
    *("drivers/nvme/host", "drivers/ata", "drivers/scsi", "drivers/message/fusion", "drivers/virtio", "drivers/hv"),
    *("drivers/pci/controller", "drivers/usb/host", "drivers/usb/storage"),
    *("drivers/net/ethernet", "drivers/net/phy", "drivers/net/vmxnet3", "drivers/net/hyperv"),
    *("fs/isofs", "fs/fat", "fs/efivarfs"),
)
DRIVERS = (
    *("virtio_blk", "virtio_net", "virtio-rng", "xen-blkfront", "xen-netfront", "button", "loop", "8021q"),
    "edd",
    *("crc32c_generic", "crc32c-intel", "crct10dif_common", "nls_cp437", "nls_ascii", "nls_utf8"),
)
NETWORK_STORAGE = ("scsi_transport_fc", "scsi_transport_iscsi", "nvme_fabrics", "libfc", "libiscsi")
"""What the drivers of storage networks are built on: they, and all that need them, stay behind."""
KEPT = frozenset({"hv_storvsc"})
"""Needs one of those, and drives the local disks of a Hyper-V machine."""


def make_tree(packages: Path, tree: Path, *, linux: str, firmware: bool) -> int:
    """Make the root file system at `tree`, of unpacked packages, with the drivers of that kernel version.

    Gives how many files of firmware went in: none where it is not wanted.
    """
    _make_folders(tree)
    install(packages, tree, *PROGRAMS)
    install_python(packages, tree)
    for applet in run(packages / "bin/busybox", "--list").split():
        if not any((tree / folder / applet).exists() for folder in ("bin", "sbin", "usr/bin", "usr/sbin")):
            (tree / "bin" / applet).symlink_to("busybox")
    _install_drivers(packages, tree, linux)
    executable(tree / "init", (HERE / "init.sh").read_text())
    executable(tree / "etc/udhcpc/default.script", (HERE / "dhcp.sh").read_text())
    for program in sorted(ON_MACHINE.glob("*.py")):
        copy(program, tree / "agent" / program.name)
    compile_program(packages, tree / "agent")
    return install_firmware(packages, tree) if firmware else 0


def _make_folders(tree: Path) -> None:
    for folder in (
        "agent",
        "bin",
        "dev",
        "etc",
        "proc",
        "root",
        "run",
        "sbin",
        "sys",
        "tmp",
        "usr/bin",
        "usr/sbin",
        "var",
    ):
        (tree / folder).mkdir(parents=True)
    (tree / "sbin/modprobe").symlink_to("../bin/busybox")  # where the kernel looks for it
    (tree / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (tree / "etc/group").write_text("root:x:0:\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (tree / "etc/mtab").symlink_to("/proc/mounts")


def _install_drivers(packages: Path, tree: Path, linux: str) -> None:
    drivers = Drivers(packages, linux)
    wanted = drivers.below(*DRIVER_FOLDERS) | {name.replace("-", "_") for name in DRIVERS}
    drivers.copy(tree, wanted - (drivers.needing(*NETWORK_STORAGE, "scsi_debug") - KEPT))
