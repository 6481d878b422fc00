"""The ways in which a disk forgets everything by itself. Whether it did is looked at afterwards, by whoever asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from .ata import UNSUPPORTED, secure_erase
from .hardware import Disk
from .tools import Failed, run

SECONDS = 4 * 3600.0
FORMAT_SHARED, ERASE_SHARED = 1, 2
"""Bits of FNA in what an NVMe controller identifies itself with: what is done to one namespace is done to all."""

Check = Callable[[], None]
"""Called every second; raises to have it stopped."""


@dataclass(frozen=True)
class Way:
    """One of them; `go` raises `Failed` where the disk does not offer it."""

    name: str
    go: Callable[[Check], None]


def ways(disk: Disk) -> Iterator[Way]:
    """Those to be tried, the most thorough first."""
    if "nvme" in disk.path:
        yield Way("secure format", partial(_format_nvme, disk))
    if disk.ata:
        yield Way("ATA secure erase", partial(secure_erase, disk))
    yield Way("secure discard", partial(_called, ("blkdiscard", "--force", "--secure", disk.path)))
    yield Way("discard", partial(_called, ("blkdiscard", "--force", disk.path)))


def _called(words: tuple[str, ...], check: Check) -> None:
    run(*words, seconds=SECONDS, check=check)


def _format_nvme(disk: Disk, check: Check) -> None:
    shared = _nvme("id-ctrl", disk)["fna"] & (FORMAT_SHARED | ERASE_SHARED)
    namespaces = len(_nvme("list-ns", disk)["nsid_list"])
    if shared and namespaces > 1:
        raise Failed(UNSUPPORTED, "its controller would erase its other namespaces too")
    _called(("nvme", "format", disk.path, "--ses=1", "--force"), check)


def _nvme(what: str, disk: Disk) -> Any:
    try:
        return json.loads(run("nvme", what, disk.path, "--output-format=json"))
    except ValueError as error:
        raise Failed("TOOL_FAILED", f"`nvme {what} {disk.path}` printed no JSON: {error}") from error
