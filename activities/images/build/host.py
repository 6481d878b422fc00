"""The host's programs that the builders call: which package has them, and how they are run, watched and ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from mulligan.activities.errors import Conflict, HostNotReady

PACKAGE_OF = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "grub-mkimage": "grub-common",
    "mcopy": "mtools",
    "mformat": "mtools",
    "mke2fs": "e2fsprogs",
    "mmd": "mtools",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "sfdisk": "fdisk",
    "unshare": "util-linux",
    "xorriso": "xorriso",
}
"""Each program that a builder may call, and the Debian package that brings it."""

ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def require(programs: tuple[str, ...], *, free_bytes: int, at: Path) -> None:
    """Raise HostNotReady unless the host is x86_64, has the programs, and has so many bytes free at the path."""
    if platform.machine() != "x86_64":
        raise HostNotReady(
            f"building an x86_64 image needs an x86_64 host; this one is {platform.machine()}",
            remedy="build the image on an x86_64 host and add it with `mulligan image add`",
        )
    missing = [name for name in programs if shutil.which(name, path=ENVIRONMENT["PATH"]) is None]
    if missing:
        packages = " ".join(sorted({PACKAGE_OF[name] for name in missing}))
        raise HostNotReady(
            f"building the image needs {', '.join(missing)}, which this host does not have; install {packages}",
            remedy=f"apt-get install --no-install-recommends {packages}",
        )
    free = shutil.disk_usage(at).free
    if free < free_bytes:
        raise HostNotReady(
            f"building the image needs {free_bytes >> 20} MiB free in {at}; there are {free >> 20} MiB",
            remedy=f"make room in {at}, or choose another work directory",
        )


def run(*command: str | Path, stdin: str = "", cwd: Path | None = None) -> str:
    """Run a program to its end and return its standard output; HostNotReady with its last words where it fails."""
    with tempfile.TemporaryFile("w+") as errors, _started(command, cwd, errors.fileno()) as process:
        output, _ = process.communicate(stdin)
        errors.seek(0)
        _check(command, process.returncode, (output + errors.read()).splitlines())
        return output


def watch(*command: str | Path, on_line: Callable[[str], None], cwd: Path | None = None) -> None:
    """Run a program and pass each line that it says on either stream to `on_line` as it comes; fails like `run`."""
    last: deque[str] = deque(maxlen=12)
    with _started(command, cwd, subprocess.STDOUT) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        for line in process.stdout:
            last.append(line.rstrip())
            on_line(line.rstrip())
        process.wait()
        _check(command, process.returncode, list(last))


@contextlib.contextmanager
def _started(command: tuple[str | Path, ...], cwd: Path | None, stderr: int) -> Iterator[subprocess.Popen[str]]:
    """The program in a session of its own, which is ended as a whole when the block is left early."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=cwd,
        env=ENVIRONMENT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with process:
        try:
            yield process
        except BaseException:  # whatever it was, a cancel too: nothing half made, and passed on
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if process.stdout is not None:
                process.stdout.read()  # ends when the last process that holds the pipe has ended
            raise


def _check(command: tuple[str | Path, ...], status: int, lines: list[str]) -> None:
    if status == 0:
        return
    words = "\n  ".join(line for line in lines[-12:] if line.strip()) or "(it said nothing)"
    raise HostNotReady(
        f"{Path(command[0]).name} failed with exit status {status}; it said:\n  {words}",
        remedy="mend what it names, then build again",
        program=Path(command[0]).name,
        status=status,
    )


@contextlib.contextmanager
def exclusive(workdir: Path) -> Iterator[None]:
    """Hold the work directory for one build at a time; Conflict where another build holds it."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another build uses {workdir}; wait for it, or choose another work directory") from None
        yield
