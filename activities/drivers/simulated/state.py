"""Where a simulated fleet is kept: one SQLite file per fleet, shared by every process that drives it.

Each verb is one short transaction on one thread per process and fleet. The file outlives a killed process (write-ahead
log); it does not promise to outlive a power cut (`synchronous=OFF`), which a simulation need not.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mulligan.activities.errors import HostNotReady, Unreachable
from mulligan.activities.threads import run_in

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS hosts (
  host TEXT PRIMARY KEY, dead INT DEFAULT 0, mended INT DEFAULT 0, busy INT DEFAULT 0, stuck_seed TEXT);
CREATE TABLE IF NOT EXISTS bases (host TEXT, digest TEXT, bytes INT, PRIMARY KEY (host, digest));
CREATE TABLE IF NOT EXISTS objects (
  host TEXT, name TEXT, kind TEXT, project TEXT, machine TEXT, machine_id TEXT, run_id TEXT, fence INT, data TEXT,
  PRIMARY KEY (host, name));
CREATE INDEX IF NOT EXISTS objects_of_machine ON objects (host, machine_id);
CREATE TABLE IF NOT EXISTS machines (
  number INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT, machine_id TEXT, state TEXT DEFAULT 'off',
  powered_at REAL DEFAULT 0, off_at REAL DEFAULT 0, boots INT DEFAULT 0, boot_id TEXT DEFAULT '',
  guest TEXT DEFAULT '{}', notes TEXT DEFAULT '[]', home TEXT DEFAULT '',
  caller INT DEFAULT 0, caller_until REAL DEFAULT 0,
  lie_state TEXT DEFAULT '', lie_address INT DEFAULT 0, UNIQUE (host, machine_id));
CREATE TABLE IF NOT EXISTS fences (host TEXT, machine_id TEXT, fence INT, PRIMARY KEY (host, machine_id));
CREATE TABLE IF NOT EXISTS calls (host TEXT, machine_id TEXT, verb TEXT, n INT, PRIMARY KEY (host, machine_id, verb));
CREATE TABLE IF NOT EXISTS journal (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, pid INT, host TEXT, verb TEXT, machine_id TEXT, fence INT,
  outcome TEXT, changed INT);
"""


def path_of(state_dir: Path, fleet: str) -> Path:
    """The file that holds this fleet."""
    return state_dir / f"simulated-{fleet.lower()}.db"


class State:
    """This process's way to one fleet's file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = _connect(path)
        self._closed = False
        self._inode = path.stat().st_ino
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="simulated")

    @property
    def current(self) -> bool:
        """Whether the file is still the one that was opened, by this process."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run statements that only read, each on the newest state."""
        return await self._submit("BEGIN", work)

    async def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run statements in one transaction that no other process's can come between; an error undoes them all."""
        return await self._submit("BEGIN IMMEDIATE", work)

    def close(self) -> None:
        """Let go of a file that is not current any more, once what runs on it has ended."""
        self._closed = True
        self._thread.submit(self._connection.close)
        self._thread.shutdown(wait=False)

    async def _submit(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._closed:
            raise Unreachable(
                f"the simulated fleet's file {self.path} was replaced; open the host again", path=self.path
            )
        return await run_in(self._thread, lambda: self._run(begin, work))

    def _run(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            self._connection.execute(begin)
            try:
                result = work(self._connection)
            except BaseException:  # whatever it was: nothing half done, and passed on
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise Unreachable(
                f"the simulated fleet's file {self.path} cannot be used now ({error}); it will be tried again: see "
                "that it is writable and that its disk is not full",
                path=self.path,
            ) from error
        return result


_open: dict[tuple[int, Path], State] = {}
_lock = threading.Lock()


def opened(state_dir: Path, fleet: str) -> State | None:
    """This process's `State` for the fleet, if there is one and its file is still there; never blocks for long."""
    state = _open.get((os.getpid(), path_of(state_dir, fleet).absolute()))
    return state if state is not None and state.current else None


def open_state(state_dir: Path, fleet: str) -> State:
    """This process's one `State` for the fleet, made when there is none. Blocks for milliseconds the first time.

    Raises `HostNotReady` when the file cannot be opened.
    """
    key = (os.getpid(), path_of(state_dir, fleet).absolute())
    with _lock:
        state = _open.get(key)
        if state is not None and state.current:
            return state
        if state is not None:
            state.close()
        try:
            _open[key] = state = State(key[1])
        except (OSError, sqlite3.DatabaseError) as error:
            raise HostNotReady(
                f"the simulated fleet {fleet!r} keeps its state in {key[1]}, which cannot be opened ({error}); mend or "
                "remove it",
                remedy=f"ls -ld {shlex.quote(str(key[1].parent))} {shlex.quote(str(key[1]))}",
                path=key[1],
            ) from error
        return state


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:  # one process at a time makes the file
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # seeds hold tokens
        connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(_SCHEMA)
    return connection
