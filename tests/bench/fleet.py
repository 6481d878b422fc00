"""Large inventories, quickly: a few providers are registered as anyone's are, and copied within the database."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy import (
    CTE,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Table,
    Text,
    cast,
    func,
    insert,
    literal,
    select,
    true,
)

from mulligan.activities.inventory import ClaimRequest, Inventory
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.tables import inventories, provider_capabilities, providers
from mulligan.activities.values import Inspection, InventoryRow, Kind, Resources

PARTITION = "default"
_ASKED = Resources(vcpu=1, memory_mib=512, disk_gib=1)
_NEVER = 1_000_000
_LOTS = {"sqlite": 1, "postgresql": 2**31}
"""What makes a lot of a random number: one of 64 bits, one below 1."""


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of provider, and its share of the fleet in per cent."""

    name: str
    share: int
    kind: Kind
    sizes: tuple[int, int, int]
    """vcpu, memory_mib, disk_gib."""
    capabilities: tuple[str, ...]


MODELS = (
    Model("old", 30, Kind.VIRTUAL, (128, 262_144, 4_000), ("arch.x86_64", "firmware.bios")),
    Model("new", 45, Kind.VIRTUAL, (256, 1_048_576, 16_000), ("arch.x86_64", "firmware.bios", "firmware.uefi")),
    Model("server", 25, Kind.BARE_METAL, (64, 524_288, 8_000), ("arch.x86_64", "firmware.uefi", "storage.nvme")),
)

HOT = "hot"
"""One hypervisor more, for those who all want the same: roomy, and without UEFI, so that nobody else is sent to it."""
HOT_SIZES = (100_000, 100_000_000, 200_000)
HOT_CAPABILITIES = ("arch.x86_64", "firmware.bios")


def asking_hot(claim_id: str) -> ClaimRequest:
    """The claim of a small machine on the one provider that everybody wants."""
    return replace(asking(claim_id), provider=HOT, requires=HOT_CAPABILITIES)


def asking(claim_id: str, kind: Kind = Kind.VIRTUAL) -> ClaimRequest:
    """The claim of a small machine that boots by UEFI."""
    return ClaimRequest(
        claim_id=claim_id,
        machine_id=f"machine-{claim_id}",
        project="bench",
        machine=claim_id,
        run_id=claim_id,
        partition=PARTITION,
        resources=_ASKED,
        kind=kind,
        requires=("arch.x86_64", "firmware.uefi"),
    )


def asking_too_much() -> ClaimRequest:
    """A claim that no provider could hold."""
    return replace(asking("never"), kind=Kind.ANY, requires=(), resources=replace(_ASKED, vcpu=_NEVER))


def servers(count: int) -> int:
    """How many of so many providers are given whole."""
    return sum(shares(count)[model.name] for model in MODELS if model.kind is Kind.BARE_METAL)


def fill(url: str, count: int) -> None:
    """Register so many providers in a new database, at least one of each model, and the hot one."""
    inventory = Inventory.open(url)
    for model in MODELS:
        _register(inventory, f"{model.name}-0", model.kind, model.sizes, model.capabilities)
    _register(inventory, HOT, Kind.VIRTUAL, HOT_SIZES, HOT_CAPABILITIES)
    inventory.close()
    database = Database(url)
    with database.write() as connection:
        for model in MODELS:
            _copy(connection, f"{model.name}-", shares(count)[model.name])
    with database.write() as connection:
        connection.exec_driver_sql("ANALYZE")
    database.close()


def _register(
    inventory: Inventory, name: str, kind: Kind, sizes: tuple[int, int, int], capabilities: tuple[str, ...]
) -> None:
    amounts = zip(("vcpu", "memory_mib", "disk_gib"), sizes, strict=True)
    seen = Inspection(kind, tuple(InventoryRow(resource, total) for resource, total in amounts), capabilities)
    inventory.put_provider(name, PARTITION, f"simulated://bench/{name}", "", seen, {})


def shares(count: int) -> dict[str, int]:
    """How many of so many providers are of each model, by its name."""
    counts = {model.name: count * model.share // 100 for model in MODELS}
    return {**counts, MODELS[0].name: counts[MODELS[0].name] + count - sum(counts.values())}


def _copy(connection: Connection, prefix: str, count: int) -> None:
    numbers = select(literal(1).label("n")).cte("numbers", recursive=True)
    numbers = numbers.union_all(select(numbers.c.n + 1).where(numbers.c.n < count - 1))
    name = literal(prefix) + cast(numbers.c.n, Text)
    for table, key in (
        (providers, providers.c.name),
        (inventories, inventories.c.provider),
        (provider_capabilities, provider_capabilities.c.provider),
    ):
        _copy_rows(connection, table, key, first=f"{prefix}0", name=name, numbers=numbers)


def _copy_rows(
    connection: Connection, table: Table, key: Column[str], *, first: str, name: ColumnElement[str], numbers: CTE
) -> None:
    lots = cast(func.random() * _LOTS[connection.dialect.name], BigInteger)
    columns = [name if column is key else lots if column.name == "lot" else column for column in table.columns]
    rows = select(*columns).where(key == first).select_from(table.join(numbers, true()))
    connection.execute(insert(table).from_select([column.name for column in table.columns], rows))
