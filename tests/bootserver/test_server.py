"""The boot server over real HTTP: every answer that a guest may get, and what is said about it in the log."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from structlog.testing import capture_logs

from mulligan.activities.bootserver import server as server_module
from mulligan.activities.bootserver.calls import MalformedCall, parse_call
from mulligan.activities.bootserver.server import BootServer
from mulligan.activities.bootserver.tokens import issue
from mulligan.activities.errors import Busy, Conflict, HostNotReady, Unreachable
from mulligan.activities.values import DiskIdentity

SAID = {
    "hostname": "web-1",
    "instance_id": "machine-1",
    "boot_id": "b00t",
    "addresses": ["192.0.2.7", "2001:db8::7"],
    "ssh_host_keys": ["ssh-ed25519 AAAA"],
    "status": "done",
    "errors": [],
}


def token_for(keyring, seconds: int = 60) -> str:
    """A token that is good for so many seconds."""
    expires = datetime.now(UTC) + timedelta(seconds=seconds)
    return issue(keyring, "provision:shop:web-1", "run-1", "machine-1", "2", expires)


async def post(url: str, token: str, body: bytes = json.dumps(SAID).encode()) -> tuple[int, dict[str, str]]:
    """Call home; the status and the headers of the answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, dict(response.headers)


async def test_a_call_is_handed_to_the_run(url, keyring, run):
    """With all that the guest said, where it came from, and what its token permits."""
    status, _ = await post(url, token_for(keyring))
    assert status == 204
    ((permit, call),) = run.calls
    assert (permit.workflow_id, permit.run_id, permit.machine_id, permit.nonce) == (
        "provision:shop:web-1", "run-1", "machine-1", "2",
    )  # fmt: skip
    assert call.addresses == ("192.0.2.7", "2001:db8::7")
    assert (call.hostname, call.boot_id, call.status, call.peer) == ("web-1", "b00t", "done", "127.0.0.1")
    assert abs(call.at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_call_that_the_run_does_not_take_is_a_conflict(url, keyring, run):
    """A used token, another run's, or a run that is over."""
    run.takes = False
    with capture_logs() as logs:
        status, _ = await post(url, token_for(keyring))
    assert status == 409
    assert [(entry["event"], entry["machine_id"]) for entry in logs] == [("call home refused", "machine-1")]


@pytest.mark.parametrize(("change", "seconds"), [("", -1), ("x", 60)])
async def test_an_expired_or_changed_token_is_forbidden(url, keyring, run, change, seconds):
    """The run never hears of it, and the log does, without the token."""
    token = token_for(keyring, seconds) + change
    with capture_logs() as logs:
        status, _ = await post(url, token)
    assert status == 403
    assert run.calls == []
    assert logs[0]["event"] == "call home refused"
    assert token[:20] not in str(logs)


async def test_no_token_is_no_call(url, run):
    """Neither without the header, nor with another scheme."""
    assert (await post(url, ""))[0] == 401
    other = {"Authorization": "Basic eDp5"}
    async with aiohttp.ClientSession() as session, session.post(url, data=b"{}", headers=other) as response:
        assert response.status == 401
    assert run.calls == []


async def test_tokens_are_never_logged(url, keyring, run):
    """Not when all is well either."""
    token = token_for(keyring)
    with capture_logs() as logs:
        await post(url, token)
    assert [entry["event"] for entry in logs] == ["call home accepted"]
    assert token[:20] not in str(logs)


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b"\xff", b"[" * 60000, b'{"hostname": 7}', b'{"addresses": "x"}', b'{"addresses": [1]}'],
)
async def test_a_malformed_call_is_a_bad_request(url, keyring, run, body):
    """Whatever is wrong with it."""
    assert (await post(url, token_for(keyring), body))[0] == 400
    assert run.calls == []


async def test_a_call_that_is_too_large_is_refused(url, keyring, run):
    """The body has a limit of 64 KiB."""
    assert (await post(url, token_for(keyring), b'"' + b"x" * 70_000 + b'"'))[0] == 413
    assert run.calls == []


@pytest.mark.parametrize(
    ("error", "seconds"), [(Unreachable("no answer"), "5"), (Busy("later", after_seconds=29.5), "30")]
)
async def test_when_the_run_cannot_be_asked_the_guest_tries_again(url, keyring, run, error, seconds):
    """The token is not used up by our own trouble."""
    run.error = error
    status, headers = await post(url, token_for(keyring))
    assert (status, headers["Retry-After"]) == (503, seconds)
    run.error = None
    assert (await post(url, token_for(keyring)))[0] == 204


async def test_health_and_other_paths(url):
    """Only what is there is there."""
    root = url.removesuffix("/v1/call-home")
    async with aiohttp.ClientSession() as session:
        for path, status in (("/healthz", 200), ("/", 404), ("/v1/call-home", 405)):
            async with session.get(root + path) as response:
                assert response.status == status


async def test_it_listens_on_every_address(keyring, run):
    """And says which ports it got."""
    server = BootServer(keyring, run)
    bound = await server.start([("127.0.0.1", 0), ("127.0.0.2", 0)])
    assert [host for host, _ in bound] == ["127.0.0.1", "127.0.0.2"]
    for host, port in bound:
        assert (await post(f"http://{host}:{port}/v1/call-home", token_for(keyring)))[0] == 204
    await server.stop()
    await server.stop()
    with pytest.raises(aiohttp.ClientConnectionError):
        await post(f"http://{bound[0][0]}:{bound[0][1]}/v1/call-home", token_for(keyring))


