"""The parts that processes are made of, one by one: addresses, locks, logs, listeners, the leash, scripts."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import structlog
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.bootserver.tokens import Permit, issue
from mulligan.activities.errors import Conflict, HostNotReady, Unreachable
from mulligan.activities.seal import Keyring
from mulligan.activities.values import CallHome
from mulligan.api.config import Settings
from mulligan.api.processes import listeners, logs
from mulligan.api.processes.child import LEASH
from mulligan.api.processes.listeners import BootListeners, boot_url
from mulligan.api.processes.ports import require_free
from mulligan.api.processes.stack_file import StackFile, StackState
from mulligan.api.processes.temporal_dev import RETENTION, EmbeddedTemporal, namespace_answers, wait_for_namespace
from tests.services.stack import MULLIGAN, Stack, alive, until
from tests.services.temporal import TemporalServer, free_port

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


class Accepts:
    """A listener that takes every call home and keeps it."""

    def __init__(self) -> None:
        self.calls: list[CallHome] = []

    async def on_call_home(self, permit: Permit, call: CallHome) -> bool:
        """Take it."""
        self.calls.append(call)
        return True


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """What the test configures of logging is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def test_temporal_keeps_closed_runs_for_thirty_days_and_survives_a_kill(tmp_path: Path) -> None:
    """The namespace's retention is set once it answers, and is still set after `kill -9` and another start."""
    with TemporalServer(tmp_path) as server:
        server.kill()
        assert not namespace_answers(server.address)
        server.start()
        client = await Client.connect(server.address)
        found = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        assert found.config.workflow_execution_retention_ttl.ToTimedelta() == RETENTION


def test_waiting_for_a_temporal_that_is_not_there_ends(tmp_path: Path) -> None:
    """The error names the address that was asked."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=address):
        wait_for_namespace(address, timeout=0.1)


def test_temporal_listens_only_where_it_is_told_to(tmp_path: Path) -> None:
    """The addresses of the settings are the command line's; without a Web UI none is served."""
    command = EmbeddedTemporal("127.0.0.1:1", tmp_path / "db", "127.0.0.1:2").command()
    given = dict(itertools.pairwise(command))
    wanted = {"--ip": "127.0.0.1", "--port": "1", "--ui-ip": "127.0.0.1", "--ui-port": "2"}
    assert wanted.items() <= given.items()
    assert "--headless" not in command
    assert "--headless" in EmbeddedTemporal("127.0.0.1:1", tmp_path / "db").command()


def test_a_free_address_is_fine_and_a_taken_one_names_its_setting() -> None:
    """The error says what wanted to listen, where, and which setting changes that."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(HostNotReady, match="another process listens there") as raised:
            require_free("MULLIGAN_API", address, "the API server")
    assert raised.value.metadata["setting"] == "MULLIGAN_API"
    require_free("MULLIGAN_API", address, "the API server")


def test_an_address_of_another_host_is_refused() -> None:
    """An address that this host does not have cannot be listened on (198.51.100.0/24 is for documentation)."""
    with pytest.raises(HostNotReady, match=r"198\.51\.100\.1"):
        require_free("MULLIGAN_API", "198.51.100.1:7420", "the API server")


def test_the_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    """While one holds it, another is refused with its pid; what the holder said goes with the lock."""
    file, other = StackFile(tmp_path / "state"), StackFile(tmp_path / "state")
    assert other.holder() is None
    state = StackState(os.getpid(), True, "a", "u", "b", {"temporal": 1})
    with file.held():
        file.write(state)
        assert other.read() == state
        with pytest.raises(Conflict, match=str(os.getpid())), other.held():
            pass
    assert other.holder() is None
    assert other.read() is None


def test_what_a_killed_holder_said_is_not_believed(tmp_path: Path) -> None:
    """A file that nobody holds the lock for says nothing."""
    file = StackFile(tmp_path / "state")
    with file.held():
        pass
    file.write(StackState(1, True, "a", "u", "b", {}))
    assert file.read() is None


def test_a_state_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """Where a file is in the way, the error names the directory and the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HostNotReady, match="MULLIGAN_STATE_DIR"), StackFile(tmp_path / "file" / "state").held():
        pass


def test_a_leashed_command_dies_with_its_parent(tmp_path: Path) -> None:
    """`kill -9` of the process that started it ends the command, without anyone being asked."""
    code = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", {str(LEASH)!r}, str(os.getpid()), "sleep", "600"])
