"""The way to the database: engine options, short transactions, and what the database's errors mean.

The same statements run on SQLite and PostgreSQL. Writers take BEGIN IMMEDIATE on SQLite and READ COMMITTED on
PostgreSQL, where row locks decide; readers see one snapshot on both.
"""

from __future__ import annotations

import shlex
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    exc,
    make_url,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    Conflict,
    HostNotReady,
    InvalidRequest,
    MulliganError,
    Unreachable,
)
from mulligan.activities.inventory.codec import Moment

BUSY_SECONDS = 30
"""How long a statement waits for a lock before the caller is asked for patience."""
_BUSY_STATES = {"40001", "40P01", "55P03", "57014", "53300", "25P03"}


class _Clock(FunctionElement[int]):
    """The database's own clock, in microseconds since 1970."""

    inherit_cache = True
    type = BigInteger()


@compiles(_Clock, "postgresql")
def _postgresql_clock(element: _Clock, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"


@compiles(_Clock, "sqlite")
def _sqlite_clock(element: _Clock, compiler: Any, **options: Any) -> str:
    return "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)"


def now(plus_seconds: int | ColumnElement[int] = 0) -> ColumnElement[Any]:
    """The database's clock, or so many seconds later."""
    return type_coerce(_Clock() + plus_seconds * 1_000_000, Moment())


def insert_if_new(connection: Connection, table: Table, values: dict[str, Any]) -> bool:
    """Insert a row unless one with a key of it exists (also one that another transaction is just committing)."""
    return connection.execute(inserting(connection.dialect.name, table).values(values)).first() is not None


@cache
def inserting(dialect: str, table: Table) -> postgresql.Insert:
    """The statement of `insert_if_new`, which gives the key of the row that it inserted; without values."""
    words = postgresql if dialect == "postgresql" else sqlite
    statement: postgresql.Insert = words.insert(table).on_conflict_do_nothing().returning(*table.primary_key)
    return statement


class Database:
    """An engine with one writer's and one reader's way in. Safe to share between threads, not over a fork."""

    def __init__(self, url: str) -> None:
        self.url = _checked(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = _sqlite(self.url) if self.is_sqlite else _postgresql(self.url)
        # SQLite lets one writer in at a time and the others poll: threads of one process queue up fairly instead.
        self._writer = threading.Lock() if self.is_sqlite else nullcontext()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: committed at the end, undone on any error."""
        with translated(), self._writer, self._engine.execution_options(writes=True).begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that reads one snapshot."""
        engine = self._engine
        if not self.is_sqlite:
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with translated(), engine.begin() as connection:
            yield connection

    def use_write_ahead_log(self) -> None:
        """Switch a SQLite file to write-ahead logging, which it then keeps; nobody else may be using it."""
        with translated(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.execute("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise _bad_url("not a database URL") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in {"sqlite", "sqlite+pysqlite", "postgresql+psycopg"}:
        raise _bad_url(f"the driver {parsed.drivername!r} is not supported")
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_absolute():
        raise _bad_url("a SQLite database needs the absolute path of a file")
    return parsed


def _bad_url(why: str) -> InvalidRequest:
    message = f"database URL: {why}; use sqlite:////path/to/file or postgresql+psycopg://user@host/database"
    return InvalidRequest(message, violations=[("database_url", why)])


def _sqlite(url: URL) -> Engine:
    _make_directory(Path(url.database or "").parent)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS}, pool_size=5, max_overflow=10)

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise HostNotReady(
            f"database: its directory {directory} cannot be made or written ({error.strerror}); "
            "make it writable, or name another in the database URL",
            remedy=f"install --directory --owner=$(id -un) {shlex.quote(str(directory))}",
        ) from error


def _postgresql(url: URL) -> Engine:
    options = f"-c jit=off -c lock_timeout={BUSY_SECONDS}s -c statement_timeout={2 * BUSY_SECONDS}s"
    return create_engine(
        url,
        isolation_level="READ COMMITTED",
        connect_args={"options": options, "connect_timeout": 10, "application_name": "mulligan"},
        pool_size=5,
        max_overflow=10,
        pool_pre_ping=True,
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database's errors into ours; whether trying again helps is decided here."""
    try:
        yield
    except exc.TimeoutError as error:
        raise Busy("database: all connections are in use; it will be tried again", after_seconds=1) from error
    except (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.IntegrityError) as error:
        raise _translation(error) from error


def _translation(error: exc.DBAPIError) -> MulliganError:
    said = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
    state = getattr(error.orig, "sqlstate", None)
    code = getattr(error.orig, "sqlite_errorname", "")
    if state in _BUSY_STATES or code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Busy(f"database: others hold it ({said}); it will be tried again", after_seconds=1)
    if state == "23503" or code == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return Busy("database: what the change refers to was removed just now; it will be tried again", after_seconds=1)
    if isinstance(error, exc.IntegrityError):
        return Conflict(f"database: the change contradicts what is stored ({said}); read it again and decide anew")
    if state is not None and state.startswith("28"):
        return AccessDenied(f"database: the credentials were refused ({said}); mend the database URL")
    return Unreachable(f"database: {said}; it will be tried again, see that the database runs and has space")
