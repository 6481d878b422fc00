"""The settings of this process, with wrong ones told as wrong usage."""

from __future__ import annotations

from pydantic import ValidationError

from mulligan.api.cli.errors import usage
from mulligan.api.config import Settings


def load_settings() -> Settings:
    """Settings from the environment; a usage error names the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        variable = f"MULLIGAN_{'_'.join(map(str, first['loc'])).upper()}"
        raise usage(f"{variable}: {first['msg'].removeprefix('Value error, ')}") from None
