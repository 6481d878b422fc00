"""Records the corpus anew, from the real stack: `python -m tests.capsules.record [KIND ...] [NAME ...]`.

Kinds are simulated, libvirt and metal; without any, all of them.

Nothing of the host on which it was recorded stays in it: who polled, and where our code lay. What a capsule's name says
no longer exists is left alone; see docs/versioning.md.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import socket
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from mulligan.api.capsule_file import SUFFIX, Capsule, pack, unpack
from mulligan.v1 import provisioning_pb2
from tests.api.serving import Api, everything
from tests.capsules.endings import ENDINGS, Handle, ended
from tests.services.temporal import TemporalServer
from tests.workflows.stack import IMAGE, running_stack

CORPUS = Path(__file__).parent
KINDS = {"simulated", "libvirt", "metal"}
OF_THE_HOST = frozenset({"identity", "stackTrace"})


def save(name: str, data: bytes) -> None:
    """Put a capsule into the corpus."""
    capsule = unpack(data, name)
    assert capsule.history is not None
    tidied: Capsule = replace(capsule, history=without_host(capsule.history))
    for trace in (f"@{socket.gethostname()}", str(Path.cwd()), tempfile.gettempdir()):
        found = [text for text in texts(tidied.history) if trace in text]
        assert not found, f"{name} names {trace}: {found[0]}"
    data = pack(tidied)
    (CORPUS / f"{name}{SUFFIX}").write_bytes(data)
    print(f"{name}: {capsule.run.outcome}, {len(capsule.events)} events, {len(data)} bytes")


def without_host(value: Any, key: str = "") -> Any:
    """A history without what it says of the host."""
    if isinstance(value, dict):
        return {name: without_host(each, name) for name, each in value.items() if name not in OF_THE_HOST}
    if isinstance(value, list):
        return [without_host(each) for each in value]
    if key == "data":
        return base64.b64encode(_neutral(base64.b64decode(value).decode()).encode()).decode()
    return _neutral(value) if isinstance(value, str) else value


def _neutral(text: str) -> str:
    temporary = re.escape(tempfile.gettempdir())
    return re.sub(rf"{temporary}/[^/\"]+", "/srv", text.replace(f"@{socket.gethostname()}", "@host"))


def texts(value: Any) -> Iterator[str]:
    """Every text in a history, payloads too."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value
        try:
            yield base64.b64decode(value, validate=True).decode("utf-8", "replace")
        except binascii.Error:
            return


async def export(api: Api, handle: Handle) -> bytes:
    """The run's capsule, as the API gives it."""
    request = provisioning_pb2.ExportRunRequest(workflow_id=handle.id)
    return b"".join(part.part for part in await everything(api.provisioning.ExportRun(request)))


async def record_simulated(wanted: set[str]) -> None:
    """Every ending, one after the other, on a stack of their own."""
    with tempfile.TemporaryDirectory() as directory, TemporalServer(Path(directory) / "temporal") as temporal:
        async with running_stack(temporal.address, Path(directory)) as stack, Api(stack) as api:
            stack.inventory.add_image(IMAGE)
            for name, ending in ENDINGS.items():
                if not wanted or f"simulated-{name}" in wanted:
                    handle = await ending(stack, api)
                    await ended(handle)
                    save(f"simulated-{name}", await export(api, handle))


def main() -> None:
    """Record what was asked for; everything when nothing was."""
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # actions that fail are what is recorded
    names = set(sys.argv[1:]) - KINDS
    asked = {name.partition("-")[0] for name in names} | set(sys.argv[1:]) - names or KINDS
    if "simulated" in asked:
        asyncio.run(record_simulated(names))
    if "libvirt" in asked:
        from tests.capsules.on_libvirt import exported_on_libvirt  # noqa: PLC0415 - needs libvirt's library

        save_all(exported_on_libvirt(), names)
    if asked & {"metal", "redfish", "ipmi"}:
        from tests.capsules.on_metal import exported_on_metal  # noqa: PLC0415 - needs libvirt's library

        save_all(exported_on_metal(), names)


def save_all(exported: Generator[tuple[str, bytes], None, None], names: set[str]) -> None:
    """Save those that were asked for; all when none was."""
    with closing(exported):
        for name, data in exported:
            if not names or name in names:
                save(name, data)


if __name__ == "__main__":
    main()
