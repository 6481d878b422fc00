"""The schema: migrations against tables, several processes at once, and what the database itself refuses."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import exc, insert, text, update

from mulligan.activities.errors import Busy, Conflict, HostNotReady, InvalidRequest, Unreachable
from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory import database as database_module
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.tables import claims, inventories, metadata
from tests.inventory.parts import add, add_server, asking
from tests.inventory.racers import context


def test_the_migrations_make_exactly_the_tables(url: str) -> None:
    """Alembic finds no difference between the migrated database and `tables.py`."""
    database = Database(url)
    with database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.close()


def _open(url: str) -> list[str]:
    inventory = Inventory.open(url)
    try:
        return inventory.partitions()
    finally:
        inventory.close()


def test_processes_that_start_at_once_migrate_once(empty_url: str) -> None:
    """All of them end with the whole schema."""
    with context().Pool(4) as pool:
        assert pool.map(_open, [empty_url] * 8, chunksize=1) == [["default"]] * 8


def test_a_database_of_a_newer_version_is_refused(empty_url: str) -> None:
    """Instead of being used with a schema that is not understood."""
    Inventory.open(empty_url).close()
    database = Database(empty_url)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(Conflict, match="newer"):
        Inventory.open(empty_url)


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite:///relative.db", "sqlite://"])
def test_a_url_that_names_no_supported_database_is_refused(url: str) -> None:
    """The error shows what a good one looks like."""
    with pytest.raises(InvalidRequest, match="sqlite:////path"):
        Inventory.open(url)


def test_a_database_that_does_not_answer_is_unreachable(tmp_path: Path) -> None:
    """Which is worth trying again."""
    with pytest.raises(Unreachable, match="see that the database runs"):
        Inventory.open(f"postgresql+psycopg://nobody@/none?host={tmp_path}")


def test_a_database_that_others_hold_for_long_is_busy(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is worth trying again, in a moment."""
    holder = Inventory.open(url)
    add(holder, "hv-1")
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 1)
    other = Inventory.open(url)
    with holder._database.write() as connection:
        connection.execute(update(inventories).values(used=1))
        connection.execute(text("UPDATE providers SET dirty = dirty"))
        with pytest.raises(Busy, match="others hold it") as caught:
            other.claim(asking())
    assert caught.value.after_seconds == 1
    assert other.claim(asking()).fence == 1
    holder.close()
    other.close()


def test_a_connection_that_is_lost_is_unreachable_and_made_anew(postgres: str) -> None:
    """The transaction is lost with it; the next one works."""
    database = Database(postgres)
    with pytest.raises(Unreachable), database.write() as connection:
        ours = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with psycopg.connect(f"host={database.url.query['host']} user=postgres", autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (ours,))
        connection.execute(text("SELECT 1"))
    with database.write() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != ours
    database.close()


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """With the command that mends it."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HostNotReady) as caught:
        Inventory.open(f"sqlite:///{tmp_path}/file/mulligan.db")
    assert str(tmp_path) in caught.value.remedy


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    """It is neither overwritten nor taken for an empty one."""
    path = tmp_path / "mulligan.db"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(exc.DatabaseError):
        Inventory.open(f"sqlite:///{path}")
    assert path.read_bytes() == b"something else entirely" * 100


def test_the_database_itself_refuses_overcommit(url: str, inventory: Inventory) -> None:
    """A statement that goes round the guards fails on the constraint."""
    add(inventory, "hv-1", vcpu=4)
    database = Database(url)
    for used in (5, -1):
        with pytest.raises(Conflict, match="used_is_within_capacity"), database.write() as connection:
            connection.execute(update(inventories).where(inventories.c.resource == "vcpu").values(used=used))
    database.close()
    assert inventory.audit() == []


def test_the_database_itself_refuses_a_second_claim_on_a_server(url: str, inventory: Inventory) -> None:
    """One live claim for a provider given whole."""
    add_server(inventory, "server")
    inventory.claim(asking("c1"))
    database = Database(url)
    with pytest.raises(Conflict), database.write() as connection:
        row = connection.execute(claims.select()).one()._asdict()
        connection.execute(insert(claims).values({**row, "id": "c2"}))
    database.close()


def test_sqlite_is_opened_durably(tmp_path: Path) -> None:
    """Write-ahead log, synchronous FULL, foreign keys: in every connection."""
    url = f"sqlite:///{tmp_path}/mulligan.db"
    Inventory.open(url).close()
    database = Database(url)
    with database.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    database.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}


def test_postgresql_is_opened_without_jit(postgres: str) -> None:
    """Writers see what was committed meanwhile, readers one snapshot, and no query is compiled."""
    database = Database(postgres)
    with database.write() as connection:
        assert connection.execute(text("SHOW jit")).scalar_one() == "off"
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "read committed"
    with database.read() as connection:
        assert connection.execute(text("SHOW transaction_isolation")).scalar_one() == "repeatable read"
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "on"
    database.close()
