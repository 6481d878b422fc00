"""What the claiming processes do. Each opens the database for itself, as workers of a deployment do."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from functools import cache

from sqlalchemy import update

from mulligan.activities.errors import Busy, NotNow
from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.tables import providers
from mulligan.activities.values import Kind
from tests.bench.fleet import asking, asking_hot


@dataclass(slots=True)
class Worked:
    """What one process did: when it began and ended (seconds since 1970), and how long each piece took."""

    began: float
    ended: float = 0.0
    seconds: list[float] = field(default_factory=list)
    lost: int = 0
    """Claims that lost every race, and would be tried again."""


@cache
def _inventory(url: str) -> Inventory:
    return Inventory(_database(url))


@cache
def _database(url: str) -> Database:
    return Database(url)


def claim(url: str, start: float, seconds: float, hot: bool = False) -> Worked:
    """Claim for so many seconds; with `hot`, always of the same provider."""
    inventory = _inventory(url)
    _wait_until(start)
    worked = Worked(time.time())
    while time.time() < start + seconds:
        began = time.perf_counter()
        try:
            inventory.claim((asking_hot if hot else asking)(str(uuid.uuid4())))
        except Busy:
            worked.lost += 1
        else:
            worked.seconds.append(time.perf_counter() - began)
    worked.ended = time.time()
    return worked


def commit(url: str, start: float, seconds: float) -> Worked:
    """The floor: commit updates of one row, each of a provider at random, for so many seconds."""
    database, names = _database(url), [f"new-{number}" for number in range(20)]
    _wait_until(start)
    worked = Worked(time.time())
    while time.time() < start + seconds:
        began = time.perf_counter()
        mine = providers.c.name == random.choice(names)
        with database.write() as connection:
            connection.execute(update(providers).where(mine).values(claim_seq=providers.c.claim_seq + 1))
        worked.seconds.append(time.perf_counter() - began)
    worked.ended = time.time()
    return worked


def exhaust(url: str, start: float) -> list[str]:
    """Claim whole servers until there are none; their names."""
    inventory, taken = _inventory(url), list[str]()
    _wait_until(start)
    while True:
        try:
            taken.append(inventory.claim(asking(str(uuid.uuid4()), Kind.BARE_METAL)).target.name)
        except NotNow:
            return taken
        except Busy:
            continue


def prepare(url: str, start: float) -> int:
    """Make a first claim, which prepares the statements, in as many processes as do so at once; how many it made."""
    try:
        _inventory(url).claim(asking(str(uuid.uuid4())))
    except Busy:
        return 0
    finally:
        _wait_until(start)
    return 1


def _wait_until(start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
