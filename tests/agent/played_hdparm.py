"""A drive with ATA's security feature set (ACS-4, 4.18), as `hdparm` would find it: no emulator has one.

It keeps its state in a file beside the disk, and its disk is a file. `hdparm` is called as the agent calls it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SUPPORTED, ENABLED, LOCKED, FROZEN, EXPIRED, ENHANCED = (1 << bit for bit in range(6))
SCRIPT = f"#!{sys.executable}\nimport runpy\nrunpy.run_path({__file__!r}, run_name='__main__')\n"


def install(folder: Path) -> Path:
    """Put it into a folder, by the name of hdparm; the folder, for PATH."""
    folder.mkdir()
    (folder / "hdparm").write_text(SCRIPT)
    (folder / "hdparm").chmod(0o755)
    return folder


def state_of(disk: Path) -> Path:
    """Where the drive keeps its state: status word, password, what it heard, what goes wrong."""
    return disk.with_name(disk.name + ".ata")


def give(disk: Path, status: int, **more: Any) -> None:
    """Make the disk such a drive. `breaks`: the command that is cut off. `erases`: what its erasing leaves (a byte).
    `hides`: how many sectors; None where it does not say."""
    state = {"status": status, "password": "", "heard": [], "breaks": "", "erases": 0, "hides": 0, **more}
    state_of(disk).write_text(json.dumps(state))


def main(words: list[str]) -> int:
    """One call of hdparm."""
    disk = Path(words[-1])
    if not state_of(disk).exists():
        print(f"{disk}: HDIO_DRIVE_CMD(identify) failed: Inappropriate ioctl for device", file=sys.stderr)
        return 25
    drive = json.loads(state_of(disk).read_text())
    if words[0] == "--Istdout":
        _identify(disk, drive["status"])
        return 0
    if words[0] == "-N":
        return _tell_sizes(disk, drive["hides"])
    command, password = words[2].removeprefix("--security-"), words[3]
    drive["heard"].append(command)
    good = _do(drive, command, password, disk)
    state_of(disk).write_text(json.dumps(drive))
    if not good:
        print(f"SECURITY_{command}: Input/output error", file=sys.stderr)
    return 0 if good else 5


def _identify(disk: Path, status: int) -> None:
    identity = [0] * 256
    identity[89], identity[90], identity[128] = 0x8000 | 60, 1, status
    print(f"\n{disk}:")
    for at in range(0, 256, 8):
        print(" ".join(f"{word:04x}" for word in identity[at : at + 8]))


def _tell_sizes(disk: Path, hides: int | str | None) -> int:
    if hides is None:
        print(f"SG_IO: bad/missing sense data\n{disk}:\n READ_NATIVE_MAX_ADDRESS failed: Input/output error")
        return 5
    seen = disk.stat().st_size // 512
    if isinstance(hides, str):
        print(f"\n{disk}:\n max sectors   = {seen}/{hides}")
        return 0
    print(f"\n{disk}:\n max sectors   = {seen}/{seen + hides}, HPA is {'enabled' if hides else 'disabled'}")
    return 0


def _do(drive: dict[str, Any], command: str, password: str, disk: Path) -> bool:
    status = drive["status"]
    if status & FROZEN or (command == "erase-enhanced" and not status & ENHANCED):
        return False
    if command == "set-pass":
        drive.update(password=password, status=status | ENABLED)
        return not status & LOCKED
    if not status & ENABLED or password != drive["password"]:
        return False
    if command == "unlock":
        drive["status"] = status & ~LOCKED
    elif command == "disable":
        drive.update(password="", status=status & ~(ENABLED | LOCKED))
        return not status & LOCKED
    elif drive["breaks"] == command:
        return False
    else:
        disk.write_bytes(bytes([drive["erases"]]) * disk.stat().st_size)
        drive.update(password="", status=status & ~(ENABLED | LOCKED))
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
