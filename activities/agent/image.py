"""The deploy agent's image as it was built: kernel, initrd and ISO, and the kernel arguments of one run.

    <directory>/manifest.json          which build is the present one; replaced in one move
    <directory>/<first 16 digits>/     that build: vmlinuz, initrd.img, agent.iso

The ISO's GRUB configuration has a hole: bytes of a fixed place and length that GRUB reads as a script. Whoever serves
the ISO puts `AgentImage.hole` there while it streams; the file on disk never changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mulligan.activities.errors import HostNotReady, InvalidRequest

MANIFEST = "manifest.json"
KERNEL, INITRD, ISO = "vmlinuz", "initrd.img", "agent.iso"
FILES = (KERNEL, INITRD, ISO)
REMEDY = "mulligan agent build"

FIXED_ARGUMENTS = "console=tty0 console=ttyS0,115200 quiet loglevel=4 printk.devkmsg=on panic=60 scsi_mod.scan=sync"
"""What every boot of the agent is started with: it speaks on the screen and on the first serial port."""

COMMAND_LINE_BYTES = 2047
"""The longest command line that Linux takes on x86 (COMMAND_LINE_SIZE, less its final zero)."""

HOLE_BYTES = 4096
_FILLER = b"# mulligan: the arguments of a run belong here\n"


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """A file as it was built."""

    name: str
    bytes: int
    sha256: str
    """Hexadecimal."""


@dataclass(frozen=True, slots=True)
class AgentImage:
    """One build of the agent. Its files stay while it is the newest build or the one before: load it for each use."""

    directory: Path
    """Where builds are kept."""
    version: str
    """`sha256:<hex>` over the digests of kernel, initrd and ISO."""
    hole_offset: int
    """Where in the ISO, in bytes, the kernel arguments of a run are written."""
    hole_bytes: int
    """How many bytes are replaced there, always all of them."""
    files: tuple[BuiltFile, ...] = ()
    """Kernel, initrd and ISO as they were built."""
    linux: str = ""
    """The kernel's version, e.g. `6.1.0-56-amd64`."""
    firmware: int = 0
    """How many files there are for its drivers to load into cards and controllers; 0 when it was built without."""

    @property
    def folder(self) -> Path:
        """Where the files of this build lie."""
        return self.directory / folder_of(self.version)

    @property
    def kernel(self) -> Path:
        """Debian's kernel, signed for Secure Boot."""
        return self.folder / KERNEL

    @property
    def initrd(self) -> Path:
        """The agent's root file system, which runs from memory."""
        return self.folder / INITRD

    @property
    def iso(self) -> Path:
        """Kernel and initrd on a medium that boots by BIOS and UEFI, from a CD and from a USB stick."""
        return self.folder / ISO

    @classmethod
    def load(cls, directory: Path) -> AgentImage:
        """The newest build in this directory.

        Raises HostNotReady, with the command that mends it, when there is none or when a file of it is missing, has
        another size, or has no hole where it ought to be. It does not read the files; `check` does.
        """
        try:
            said = json.loads((directory / MANIFEST).read_text())
            found = cls(
                directory=directory,
                version=str(said["version"]),
                hole_offset=int(said["hole_offset"]),
                hole_bytes=int(said["hole_bytes"]),
                files=tuple(_file(name, said["files"][name]) for name in FILES),
                linux=str(said["linux"]),
                firmware=int(said.get("firmware", 0)),
            )
        except FileNotFoundError:
            raise HostNotReady(
                f"the deploy agent's image was looked for in {directory}, and there is none; build it with `{REMEDY}`",
                remedy=REMEDY,
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(directory / MANIFEST, f"cannot be read: {type(error).__name__}: {error}") from error
        found._look()
        return found

    def check(self) -> None:
        """Read all of every file, and raise HostNotReady for one whose bytes are not those that were built. Blocks."""
        for built in self.files:
            with (self.folder / built.name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != built.sha256:
                    raise _damaged(self.folder / built.name, "has other bytes than were built")

    def command_line(self, arguments: str) -> str:
        """The command line of a run: what every boot needs, then these. InvalidRequest when it is too long."""
        line = f"{FIXED_ARGUMENTS} {arguments}".rstrip()
        if len(line.encode()) > COMMAND_LINE_BYTES:
            raise InvalidRequest(
                f"the deploy agent's kernel arguments are {len(line.encode())} bytes long, and Linux takes "
                f"{COMMAND_LINE_BYTES}; shorten the boot server's address (boot_url)",
                bytes=len(line.encode()),
            )
        return line

    def hole(self, arguments: str) -> bytes:
        """The bytes for the ISO's hole that start this run: exactly `hole_bytes`.

        Raises InvalidRequest when the arguments are too long, or hold a character that has a meaning of its own there.
        """
        self.command_line(arguments)
        strange = sorted({letter for letter in arguments if not " " <= letter <= "~" or letter in "'\"\\$;"})
        if strange:
            raise InvalidRequest(
                f"the deploy agent's kernel arguments hold {' '.join(map(repr, strange))}, which a boot loader "
                "would read as something else; take it out of the boot server's address (boot_url)"
            )
        script = f"set mulligan='{arguments}'\n".encode()
        return script + b"\n" * (self.hole_bytes - len(script))

    def _look(self) -> None:
        for built in self.files:
            path = self.folder / built.name
            try:
                there = path.stat().st_size
            except OSError as error:
                raise _damaged(path, f"cannot be read: {error.strerror}") from error
            if there != built.bytes:
                raise _damaged(path, f"has {there} bytes, and {built.bytes} were built")
        with self.iso.open("rb") as file:
            file.seek(self.hole_offset)
            if file.read(self.hole_bytes) != empty_hole(self.hole_bytes):
                raise _damaged(self.iso, f"has no room for kernel arguments at byte {self.hole_offset}")


def folder_of(version: str) -> str:
    """The name of the folder that holds a build of this version."""
    return version.removeprefix("sha256:")[:16]


def empty_hole(size: int = HOLE_BYTES) -> bytes:
    """What a hole of that many bytes holds in the ISO on disk: lines that GRUB ignores, as nothing else has them."""
    lines, rest = divmod(size, len(_FILLER))
    return _FILLER * lines + b"#" * (rest - 1) + b"\n" if rest else _FILLER * lines


def _file(name: str, said: Mapping[str, Any]) -> BuiltFile:
    return BuiltFile(name, int(said["bytes"]), str(said["sha256"]))


def _damaged(path: Path, how: str) -> HostNotReady:
    return HostNotReady(
        f"the deploy agent's image is damaged: {path} {how}; build it again with `{REMEDY}`", remedy=REMEDY
    )
