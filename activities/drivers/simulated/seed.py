"""Reads the NoCloud seed that a simulated machine was given, as its guest would."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pycdlib
import yaml
from pycdlib.pycdlibexception import PyCdlibException

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The same in C where PyYAML was built with it: a tenth of the time."""


@dataclass(frozen=True, slots=True)
class GuestSeed:
    """What the guest takes from its seed; all empty when there is none that it can read."""

    instance_id: str = ""
    hostname: str = ""
    call_home_url: str = ""
    call_home_token: str = ""


def read_seed(iso: bytes) -> GuestSeed:
    """Read `meta-data` from an ISO 9660 image; an image without one gives an empty seed, as a guest would find it."""
    try:
        found = yaml.load(_meta_data(iso).decode(), Loader=_LOADER)  # noqa: S506 - both are safe
    except (PyCdlibException, UnicodeDecodeError, yaml.YAMLError):
        return GuestSeed()
    values = found if isinstance(found, dict) else {}
    return GuestSeed(
        instance_id=str(values.get("instance-id", "")),
        hostname=str(values.get("local-hostname", "")),
        call_home_url=str(values.get("mulligan_call_home_url", "")),
        call_home_token=str(values.get("mulligan_call_home_token", "")),
    )


def _meta_data(iso: bytes) -> bytes:
    disc = pycdlib.PyCdlib()
    disc.open_fp(io.BytesIO(iso))
    try:
        facade = disc.get_joliet_facade() if disc.has_joliet() else disc.get_rock_ridge_facade()
        content = io.BytesIO()
        facade.get_file_from_iso_fp(content, "/meta-data")
        return content.getvalue()
    finally:
        disc.close()