print(child.pid, flush=True)
child.wait()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    until(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n", what="the leashed command")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not alive(child), 10, "the end of the child")


@pytest.mark.usefixtures("quiet_logs")
def test_logs_are_one_json_object_a_line_with_the_process_named() -> None:
    """structlog's and the standard library's lines look the same, below the level nothing is written."""
    out = io.StringIO()
    logs.configure("worker default", "info", out)
    structlog.get_logger("mine").info("called home", machine="m-1")
    logging.getLogger("theirs").warning("slow %s", "disk")
    logging.getLogger("theirs").debug("not this")
    try:
        raise ValueError("seen")
    except ValueError:
        logging.getLogger("theirs").exception("failed")
    first, second, third = (json.loads(line) for line in out.getvalue().splitlines())
    assert (first["event"], first["machine"], first["process"]) == ("called home", "m-1", "worker default")
    assert (second["event"], second["level"], second["process"]) == ("slow disk", "warning", "worker default")
    assert "ValueError: seen" in third["exception"]


@pytest.mark.parametrize(
    ("listen", "url", "host", "expected"),
    [
        ("auto", "", "192.168.122.1", "http://192.168.122.1:7421"),
        ("auto", "", "fd00::1", "http://[fd00::1]:7421"),
        ("auto", "", "", ""),
        ("auto", "https://boot.example", "", "https://boot.example"),
        ("127.0.0.1:9,10.0.0.1:8080", "", "10.0.0.1", "http://10.0.0.1:8080"),
        ("0.0.0.0:8080", "", "10.0.0.1", "http://10.0.0.1:8080"),
        ("127.0.0.1:9", "", "10.0.0.1", ""),
    ],
)
def test_guests_are_told_where_the_boot_server_listens_for_them(
    listen: str, url: str, host: str, expected: str, tmp_path: Path
) -> None:
    """The URL follows from the setting and from the address at which the guest sees this host; empty: unreachable."""
    assert boot_url(Settings(state_dir=tmp_path, boot_listen=listen, boot_url=url), host) == expected


async def test_the_boot_server_listens_on_each_bridge_that_comes_up_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `auto`, a libvirt network that starts after the worker is listened on too, and takes calls home."""
    port, bridges = free_port(), list[str]()
    monkeypatch.setattr(listeners, "BOOT_PORT", port)
    monkeypatch.setattr(listeners, "bridge_addresses", lambda: tuple(bridges))
    monkeypatch.setattr(listeners, "_LOOK_SECONDS", 0.02)
    keyring, heard = Keyring.load(tmp_path / "key"), Accepts()
    boot = BootListeners("auto", lambda: BootServer(keyring, heard))
    await boot.start()
    token = issue(keyring, "provision:p:m", "run", "machine", "1", datetime(2100, 1, 1, tzinfo=UTC))
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        url = f"http://127.0.0.2:{port}/v1/call-home"
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post(url, json={"status": "done"})
        following = asyncio.create_task(boot.follow_bridges())
        bridges.append("127.0.0.2")  # stands for a bridge's address: loopback has all of 127.0.0.0/8
        await _answered(session, f"http://127.0.0.2:{port}/healthz")
        async with session.post(url, json={"status": "done"}) as answer:
            assert answer.status == 204
        following.cancel()
    await boot.stop()
    assert [call.status for call in heard.calls] == ["done"]


async def _answered(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until somebody answers there."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)


async def test_a_boot_address_that_is_taken_names_the_setting(tmp_path: Path) -> None:
    """The worker says which setting to change, and listens nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        keyring = Keyring.load(tmp_path / "key")
        free = f"127.0.0.1:{free_port()}"
        boot = BootListeners(f"{free},{address}", lambda: BootServer(keyring, Accepts()))
        with pytest.raises(HostNotReady, match="MULLIGAN_BOOT_LISTEN"):
            await boot.start()
    require_free("MULLIGAN_BOOT_LISTEN", free, "the boot server")


@pytest.mark.parametrize("role", [("server",), ("worker", "--control", "--partition", "default")])
def test_a_process_waits_for_temporal_and_ends_in_peace(tmp_path: Path, role: tuple[str, ...]) -> None:
    """Without Temporal it says what it waits for, and where; asked to end meanwhile, it does, with status 0."""
    stack = Stack(tmp_path)
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([*MULLIGAN, *role], env=stack.environment, stderr=out)
    try:
        until(lambda: "waiting for Temporal" in log.read_text(), what="the message")
        assert stack.temporal in log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_partition_worker_may_open_as_many_files_as_the_system_lets_it(tmp_path: Path) -> None:
    """Guests, job files and BMCs share its descriptors, and 1024 are soon gone."""
    limited = ["prlimit", "--nofile=256:4096"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*limited, *MULLIGAN, "worker", "--partition", "default"], env=Stack(tmp_path).environment, stderr=out
        )
    try:
        until(lambda: "waiting for Temporal" in log.read_text(), what="the message")
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (4096, 4096)
    finally:
        process.kill()
        process.wait()


def test_a_worker_without_a_role_is_wrong_usage(tmp_path: Path) -> None:
    """It says which roles there are."""
    refused = Stack(tmp_path).run("worker")
    assert refused.returncode == 2
    assert "--control" in refused.stderr


def test_the_doctor_says_what_is_wrong_and_what_mends_it(tmp_path: Path) -> None:
    """A taken port is wrong, has its remedy, and makes the exit code; every line of JSON is one finding."""
    with Stack(tmp_path) as stack, socket.create_server(("127.0.0.1", 0)) as taken:
        stack.api = f"127.0.0.1:{taken.getsockname()[1]}"
        told = stack.run("doctor", "--simulated", "--output", "json")
    found = [json.loads(line) for line in told.stdout.splitlines()]
    wrong = [each for each in found if each["state"] == "wrong"]
    assert told.returncode == 11
    assert [each["name"] for each in wrong] == ["port"]
    assert "MULLIGAN_API" in wrong[0]["asked"]
    assert "ss -ltnp" in wrong[0]["remedy"]
    assert {"python", "state", "temporal", "stack"} <= {each["name"] for each in found}


def test_progress_keeps_the_status_and_shows_what_a_failure_said() -> None:
    """A command that fails is shown with its words; one that works says nothing."""
    failed = subprocess.run(
        [DEPLOY / "progress.sh", "trying", "sh", "-c", "echo why; exit 7"], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 7
    assert "why" in failed.stderr
    worked = subprocess.run(
        [DEPLOY / "progress.sh", "trying", "echo", "words"], capture_output=True, text=True, check=True
    )
    assert worked.stdout + worked.stderr == ""


def test_packages_that_are_there_are_not_installed_again() -> None:
    """With everything installed the script does nothing and says nothing."""
    done = subprocess.run(
        [DEPLOY / "packages.sh", sys.executable, "python", "virtual", "images", "test", "bench"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
