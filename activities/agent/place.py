"""Where a build of the agent is put: in place of the one before in a single move, when it is whole and small enough."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from mulligan.activities.agent.image import FILES, HOLE_BYTES, INITRD, ISO, KERNEL, MANIFEST, AgentImage, folder_of
from mulligan.activities.errors import HostNotReady, Unsupported
from mulligan.activities.images.build.output import digest, published

MIB = 1 << 20
MAX_BYTES = 100 * MIB
"""The most that kernel and initrd together may take, and the ISO: servers fetch them over slow management networks."""

SCRATCH = ".building-"
"""What the names of folders begin with that builds work in."""


def put_in_place(new: Path, directory: Path, *, hole_offset: int, linux: str, firmware: int = 0) -> AgentImage:
    """Make the files in the folder `new` the build that `directory` has; nobody sees them before all of them are there.

    `new` must be on the same file system, and is gone afterwards. The build before stays, for those who still serve it;
    older ones go. Raises Unsupported, and changes nothing, when the files are larger than `MAX_BYTES` allows.
    """
    _check_sizes(new)
    files = {name: {"bytes": (new / name).stat().st_size, "sha256": _kept(new / name)} for name in FILES}
    version = "sha256:" + hashlib.sha256(" ".join(str(files[name]["sha256"]) for name in FILES).encode()).hexdigest()
    place = {"hole_offset": hole_offset, "hole_bytes": HOLE_BYTES}
    before, final = _present(directory), directory / folder_of(version)
    if before is None or before.folder != final:
        shutil.rmtree(final, ignore_errors=True)  # of a build that was interrupted, or damaged
        new.chmod(0o755)
        new.rename(final)
    said = {"version": version, "linux": linux, "firmware": firmware, **place, "files": files}
    with published(directory / MANIFEST) as partial:
        partial.write_text(json.dumps(said, indent=2) + "\n")
    _forget_others(directory, {final, before.folder if before else final})
    return AgentImage.load(directory)


def forget_scratch(directory: Path) -> None:
    """Remove what a build that was killed has left; to be called by the only one that builds."""
    for left in directory.glob(f"{SCRATCH}*"):
        shutil.rmtree(left)


def _check_sizes(new: Path) -> None:
    sizes = {name: (new / name).stat().st_size for name in FILES}
    for what, size in (("kernel and initrd", sizes[KERNEL] + sizes[INITRD]), ("ISO", sizes[ISO])):
        if size > MAX_BYTES:
            raise Unsupported(
                f"the deploy agent's {what} came out at {size / MIB:.0f} MiB, and at most {MAX_BYTES // MIB} are "
                "served; what was built is thrown away",
                bytes=size,
            )


def _kept(path: Path) -> str:
    """The file's digest, once it is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return digest(path)


def _present(directory: Path) -> AgentImage | None:
    """The build that is there, when it is whole."""
    try:
        image = AgentImage.load(directory)
        image.check()
    except HostNotReady:
        return None
    return image


def _forget_others(directory: Path, kept: set[Path]) -> None:
    for old in directory.iterdir():
        if old.is_dir() and old not in kept and not old.name.startswith(SCRATCH):
            shutil.rmtree(old)
