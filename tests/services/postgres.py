"""A PostgreSQL server of our own for tests: Debian's binaries, a fresh cluster, a Unix socket, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from mulligan.activities.errors import HostNotReady

_START_SECONDS = 60


def binaries() -> Path:
    """The newest PostgreSQL's directory of programs, or `HostNotReady` naming the package that has it."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: float(p.parts[-3]))
    if versions:
        return versions[-1].parent
    found = shutil.which("postgres")
    if found is None:
        message = "PostgreSQL is not installed: no /usr/lib/postgresql/*/bin/postgres; install the package postgresql"
        raise HostNotReady(message, remedy="apt-get install --yes postgresql")
    return Path(found).resolve().parent


@contextmanager
def running_postgres(tmpdir: Path) -> Iterator[str]:
    """Run a server and give the URL of its database `postgres`; nothing of it is left afterwards.

    The server refuses to run as root: root runs it as the user postgres. That user cannot enter root's temporary
    directories, so the cluster then lives in a temporary directory of its own and not in `tmpdir`.
    """
    programs = binaries()
    base = tempfile.mkdtemp(prefix="postgres-", dir=None if os.geteuid() == 0 else tmpdir)
    try:
        as_user = _as_postgres(base) if os.geteuid() == 0 else []
        cluster = f"{base}/data"
        initdb = [*as_user, str(programs / "initdb"), "--pgdata", cluster, "--username=postgres", "--auth=trust"]
        subprocess.run(
            [*initdb, "--no-sync", "--encoding=UTF8"], check=True, capture_output=True, cwd=base, timeout=120
        )
        settings = {"listen_addresses": "", "unix_socket_directories": base, "fsync": "off", "max_connections": "300"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        # Should this process be killed, the server gets the signal to shut down at once.
        tied = ["setpriv", "--pdeathsig", "QUIT", *as_user[1:]]
        command = [*tied, str(programs / "postgres"), "-D", cluster, *options]
        with Path(tmpdir, "postgres.log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=base)
        try:
            url = f"postgresql+psycopg://postgres@/postgres?host={base}"
            _wait_until_up(server, base, Path(tmpdir, "postgres.log"))
            yield url
        finally:
            server.send_signal(signal.SIGQUIT)  # at once: what it holds is thrown away with it
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait(timeout=10)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _as_postgres(base: str) -> list[str]:
    try:
        user = pwd.getpwnam("postgres")
    except KeyError as error:
        message = "root cannot run PostgreSQL and there is no user postgres; install the package postgresql"
        raise HostNotReady(message, remedy="apt-get install --yes postgresql") from error
    os.chown(base, user.pw_uid, user.pw_gid)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


def _wait_until_up(server: subprocess.Popen[bytes], socket: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    pause = threading.Event()
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            psycopg.connect(f"host={socket} user=postgres dbname=postgres connect_timeout=5").close()
        except psycopg.OperationalError:
            pause.wait(0.05)
        else:
            return
    raise HostNotReady(f"PostgreSQL did not come up within {_START_SECONDS} s: {log.read_text()[-2000:]}")
