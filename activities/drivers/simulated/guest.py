"""The part of a simulated machine that runs: it calls home over real HTTP, and listens where its host is set to.

It runs as a background task of the process that powered the machine on, and of any process that looks at the machine
later; a short lease in the fleet's file sees to it that one of them at a time makes the call. A call that no one
answers is made again until the machine is powered off, as a guest would.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import hashlib
import json
import os
import sqlite3
import time
from functools import partial
from pathlib import Path

import aiohttp

from mulligan.activities.drivers.simulated.boot import Boot, boot_of
from mulligan.activities.drivers.simulated.personalities import Personality
from mulligan.activities.drivers.simulated.settings import HostSettings
from mulligan.activities.drivers.simulated.state import State
from mulligan.activities.errors import Unreachable
from mulligan.activities.pids import alive

BANNER = b"SSH-2.0-mulligan-simulated\r\n"
LEASE_SECONDS = 6.0
"""How long one process may take for a call before another may make it."""

_running: dict[tuple[Path, str, str, str], asyncio.Task[None]] = {}


def ensure_guest(state: State, settings: HostSettings, row: sqlite3.Row) -> None:
    """See to it that the guest of this row of `machines` runs in this process, when it has anything left to do."""
    key = (state.path, settings.host, str(row["machine_id"]), str(row["boot_id"]))
    task, loop = _running.get(key), asyncio.get_running_loop()
    if task is not None and not task.done() and task.get_loop() is loop:
        return
    boot = boot_of(settings, row)
    calls = row["home"] == "" and boot.home_at is not None and bool(json.loads(row["guest"]).get("call_home_url"))
    serves = settings.service and boot.address_at is not None
    if row["state"] != "on" or not (calls or serves):
        return
    _running[key] = task = loop.create_task(
        _live(state, settings, boot, calls, serves),
        context=contextvars.Context(),  # not its caller's activity
    )
    task.add_done_callback(lambda ended: _running.pop(key) if _running.get(key) is ended else None)


async def stop_guests() -> None:
    """End this process's guests; another process that looks at their machines goes on with them."""
    mine = [task for task in _running.values() if task.get_loop() is asyncio.get_running_loop()]
    for task in mine:
        task.cancel()
    await asyncio.gather(*mine, return_exceptions=True)


async def _live(state: State, settings: HostSettings, boot: Boot, calls: bool, serves: bool) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            if calls:
                group.create_task(_call_home(state, settings, boot))
            if serves:
                group.create_task(_serve(state, settings, boot))
    except* Unreachable:
        pass  # the fleet's file cannot be used: whoever looks at the machine next starts its guest again


async def _call_home(state: State, settings: HostSettings, boot: Boot) -> None:
    await asyncio.sleep(max(0.0, (boot.home_at or 0.0) - time.time()))
    pause = 0.1
    while (turn := await state.change(lambda db: _take_turn(db, settings, boot))) is not None:
        if turn and (outcome := await _post(settings, boot, json.loads(turn))):
            return await state.change(partial(_record, settings, boot, *outcome))
        await asyncio.sleep(pause)
        pause = min(2.0, pause * 2)
    return None


def _take_turn(db: sqlite3.Connection, settings: HostSettings, boot: Boot) -> str | None:
    """The guest's seed when it is this process's turn to call, empty when it is another's, None when all is done."""
    now = time.time()
    row = _row(db, settings, boot)
    if row is None or row["home"]:
        return None
    if row["caller"] != os.getpid() and row["caller_until"] > now and alive(row["caller"]):
        return ""
    db.execute(
        "UPDATE machines SET caller=?, caller_until=? WHERE number=?",
        (os.getpid(), now + LEASE_SECONDS, row["number"]),
    )
    return str(row["guest"])


async def _post(settings: HostSettings, boot: Boot, guest: dict[str, str]) -> tuple[str, str] | None:
    """Call home once: (`done` or `refused`, a line for the console), or None when it must be tried again."""
    failed = settings.has(Personality.CLOUD_INIT_FAILED)
    body = {
        "hostname": boot.hostname,
        "instance_id": guest["instance_id"],
        "boot_id": boot.boot_id,
        "addresses": [boot.address],
        "ssh_host_keys": [_host_key(boot)],
        "status": "error" if failed else "done",
        "errors": ["cloud-init: modules-final: the simulated set-up failed"] if failed else [],
    }
    url, headers = guest["call_home_url"], {"Authorization": f"Bearer {guest['call_home_token']}"}
    timeout = aiohttp.ClientTimeout(total=LEASE_SECONDS - 1)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=_connector(url, boot)) as session,
            session.post(url, json=body, headers=headers) as answer,
        ):
            status = answer.status
    except aiohttp.InvalidURL:
        return "refused", "mulligan: call home failed: the seed holds no usable URL"
    except (aiohttp.ClientError, TimeoutError):
        return None
    if status == 429 or status >= 500:
        return None
    if status >= 300:
        return "refused", f"mulligan: call home was refused with HTTP status {status}"
    return "done", "mulligan: called home"


def _connector(url: str, boot: Boot) -> aiohttp.TCPConnector:
    """From the machine's own address when the boot server is on this host, so that it sees the machine call."""
    near = url.startswith(("http://127.", "http://localhost:"))
    return aiohttp.TCPConnector(local_addr=(boot.address, 0) if near else None)


def _host_key(boot: Boot) -> str:
    """An ed25519 public key in form only: nobody holds its private half."""
    name, key = b"ssh-ed25519", hashlib.sha256(boot.machine_id.encode()).digest()
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (name, key))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} root@{boot.hostname}"


async def _serve(state: State, settings: HostSettings, boot: Boot) -> None:
    """Listen on the machine's address from when it has it until it is powered off."""
    await asyncio.sleep(max(0.0, (boot.address_at or 0.0) - time.time()))
    try:
        server = await asyncio.start_server(_greet, boot.address, settings.service_port)
    except OSError as error:
        if not isinstance(error, PermissionError):
            return  # another process of this host serves it already
        note = f"sshd: cannot listen on {boot.address} port {settings.service_port}: {error.strerror}"
        await state.change(lambda db: _note(db, settings, boot, note))
        return
    async with server:
        # Asked again and again, because another process may be the one that ends the machine.
        while await state.read(lambda db: _row(db, settings, boot)) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def _greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(BANNER)
    try:
        await writer.drain()
    except ConnectionError:
        pass  # the caller went away, which is its right
    finally:
        writer.close()


def _row(db: sqlite3.Connection, settings: HostSettings, boot: Boot) -> sqlite3.Row | None:
    """The machine's row while this boot goes on; nobody may have written down yet that it went off by itself."""
    if settings.off_after and time.time() >= boot.powered_at + settings.off_after:
        return None
    row: sqlite3.Row | None = db.execute(
        "SELECT * FROM machines WHERE host=? AND machine_id=? AND boot_id=? AND state='on'",
        (settings.host, boot.machine_id, boot.boot_id),
    ).fetchone()
    return row


def _record(settings: HostSettings, boot: Boot, status: str, note: str, db: sqlite3.Connection) -> None:
    row = _row(db, settings, boot)
    if row is not None:
        db.execute("UPDATE machines SET home=? WHERE number=?", (status, row["number"]))
        _note(db, settings, boot, note)


def _note(db: sqlite3.Connection, settings: HostSettings, boot: Boot, text: str) -> None:
    row = _row(db, settings, boot)
    if row is not None:
        notes = [*json.loads(row["notes"]), (time.time(), text)]
        db.execute("UPDATE machines SET notes=? WHERE number=?", (json.dumps(notes), row["number"]))
