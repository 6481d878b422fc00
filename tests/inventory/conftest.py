"""Every test here that asks for `inventory` or `url` runs on SQLite and on PostgreSQL, on a fresh database."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import delete, make_url, text

from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.tables import metadata, partitions
from tests.services.postgres import running_postgres

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server's own database."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as url:
        yield url


def create_database(server: str) -> str:
    """A new database on the server; gives its URL."""
    url, name = make_url(server), f"inventory_{next(_numbers)}"
    where = f"host={url.query['host']} user={url.username} dbname=postgres"
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def migrated_postgres(postgres: str) -> str:
    """The URL of a database with the newest schema, to be emptied and used again."""
    url = create_database(postgres)
    Inventory.open(url).close()
    return url


def empty(url: str) -> None:
    """Remove everything but the schema and the partition `default`."""
    database = Database(url)
    names = ", ".join(table.name for table in metadata.sorted_tables if table is not partitions)
    with database.write() as connection:
        connection.execute(text(f"TRUNCATE {names}"))
        connection.execute(delete(partitions).where(partitions.c.name != "default"))
    database.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the newest schema, to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    Inventory.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any schema."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/mulligan.db"
    return create_database(request.getfixturevalue("postgres"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database with the newest schema."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "mulligan.db")
        return f"sqlite:///{tmp_path}/mulligan.db"
    again: str = request.getfixturevalue("migrated_postgres")
    empty(again)
    return again


@pytest.fixture
def inventory(url: str) -> Iterator[Inventory]:
    """An open inventory, empty but for the partition `default`."""
    opened = Inventory.open(url)
    yield opened
    opened.close()
