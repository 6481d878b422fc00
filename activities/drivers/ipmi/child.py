"""The process that speaks with one BMC: questions come in as lines of JSON, answers go out as lines of JSON.

    python -P -m mulligan.activities.drivers.ipmi.child

The first line is the log-in, with the password; it is never in arguments or the environment. When the input ends, it
logs out and ends, after `GRACE_SECONDS` even where pyghmi is waiting. It imports nothing of Mulligan but this package.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any, BinaryIO

from mulligan.activities.drivers.ipmi.bmc import ASKED
from mulligan.activities.drivers.ipmi.session import BmcSession, log_in, trouble_of
from mulligan.activities.drivers.ipmi.troubles import Trouble

GRACE_SECONDS = 1.0


def _own_output() -> BinaryIO:
    """The answers' pipe, kept from everything else that prints: pyghmi does."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    return answers


def _read(lines: SimpleQueue[bytes | None]) -> None:
    """Pass lines on; when the input ends, see to it that the process does too."""
    for line in sys.stdin.buffer:
        lines.put(line)
    lines.put(None)
    threading.Event().wait(GRACE_SECONDS)
    os._exit(1)


class Speaker:
    """One session, opened by the first question."""

    def __init__(self) -> None:
        self.session: BmcSession | None = None

    def answer(self, line: bytes) -> Mapping[str, Any]:
        """The answer to one line: what was found, or the trouble."""
        asked = json.loads(line)
        verb = asked.pop("ask")
        try:
            if verb == "log-in":
                self.session = log_in(**asked)
                return {"found": {}}
            if self.session is None:
                return {"trouble": Trouble.NO_ANSWER, "said": "", "code": 0}
            return {"found": ASKED[verb](self.session, **asked)}
        except Exception as error:  # noqa: BLE001 - the end of a process: whatever it is, it is told by a name
            trouble = trouble_of(error)
            return {"trouble": trouble.trouble, "said": trouble.said, "code": trouble.code}

    def log_out(self) -> None:
        """Give the BMC its session back."""
        if self.session is not None and self.session.logged:
            with contextlib.suppress(Exception):  # the BMC forgets it by itself after a minute
                self.session.logout()


def main() -> None:
    """Answer until the input ends."""
    answers = _own_output()
    lines: SimpleQueue[bytes | None] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    speaker = Speaker()
    with contextlib.suppress(BrokenPipeError):
        while (line := lines.get()) is not None:
            answers.write(json.dumps(speaker.answer(line)).encode() + b"\n")
    speaker.log_out()
    os._exit(0)  # pyghmi's thread waits for ever


if __name__ == "__main__":
    main()
