"""The API server's process: settings, Temporal, the database, the key, and the gRPC server until it shall end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import structlog

from mulligan.activities.inventory import Inventory
from mulligan.activities.seal import Keyring
from mulligan.activities.threads import run_blocking
from mulligan.api.config import Settings
from mulligan.api.processes.mains import connect_patiently
from mulligan.api.processes.stack_file import make_state_dir
from mulligan.api.server import serve

COLLECTIONS = (20_000, 20, 50)
"""How many new objects make a small collection, small ones a middle one, and middle ones one of everything."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def _ready(address: str) -> None:
    """Say so, and keep Python's garbage collector from stopping all streams at once.

    A collection of everything takes a tenth of a second and more with 500 watchers, and falls on a burst of events.
    What was loaded until now stays for good, so it is not looked through again; what comes later is, but less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
    log.info("serving", address=address)


async def serve_until(settings: Settings, ending: asyncio.Event) -> None:
    """Serve the API until `ending` is set; raises what keeps it from starting, or ends it."""
    make_state_dir(settings.state_dir)
    client = await connect_patiently(settings, ending)
    if client is None:
        return
    inventory = await run_blocking(Inventory.open, settings.database_url)
    try:
        keyring = await run_blocking(Keyring.load, settings.key_file)
        serving = asyncio.create_task(
            serve(
                settings,
                client=client,
                inventory=inventory,
                keyring=keyring,
                ready=_ready,
            )
        )
        asked: asyncio.Task[Any] = asyncio.create_task(ending.wait())
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if serving.done():
            serving.result()
        log.info("ending")
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
    finally:
        inventory.close()
