"""One BMC as a worker sees it: a process that speaks with it, asked one thing at a time, and always ended.

The process outlives its last user for some seconds, so that the steps of a run share one session. It keeps no session
alive that nobody uses: who waits for the deploy agent holds its driver for minutes without a question. Whoever waits
for it is cancelled, or loses patience, ends it: a process is the one thing that can be stopped whatever it waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.ipmi.address import PORT
from mulligan.activities.drivers.ipmi.troubles import ENDS_SESSION, BmcTrouble, Trouble
from mulligan.activities.drivers.lane import Lane, bmc_name
from mulligan.activities.drivers.logins import LoginGate
from mulligan.activities.drivers.orders import UNSEEN, Orders
from mulligan.activities.errors import AccessDenied

LINGER_SECONDS = 20.0
"""Longer than the pause between two looks at a machine whose guest is awaited, which then share a session."""
IDLE_SECONDS = 25.0
"""A session that was asked nothing for so long is not used again: BMCs end one after 60 s (IPMI 2.0, "session
inactivity timeouts"), some earlier, and then answer nothing in it."""
LOG_IN_SECONDS = 8.0
CALL_SECONDS: Mapping[str, float] = {"log-in": LOG_IN_SECONDS + 4.0, "switch": 15.0, "identity": 40.0, "sensors": 30.0}
"""How long the process may take for a question before it is ended; `OTHER_SECONDS` for those that are not named."""
OTHER_SECONDS = 10.0
END_SECONDS = 2.0
"""How long it has to log out and end by itself."""

MOST_USER_BYTES, MOST_PASSWORD_BYTES = 16, 20
"""IPMI 2.0, 22.28 and 22.30."""

_COMMAND = (sys.executable, "-P", "-m", "mulligan.activities.drivers.ipmi.child")
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
"""All of ours that the process gets."""


class Conversation:
    """The shared part of all drivers of one BMC."""

    def __init__(self, host: str, port: int, credential: Credential, state_dir: Path, gate: LoginGate) -> None:
        self._host = host
        self._port = port
        self._credential = credential
        name = bmc_name(host, port, PORT)
        self.lane = Lane(name, state_dir, self._end, LINGER_SECONDS)
        self._process: Process | None = None
        self._logged_in = False
        self._answered_at = 0.0
        """When the process last answered, on the monotonic clock."""
        self._guid: str | None = None
        """What the BMC told in this session; None before it was asked."""
        self.gate = gate
        """To be told when a log-in was refused."""
        self.orders = Orders(state_dir / "ipmi", name)
        """What the machine was last asked to be, and whether it was left on."""
        self.contact = UNSEEN
        """What stays the same only while the BMC did not restart: drawn anew with each session."""

    async def close(self) -> None:
        """Log out and end the process; safe to call twice."""
        await self.lane.close()

    def may_ask(self, doing: str, *, patient: bool) -> None:
        """Raises what the gate raises where a log-in is due, and `AccessDenied` for what IPMI cannot send."""
        self._check_lengths()
        if self._process is None or self._is_idle():
            self.gate.check(doing, patient=patient)

    async def begin_turn(self) -> None:
        """To be called at the beginning of each turn: end a session that may be over for the BMC. One that still is
        there is told so, which is not waited for long."""
        if self._process is not None and self._is_idle():
            await self._end()

    def _is_idle(self) -> bool:
        return time.monotonic() - self._answered_at > IDLE_SECONDS

    async def ask(self, verb: str, deadline: Deadline, **arguments: object) -> Mapping[str, Any]:
        """Ask one of `bmc.ASKED`, within a turn, once `may_ask` let it pass. Raises `BmcTrouble`."""
        try:
            if self._process is None:
                self._process = await self._start()
                login = {"username": self._credential.username, "password": self._credential.password}
                where = {"host": self._host, "port": self._port, "seconds": LOG_IN_SECONDS}
                await self._exchange(self._process, "log-in", deadline, login | where)
                self.gate.entered()
            return await self._exchange(self._process, verb, deadline, arguments)
        except BmcTrouble as error:
            if error.trouble in ENDS_SESSION or not self._logged_in:
                await self._end()
            raise
        except BaseException:  # a cancel above all: nobody will read the answer, so the process goes; passed on
            await self._end()
            raise

    async def guid(self, deadline: Deadline) -> str:
        """What the BMC calls the system's GUID, asked for once in a session; empty where it offers none."""
        if self._process is None or self._guid is None:
            self._guid = str((await self.ask("guid", deadline)).get("uuid", ""))
        return self._guid

    async def _start(self) -> Process:
        self._logged_in, self._guid, self.contact = False, None, secrets.token_hex(8)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        return await asyncio.create_subprocess_exec(
            *_COMMAND, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=environment, start_new_session=True
        )

    async def _exchange(
        self, process: Process, verb: str, deadline: Deadline, arguments: Mapping[str, object]
    ) -> Mapping[str, Any]:
        """One question and its answer."""
        assert process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(min(CALL_SECONDS.get(verb, OTHER_SECONDS), deadline.remaining)):
                process.stdin.write(json.dumps({"ask": verb, **arguments}).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
            answer = json.loads(line)
            self._answered_at = time.monotonic()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # it waits for a BMC that is silent, and could not log out either
            raise BmcTrouble(Trouble.NO_ANSWER, "in the time given for it") from None
        except (OSError, ValueError):
            raise BmcTrouble(Trouble.NO_ANSWER, "the process that speaks with it ended") from None
        if "trouble" in answer:
            raise BmcTrouble(Trouble(answer["trouble"]), answer["said"], answer["code"])
        self._logged_in = True
        found: Mapping[str, Any] = answer["found"]
        return found

    def _check_lengths(self) -> None:
        for name, most in (("username", MOST_USER_BYTES), ("password", MOST_PASSWORD_BYTES)):
            if len(getattr(self._credential, name).encode()) > most:
                raise AccessDenied(
                    f"the {name} for the BMC at {self._host}:{self._port} has more than the {most} bytes that IPMI 2.0 "
                    "can send; give the BMC's user a shorter one, and write it into credentials.yaml"
                )

    async def _end(self) -> None:
        """End the process, whatever cancels meanwhile: a cancel is passed on once it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        ending = asyncio.ensure_future(_ended(process))
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.shield(ending)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled


async def _ended(process: Process) -> None:
    """Close its input, by which it logs out and ends; end it when it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), END_SECONDS)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
