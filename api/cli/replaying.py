"""Replaying a history that may come from anywhere: whatever Temporal's core makes of it, there is an answer."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from temporalio.client import WorkflowHistory

from mulligan.api.cli.errors import usage
from mulligan.api.processes.logs import forward_temporal_core
from mulligan.api.replay import Verdict, replay

REPLAY_SECONDS = 300
LAST_CHANCE_SECONDS = 2.0
"""How long the core may still answer after one of its threads broke down."""

BROKEN = b"panicked at"
"""What the core writes to standard error when it stumbles over what no server would send; then it never answers."""


def replayed(history: WorkflowHistory) -> Verdict:
    """What a replay found. Raises `CliError` when the core cannot make anything of the history."""
    logging.getLogger("temporalio").setLevel(logging.CRITICAL)  # what they would log is the verdict
    forward_temporal_core()
    verdicts: list[Verdict] = []
    replaying = threading.Thread(target=lambda: verdicts.append(asyncio.run(replay(history))), daemon=True)
    until = time.monotonic() + REPLAY_SECONDS
    with _standard_error() as said:
        replaying.start()
        while replaying.is_alive() and time.monotonic() < until:
            if BROKEN in said():
                replaying.join(LAST_CHANCE_SECONDS)
                break
            replaying.join(0.05)
    if not verdicts:
        raise usage("Temporal could make nothing of the history in this capsule: it is damaged; export the run again")
    return verdicts[0]


@contextmanager
def _standard_error() -> Iterator[Callable[[], bytes]]:
    """Keep what is written to standard error, also by what is no Python; the function gives all of it so far."""
    sys.stderr.flush()
    before = os.dup(2)
    end, beginning = os.pipe()
    os.set_blocking(end, False)
    os.dup2(beginning, 2)
    kept = bytearray()

    def said() -> bytes:
        try:
            while part := os.read(end, 65_536):
                kept.extend(part)
        except BlockingIOError:
            pass
        return bytes(kept)

    try:
        yield said
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        for descriptor in (before, beginning, end):
            os.close(descriptor)
