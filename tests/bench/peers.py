"""Peers that are installed for a benchmark only: each in an environment of its own, kept below the user's cache.

Nothing of them is a dependency of Mulligan, and nothing of Mulligan is in their environments.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_INSTALL_SECONDS = 900


class NoPeerError(Exception):
    """A peer could not be installed or started here; says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A program to be measured beside ours, with exact versions of what it is made of."""

    name: str
    requirements: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(self.requirements[:1]).replace("==", " ")

    def environment(self) -> Path:
        """The environment that it is installed in, made if it is not there. Raises `NoPeerError`."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        home = cache / "mulligan-bench" / self.name
        home.mkdir(parents=True, exist_ok=True)
        mark, wanted = home / "installed", "\n".join(self.requirements)
        with (home / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not mark.exists() or mark.read_text() != wanted:
                mark.unlink(missing_ok=True)
                _install(self, home)
                mark.write_text(wanted)
        return home


PLACEMENT = Peer("placement", ("openstack-placement==16.0.0", "psycopg2-binary==2.9.13"))
IRONIC = Peer("ironic", ("ironic==39.0.0",))


def have_part(quick: bool) -> bool:
    """Whether peers are measured: always but in a quick run, and with PEERS=1 in the environment in that too."""
    return not quick or bool(os.environ.get("PEERS"))


def _install(peer: Peer, home: Path) -> None:
    print(f"Installing {peer} for its benchmark into {home} (once)", file=sys.stderr, flush=True)
    venv.create(home, clear=False, with_pip=True)
    command = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *peer.requirements], capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise NoPeerError(f"{peer} could not be installed into {home}: {said[-1]}")


@contextmanager
def tied(
    command: list[str], *, output: IO[str], environment: Mapping[str, str] | None = None, told: bool = False
) -> Iterator[subprocess.Popen[str]]:
    """Run a process, and what it starts, that ends with this one; all of it is killed at the end.

    What it says goes to `output`; if it is to be `told` what to do, by lines, only its errors do.
    """
    pipe = subprocess.PIPE if told else None
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command],
        text=True,
        stdin=pipe or subprocess.DEVNULL,
        stdout=pipe or output,
        stderr=output,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
