"""How values are written to the database: JSON by the same rules as Temporal's payloads, in one place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import BigInteger, Dialect, Text, TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def _adapter(of: Any) -> TypeAdapter[Any]:
    return TypeAdapter(of)


def dump(of: Any, value: Any) -> str:
    """`value`, which is of type `of`, as JSON text."""
    return _adapter(of).dump_json(value).decode()


def load(of: Any, text: str) -> Any:
    """The value of type `of` that `dump` wrote."""
    return _adapter(of).validate_json(text)


class Stored(TypeDecorator[Any]):
    """A column that holds a value of the type `of` as JSON text."""

    impl = Text
    cache_ok = True

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """Write."""
        return None if value is None else dump(self.of, value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read."""
        return None if value is None else load(self.of, value)


class Word(TypeDecorator[Any]):
    """A column that holds one word of the enum `of`."""

    impl = Text
    cache_ok = True

    def __init__(self, of: type[StrEnum]) -> None:
        super().__init__()
        self.of = of

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Write."""
        return None if value is None else self.of(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        """Read."""
        return None if value is None else self.of(value)


class Moment(TypeDecorator[datetime]):
    """An aware UTC datetime as whole microseconds since 1970, so that both databases order and compare it alike."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Write."""
        return None if value is None else (value - _EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Read."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)
