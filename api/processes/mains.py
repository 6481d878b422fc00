"""What the main functions of the long-running processes share: logs, signals, patience at the start, the exit."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog
from temporalio.client import Client

from mulligan.activities.errors import HostNotReady, MulliganError, Unreachable
from mulligan.api.config import Settings
from mulligan.api.processes import logs
from mulligan.api.search import register
from mulligan.api.temporal import connect

_PATIENCE_SECONDS = 300.0
_AGAIN_SECONDS = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Main = Callable[[Settings, asyncio.Event], Awaitable[None]]
"""A process's work; the event is set when it shall end in peace."""


def run_main(process: str, settings: Settings, main: Main) -> NoReturn:
    """Run a process until it ends, or SIGTERM or SIGINT asks it to, and exit: 0, or 1 with the error in the log."""
    logs.configure(process, settings.log_level)
    logs.forward_temporal_core()
    code = 0
    try:
        asyncio.run(_until_signal(settings, main))
    except MulliganError as error:
        remedy = {"remedy": error.remedy} if isinstance(error, HostNotReady) and error.remedy else {}
        log.error(error.message, reason=error.reason, **remedy)
        code = 1
    except Exception:  # the process's boundary: whatever it is goes to the log before the exit
        log.exception("this process failed unexpectedly")
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Temporal's core has threads that may still call into the interpreter, which aborts when it is torn down meanwhile.
    os._exit(code)


async def connect_patiently(settings: Settings, ending: asyncio.Event) -> Client | None:
    """Connect to Temporal and register the search attributes there, trying for five minutes.

    None when the process was asked to end meanwhile. Raises `HostNotReady` when they cannot be registered.
    """
    end = time.monotonic() + _PATIENCE_SECONDS
    said = ""
    while not ending.is_set():
        try:
            client = await connect(settings)
            await register(client)
        except Unreachable as error:
            if time.monotonic() > end:
                raise
            if said != error.message:
                log.warning("waiting for Temporal", why=error.message)
            said = error.message
        else:
            return client
        try:
            await asyncio.wait_for(ending.wait(), _AGAIN_SECONDS)
        except TimeoutError:
            continue
    return None


async def _until_signal(settings: Settings, main: Main) -> None:
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, ending.set)
    await main(settings, ending)