async def test_a_port_that_is_taken_is_said_and_nothing_is_left_listening(keyring, run):
    """All addresses, or none."""
    first, second = BootServer(keyring, run), BootServer(keyring, run)
    ((_, taken),) = await first.start([("127.0.0.1", 0)])
    ((_, free),) = await second.start([("127.0.0.2", 0)])
    await second.stop()
    with pytest.raises(HostNotReady, match=f"127.0.0.1:{taken}"):
        await second.start([("127.0.0.2", free), ("127.0.0.1", taken)])
    with pytest.raises(aiohttp.ClientConnectionError):
        await post(f"http://127.0.0.2:{free}/v1/call-home", token_for(keyring))
    await first.stop()


async def test_a_stop_lets_a_call_in_progress_end(keyring, run):
    """A guest whose call was taken is told so."""
    arrived, go = asyncio.Event(), asyncio.Event()

    class Slow:
        async def on_call_home(self, permit, call):
            arrived.set()
            await go.wait()
            return True

    server = BootServer(keyring, Slow())
    ((host, port),) = await server.start([("127.0.0.1", 0)])
    call = asyncio.create_task(post(f"http://{host}:{port}/v1/call-home", token_for(keyring)))
    await arrived.wait()
    stop = asyncio.create_task(server.stop())
    go.set()
    assert (await call)[0] == 204
    await stop


async def test_a_stop_ends_what_does_not_end_by_itself(keyring, monkeypatch):
    """In the time that it says, in all."""
    monkeypatch.setattr(server_module, "SHUTDOWN_SECONDS", 1.0)
    arrived = asyncio.Event()

    class Stuck:
        async def on_call_home(self, permit, call):
            arrived.set()
            await asyncio.Event().wait()

    server = BootServer(keyring, Stuck())
    ((host, port),) = await server.start([("127.0.0.1", 0)])
    call = asyncio.create_task(post(f"http://{host}:{port}/v1/call-home", token_for(keyring)))
    await arrived.wait()
    began = time.monotonic()
    await server.stop()
    assert 0.9 < time.monotonic() - began < 1.7
    with pytest.raises(aiohttp.ClientError):
        await call


async def test_a_call_that_the_run_can_never_hear_is_refused_with_the_reason(keyring):
    """For good: a guest that is told to come back later would do so for as long as it lives."""

    class Deaf:
        async def on_call_home(self, permit, call):
            raise Conflict("the run can be told nothing any more: limit reached")

    server = BootServer(keyring, Deaf())
    ((host, port),) = await server.start([("127.0.0.1", 0)])
    with capture_logs() as logs:
        status, _ = await post(f"http://{host}:{port}/v1/call-home", token_for(keyring))
    await server.stop()
    assert status == 409
    assert [(each["http_status"], each["why"]) for each in logs if each["event"] == "call home refused"] == [
        (409, "the run can be told nothing any more: limit reached")
    ]


def test_what_a_guest_says_is_cut_and_cleaned():
    """It is shown to people and kept in the history: no control characters, no novels."""
    said = {"hostname": "a\x1b[31mb\n", "errors": ["x" * 5000], "unheard": {"of": 1}}
    call = parse_call(json.dumps(said).encode(), "192.0.2.7", datetime.now(UTC))
    assert call.hostname == "a[31mb"
    assert call.errors == ("x" * 500,)
    assert call.status == "unknown"


def test_what_a_guest_says_of_its_disks_is_cut_and_cleaned():
    """Those that it names: what it cannot tell is left out, and what is unknown is ignored."""
    disk = {"mount": "/boot", "serial": "S\x1b-1", "model": "x" * 500, "size_bytes": 2**40, "colour": "red"}
    call = parse_call(json.dumps({"disks": [{}, disk]}).encode(), "", datetime.now(UTC))
    assert call.disks == (
        DiskIdentity(mount="/"),
        DiskIdentity(serial="S-1", model="x" * 128, size_bytes=2**40, mount="/boot"),
    )


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"hostname": "x" * 257}, "more than 256 characters"),
        ({"addresses": ["x"] * 65}, "more than 64 entries"),
        ({"ssh_host_keys": [None]}, r"ssh_host_keys\[0\] is not a string"),
        ({"disks": {}}, "disks is not a list of objects"),
        ({"disks": ["sda"]}, "disks is not a list of objects"),
        ({"disks": [{}] * 17}, "more than 16 entries"),
        ({"disks": [{"mount": "/home"}]}, "mount is none of /, /boot"),
        ({"disks": [{"serial": 7}]}, "serial is not a string"),
        ({"disks": [{"size_bytes": -1}]}, "size_bytes is not a whole number"),
        ({"disks": [{"size_bytes": True}]}, "size_bytes is not a whole number"),
    ],
    ids=["long", "many", "no-text", "no-list", "no-object", "disks", "mount", "serial", "negative", "no-number"],
)
def test_what_is_too_much_is_malformed(said, found):
    """With the field's name."""
    with pytest.raises(MalformedCall, match=found):
        parse_call(json.dumps(said).encode(), "", datetime.now(UTC))
