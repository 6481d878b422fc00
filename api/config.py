"""Settings of every process, from `MULLIGAN_*` in the environment; each has a default that works on one host."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_state_dir() -> Path:
    """`/var/lib/mulligan` for root, else below the user's XDG state directory."""
    if os.geteuid() == 0:
        return Path("/var/lib/mulligan")
    return Path(os.environ.get("XDG_STATE_HOME", "~/.local/state")).expanduser() / "mulligan"


class Settings(BaseSettings):
    """What a process needs to know. The name of each field, upper case behind `MULLIGAN_`, is its variable."""

    model_config = SettingsConfigDict(env_prefix="MULLIGAN_", extra="ignore", frozen=True)

    state_dir: Path = Field(default_factory=default_state_dir, description="Where everything that lasts is kept.")
    api: str = Field(default="127.0.0.1:7420", description="Where the API server listens and clients connect.")
    temporal: str = Field(default="127.0.0.1:7233", description="Address of the Temporal frontend.")
    temporal_ui: str = Field(default="127.0.0.1:8233", description="Where the embedded Temporal serves its Web UI.")
    namespace: str = Field(default="default", description="Temporal namespace.")
    database: str = Field(default="", description="SQLAlchemy URL; empty for SQLite in the state directory.")
    boot_listen: str = Field(
        default="auto",
        description="Where the boot server listens: host:port, comma separated. `auto`: port 7421 on loopback and on "
        "every libvirt bridge of this host.",
    )
    boot_url: str = Field(default="", description="How guests reach the boot server; empty to ask the driver.")
    image_roots: tuple[Path, ...] = Field(
        default=(),
        description="Directories below which `file:` images may lie, besides `images` in the state directory.",
    )
    max_download_gib: int = Field(default=64, ge=1, description="Largest image that is downloaded.")
    max_virtual_gib: int = Field(default=2048, ge=1, description="Largest disk that an image may describe.")
    lease_seconds: int = Field(
        default=900, ge=30, description="How long a claim outlives a run that does not extend it."
    )
    keep_days: int = Field(
        default=90, ge=1, description="How long stories, released claims and failures are kept, in days."
    )
    log_level: str = Field(default="info", description="debug, info, warning or error.")

    @field_validator("api", "temporal", "temporal_ui")
    @classmethod
    def _is_address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError(f"{value!r} is not host:port, e.g. 127.0.0.1:7420")
        return value

    @cached_property
    def database_url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database or f"sqlite:///{self.state_dir / 'mulligan.sqlite'}"

    @property
    def key_file(self) -> Path:
        """The deployment's secret key: seals user data and signs call-home tokens."""
        return self.state_dir / "secret.key"

    @property
    def credentials_file(self) -> Path:
        """What references to credentials stand for, for partition workers: BMCs' user names and passwords."""
        return self.state_dir / "credentials.yaml"

    @property
    def image_dir(self) -> Path:
        """Where images that were built or added on this host lie; `file:` is allowed below it."""
        return self.state_dir / "images"

    @property
    def cache_dir(self) -> Path:
        """Where fetched images are kept, by digest."""
        return self.state_dir / "cache"

    @property
    def agent_dir(self) -> Path:
        """Where the deploy agent is kept: its kernel, its initrd and its ISO."""
        return self.state_dir / "agent"

    @property
    def drivers_dir(self) -> Path:
        """Where drivers keep what must survive a restart."""
        return self.state_dir / "drivers"
