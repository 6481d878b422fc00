"""Brings a database to the newest schema, forward only; several processes that start at once take turns."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from mulligan.activities.errors import Conflict
from mulligan.activities.inventory.database import Database

_LOCK = 7_310_579_620_117_263
"""The key of the advisory lock: any number that nothing else in the database uses."""


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration; `connection` is what the migrations run on."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> None:
    """Run what migrations are missing, all in one transaction. Raises `Conflict` on a database of a newer Mulligan."""
    newest = ScriptDirectory.from_config(configuration()).get_current_head()
    with _alone(database):
        with database.read() as connection:
            if MigrationContext.configure(connection).get_current_revision() == newest:
                return
        with database.write() as connection:
            if not database.is_sqlite:
                connection.execute(text("SET LOCAL lock_timeout = '10min'"))
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            _upgrade(connection)


def _upgrade(connection: Connection) -> None:
    try:
        command.upgrade(configuration(connection), "head")
    except CommandError as error:
        raise Conflict(
            f"database: its schema is not known to this version of Mulligan ({error}); "
            "it was made by a newer one: upgrade this one, schemas only go forward"
        ) from error


@contextmanager
def _alone(database: Database) -> Iterator[None]:
    """On SQLite, hold a file lock meanwhile: the switch to write-ahead logging does not wait for others by itself."""
    if not database.is_sqlite:
        yield
        return
    with Path(f"{database.url.database}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with database.read() as connection:
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        if mode != "wal":
            database.use_write_ahead_log()
        yield
