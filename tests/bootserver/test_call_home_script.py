"""The script that runs in the guest, run here for real against a real boot server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mulligan.activities.bootserver.tokens import issue
from mulligan.activities.errors import Unreachable
from mulligan.activities.images import seed


class Guest:
    """A place from which the script is run, with as much of cloud-init as the test needs."""

    def __init__(self, directory: Path, url: str, token: str) -> None:
        self.directory = directory
        self.url = url
        self.token = token
        (directory / "bin").mkdir()

    def cloud_init(self, says: str, result: str, code: int = 0) -> None:
        """Put a command in place that answers like cloud-init's, and its result file."""
        command = self.directory / "bin" / "cloud-init"
        command.write_text(f"#!/bin/sh\n[ \"$*\" = 'status --wait' ] && printf '{says}'\nexit {code}\n")
        command.chmod(0o755)
        (self.directory / "result.json").write_text(result)

    async def call_home(self) -> None:
        """Run the script as cloud-init does, and wait until its last process has ended."""
        text = seed.call_home_script("machine-1", self.url, self.token)
        script = self.directory / "part-001"
        script.write_text(text.replace("/run/cloud-init/result.json", str(self.directory / "result.json")))
        ours, theirs = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(script), pass_fds=[theirs],
                env={"PATH": f"{self.directory}/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            )  # fmt: skip
        finally:
            os.close(theirs)
        assert await process.wait() == 0
        await asyncio.to_thread(os.read, ours, 1)  # ends when nobody holds the other end any more
        os.close(ours)


@pytest.fixture
def guest(tmp_path: Path, url: str, keyring) -> Guest:
    """A guest with a good token, and without cloud-init."""
    expires = datetime.now(UTC) + timedelta(minutes=5)
    return Guest(tmp_path, url, issue(keyring, "provision:shop:web-1", "run-1", "machine-1", "1", expires))


async def test_a_guest_calls_home_after_its_set_up(guest, run):
    """All that it says is true of the machine it runs on."""
    guest.cloud_init("......\\nstatus: done\\n", '{"v1": {"datasource": "DataSourceNoCloud", "errors": []}}')
    await guest.call_home()
    ((permit, call),) = run.calls
    assert permit.machine_id == "machine-1"
    assert (call.status, call.errors) == ("done", ())
    assert call.hostname == socket.gethostname()
    assert call.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # noqa: ASYNC240 - a few bytes
    assert call.instance_id == "machine-1"
    assert call.addresses
    assert "127.0.0.1" not in call.addresses or call.addresses == ("127.0.0.1",)


@pytest.mark.parametrize(
    ("says", "result", "code", "status", "errors"),
    [
        ("status: error\\n", '{"v1": {"errors": ["(\'runcmd\', X)"]}}', 1, "error", ("('runcmd', X)",)),
        ("status: done\\n", '{"v1": {"errors": ["one"]}}', 0, "error", ("one",)),
        ("status: done\\n", '{"v1": {"errors": []}}', 2, "done", ()),
        ("status: disabled\\n", "", 0, "disabled", ()),
        ("", "not json", 1, "unknown", ()),
    ],
)
async def test_how_the_set_up_ended_is_said(guest, run, says, result, code, status, errors):
    """Errors are never reported as done; an exit code of 2 alone is a set-up with mere warnings."""
    guest.cloud_init(says, result, code)
    await guest.call_home()
    ((_, call),) = run.calls
    assert (call.status, call.errors) == (status, errors)


async def test_without_cloud_init_nobody_knows(guest, run):
    """It calls home all the same, and does not claim that it is done."""
    await guest.call_home()
    ((_, call),) = run.calls
    assert call.status == "unknown"


async def test_it_tries_again_until_it_is_heard(guest, run):
    """A worker that is being restarted costs a few seconds."""
    run.error = Unreachable("Temporal does not answer")
    calling = asyncio.create_task(guest.call_home())
    while not run.calls:  # noqa: ASYNC110 - the other side is a process
        await asyncio.sleep(0.01)
    run.error = None
    await calling
    assert len(run.calls) == 2


async def test_a_refusal_for_good_ends_it(guest, run):
    """A run that is over is not called again."""
    run.takes = False
    await guest.call_home()
    assert len(run.calls) == 1


async def test_no_value_can_break_out_of_the_script(guest, run, tmp_path):
    """Settings are data, whatever characters they hold."""
    nasty = "a\"b'c\\d\n\"\"\"'''@SETTINGS@"
    text = seed.call_home_script(nasty, guest.url, guest.token)
    names: dict[str, object] = {"json": json}
    line = next(line for line in text.splitlines() if line.startswith("SETTINGS"))
    exec(line, names)
    assert names["SETTINGS"] == {"instance_id": nasty, "url": guest.url, "token": guest.token}
