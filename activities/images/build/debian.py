"""Full Debian: systemd, cloud-init and OpenSSH on the layout of Debian's own cloud images, made by mmdebstrap.

The kernel is the general one, not the cloud flavour: that one has no driver for SATA, and so would not see a seed or
virtual media there.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
import uuid as uuids
from collections.abc import Callable
from pathlib import Path

from mulligan.activities.errors import HostNotReady, InvalidRequest
from mulligan.activities.images.build import disk
from mulligan.activities.images.build.host import exclusive, require, watch
from mulligan.activities.images.build.output import BuiltImage, Progress, digest, published
from mulligan.activities.images.build.packages import sources
from mulligan.activities.values import Firmware, ImageFormat

SIZE_BYTES = 3072 * disk.MIB
NEEDED_BYTES = 4096 * disk.MIB
CUSTOMIZE = Path(__file__).with_name("debian_customize.sh")

PACKAGES = (
    *("linux-image-amd64", "initramfs-tools", "zstd", "grub-cloud-amd64"),
    *("systemd-sysv", "systemd-resolved", "systemd-timesyncd", "dbus", "libpam-systemd", "udev"),
    *("cloud-init", "cloud-guest-utils", "fdisk", "e2fsprogs", "qemu-guest-agent"),
    *("openssh-server", "sudo", "ca-certificates", "netbase", "iproute2", "iputils-ping", "procps", "less"),
)

INITRAMFS_STEPS = 400
"""What making the initramfs weighs in the progress, in steps of one package."""


def build_debian(output: Path, *, workdir: Path, progress: Progress, release: str = "bookworm") -> BuiltImage:
    """Build a Debian cloud image at `output` (qcow2), with downloads cached in `workdir`; needs root.

    Raises InvalidRequest for what is no release's name, HostNotReady for what the host lacks or what mmdebstrap says,
    Conflict where another build uses the work directory. Nothing is left behind but the cache.
    """
    if not re.fullmatch(r"[a-z]{2,20}", release):
        field = ("release", "a Debian code name in lower-case letters, e.g. bookworm")
        raise InvalidRequest(f"{release!r} is not the name of a Debian release; try bookworm", violations=[field])
    if os.geteuid() != 0:
        raise HostNotReady(
            "building a Debian image sets up its packages in a chroot, which needs root; this is not root",
            remedy="sudo mulligan image build debian-12",
        )
    workdir = workdir.resolve()
    with exclusive(workdir):
        require((*disk.PROGRAMS, "apt-get", "mmdebstrap"), free_bytes=NEEDED_BYTES, at=workdir)
        with tempfile.TemporaryDirectory(dir=workdir, prefix="debian-") as scratch, published(output) as partial:
            _build(Path(scratch), partial, workdir / "debs" / release, release, progress)
            progress("computing the digest", 0.98)
            sha256 = digest(partial)
    progress("Debian image built", 1.0)
    firmware = (Firmware.BIOS, Firmware.UEFI)
    return BuiltImage(output, ImageFormat.QCOW2, SIZE_BYTES, "x86_64", firmware, sha256, "debian")


def _build(scratch: Path, output: Path, debs: Path, release: str, progress: Progress) -> None:
    root, uuid = scratch / "root", str(uuids.uuid4())
    scratch.chmod(0o755)  # apt's unprivileged user reads below it
    debs.mkdir(parents=True, exist_ok=True)
    _bootstrap(root, uuid, debs, release, progress)
    progress("writing the disk", 0.85)
    raw = scratch / "disk.raw"
    disk.write_disk(raw, root, disk.Loaders(root), size_bytes=SIZE_BYTES, uuid=uuid, label="debian")
    progress("converting the disk", 0.93)
    disk.to_qcow2(raw, output)


def _bootstrap(root: Path, uuid: str, debs: Path, release: str, progress: Progress) -> None:
    """Let mmdebstrap make the root directory, in namespaces of its own: what it mounts or starts ends with it."""
    alone = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")
    cache = shlex.quote(str(debs))
    esp = f"{uuid[:4]}-{uuid[4:8]}".upper()
    options = (
        *("--mode=root", "--variant=minbase", "--architectures=amd64", "--format=directory", "--verbose"),
        f"--include={','.join(PACKAGES)}",
        *("--skip=download/empty", "--skip=essential/unlink"),
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook=sync-in {cache} /var/cache/apt/archives",
        f'--customize-hook=sh {shlex.quote(str(CUSTOMIZE))} "$1" {uuid} {esp}',
        f"--customize-hook=sync-out /var/cache/apt/archives {cache}",
    )
    on_line = _counting(lambda what, part: progress(what, 0.85 * part))
    watch(*alone, "mmdebstrap", *options, release, root, *sources(release), on_line=on_line)


def _counting(progress: Progress) -> Callable[[str], None]:
    """Progress by the packages that have been unpacked and set up, out of all that will be installed."""
    total, seen, waiting = INITRAMFS_STEPS, 0, 0
    shown = 0.0
    stages = {"G": "fetching packages", "U": "unpacking packages", "S": "setting up packages"}

    def on_line(line: str) -> None:
        nonlocal total, seen, waiting, shown
        if match := re.search(r"(\d+) newly installed", line):
            total += 2 * int(match[1])
        if line.startswith("update-initramfs: Generating"):
            waiting = INITRAMFS_STEPS // 2  # made twice: for the kernel, then with all packages in place
            progress("making the initramfs", shown)
        elif re.match(r"Get:|Unpacking |Setting up ", line):
            seen, waiting = seen + (line[0] != "G") + waiting, 0  # what is cached is not fetched, and so not counted
            shown = max(shown, min(1.0, seen / total))
            progress(stages[line[0]], shown)

    return on_line
