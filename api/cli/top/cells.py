"""The columns of both tables, and what stands in each cell. Knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from mulligan.api.cli.text import clean, elapsed, size
from mulligan.api.cli.top.row import Row
from mulligan.v1 import inventory_pb2

WIDE = 120
"""From so many columns on there is room for everything."""

FULL, NARROW = 72, 62
"""In fewer columns there is no room for how much is done and which try it is; in still fewer, none for the provider."""

REST = 0
"""The width of the column that takes what is left."""

T = TypeVar("T")


@dataclass(frozen=True)
class Column(Generic[T]):
    """One column: `text` gives the cell's text at a moment, in seconds since the epoch."""

    name: str
    width: int
    text: Callable[[T, float], str]


def run_columns(width: int) -> list[Column[Row]]:
    """The runs' columns that suit so wide a screen."""
    wide = width >= WIDE
    name = 32 if wide else 28 if width >= 100 else 21
    columns = [Column("", 1, lambda row, now: mark(row)), Column("RUN", name, _id(name))]
    if wide:
        columns.append(Column("MACHINE", 14, lambda row, now: row.run.machine))
    if width >= NARROW:
        columns.append(Column("PROVIDER", 14 if wide else 9, lambda row, now: row.provider))
    columns += [
        Column("STEP", 14, lambda row, now: f"{row.step()} {row.state()}".strip()),
        Column("TIME", 7, lambda row, now: elapsed(row.took(now))),
    ]
    if width >= FULL:
        columns += [
            Column("DONE", 16 if wide else 4, _done_wide if wide else _done),
            Column("TRY", 3, lambda row, now: str(row.attempt() or "")),
        ]
    columns.append(Column("AWAITING, OR WHY", REST, lambda row, now: row.says(now)))
    return fitted(columns, width)


def provider_columns(width: int) -> list[Column[inventory_pb2.Provider]]:
    """The providers' columns that suit so wide a screen."""
    bar = 20 if width >= WIDE else 12
    columns = [Column[inventory_pb2.Provider]("PROVIDER", 20 if width >= WIDE else 12, lambda each, now: each.name)]
    if width >= FULL:
        columns.append(Column("PARTITION", 14 if width >= WIDE else 9, lambda each, now: each.partition))
    columns += [
        Column("VCPU", bar, lambda each, now: usage(each, "vcpu", bar)),
        Column("MEMORY GIB", bar, lambda each, now: usage(each, "memory_mib", bar)),
        Column("DISK GIB", bar, lambda each, now: usage(each, "disk_gib", bar)),
        Column("STATE", REST, lambda each, now: service(each)),
    ]
    return fitted(columns, width)


def fitted(columns: Sequence[Column[T]], width: int) -> list[Column[T]]:
    """The columns with the last one as wide as what is left, and a space between any two."""
    used = sum(column.width for column in columns) + len(columns) - 1
    return [replace(column, width=max(4, width - used)) if column.width == REST else column for column in columns]


def cut(text: str, width: int) -> str:
    """The text in so many columns, with an ellipsis where it was cut."""
    text = clean(text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def mark(row: Row) -> str:
    """What is to be seen of a run at a glance: held, being cancelled, in trouble, or over."""
    progress = row.progress()
    if row.is_over:
        return "✔" if row.outcome in ("ready", "released", "enrolled") else "✘"
    if row.is_held:
        return "‖"
    if row.is_cancelling:
        return "×"
    return "!" if row.state() in ("slow", "retries", "failed") or (progress and progress.last_failure) else " "


def style(row: Row) -> str:
    """The colour of a run's row."""
    if row.is_over:
        return "green" if mark(row) == "✔" else "red"
    return {"‖": "bold yellow", "×": "magenta", "!": "yellow"}.get(mark(row), "")


def service(provider: inventory_pb2.Provider) -> str:
    """Whether claims can be made on a provider, and what is held against it."""
    said = [f"quarantined: {provider.quarantined}"] if provider.quarantined else []
    said += [] if provider.enabled else ["disabled"]
    said += ["dirty"] if provider.dirty else []
    said += [f"suspect ({provider.suspect_count})"] if provider.suspect_count else []
    return ", ".join(said) or "in service"


def service_style(provider: inventory_pb2.Provider) -> str:
    """The colour of a provider's row."""
    if provider.quarantined:
        return "red"
    if not provider.enabled:
        return "dim"
    return "yellow" if provider.suspect_count or provider.dirty else ""


def usage(provider: inventory_pb2.Provider, resource: str, width: int) -> str:
    """How much of a resource is claimed: a bar, and used/capacity; empty where the provider has none of it."""
    for row in provider.inventory:
        if row.resource == resource:
            capacity = (row.total - row.reserved) * row.overcommit_percent // 100
            text = f"{_amount(row.used, resource)}/{_amount(capacity, resource)}"
            return f"{bar(row.used, capacity, width - len(text) - 1)} {text}"
    return ""


def bar(used: int, capacity: int, width: int) -> str:
    """A bar of so many columns; what is used shows, however little, and it is full only when all is used."""
    if width <= 0:
        return ""
    filled = 0 if not used else width if used >= capacity else min(max(1, width * used // capacity), max(1, width - 1))
    return "█" * filled + "░" * (width - filled)


def _amount(count: int, resource: str) -> str:
    if resource != "memory_mib":
        return str(count)
    gib = count / 1024
    return f"{gib:.0f}" if gib >= 10 or gib == int(gib) else f"{gib:.1f}"


def _id(width: int) -> Callable[[Row, float], str]:
    """The workflow id; where it is too long, its kind is shortened first: its end is the machine's name."""

    def text(row: Row, now: float) -> str:
        whole = clean(row.key.workflow_id)
        kind, _, name = whole.partition(":")
        short = f"{kind[:3]}…:{name}"
        return next((each for each in (whole, short) if len(each) <= width), f"…{name[1 - width :]}")

    return text


def _done(row: Row, now: float) -> str:
    progress = row.progress()
    return f"{100 * progress.done // progress.total}%" if progress is not None and progress.total else ""


def _done_wide(row: Row, now: float) -> str:
    progress = row.progress()
    if progress is None or not progress.total:
        return ""
    return f"{_done(row, now)} of {size(progress.total)}"
