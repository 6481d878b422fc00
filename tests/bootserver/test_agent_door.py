"""The agent's door over real HTTP: the whole conversation, and everything that is refused."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.agent.on_machine import home as home_module
from mulligan.activities.agent.on_machine.home import Home
from mulligan.activities.bootserver.job import JobKind, Order, Payload, PermitGiven
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.holes import MOST_STRETCHES, data_stretches
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import DiskKind, Erase, Firmware, Identity, RootDisk
from tests.bootserver.agent_parts import DISK, Caller, a_job, an_image, begun, written

MIB = 1024**2
CONTENT = bytes(range(256)) * 40
DONE = {
    "digest": f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
    "written_bytes": len(CONTENT),
    "read_back": True,
    "disk": DISK,
}
"""What an agent says at the end."""
ERASE_JOB = a_job(JobKind.ERASE, erase=Erase.FULL)


@pytest.fixture
def caller(root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path) -> Caller:
    """An agent that was just booted, to deploy."""
    job = a_job(firmware=Firmware.UEFI, root_disk=RootDisk(serial="s-1", min_gib=100))
    _, token = begun(jobs, agent, job, root)
    jobs.load(job.id, an_image(tmp_path, CONTENT), b"seed")
    return Caller(f"{root}/v1/agent/{token}")


async def test_an_agent_is_told_all_that_it_needs(caller: Caller) -> None:
    """What to write, where to, and how to know that it is right."""
    told = await caller.configuration()
    assert {key: told[key] for key in ("job", "kind", "machine", "firmware", "erase")} == {
        "job": "m-1-1-deploy", "kind": "deploy", "machine": "web-1", "firmware": "uefi", "erase": "none",
    }  # fmt: skip
    assert told["root_disk"] == {"serial": "s-1", "wwn": "", "model": "", "kind": "any", "min_gib": 100}
    digest = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    size = len(CONTENT)
    image = {"bytes": size, "compression": "none", "disk_bytes": size, "digest": digest, "data": [[0, size]]}
    assert told["image"] == image
    assert told["seed"] == {"bytes": 4, "digest": f"sha256:{hashlib.sha256(b'seed').hexdigest()}"}


async def test_an_image_may_come_compressed(root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path) -> None:
    """The bytes are those of the stream, also by ranges; size and digest of the disk are told beside."""
    stream = tmp_path / "stream"
    stream.write_bytes(b"compressed")
    image = an_image(tmp_path, CONTENT)
    _, token = begun(jobs, agent, a_job(), root)
    jobs.load("m-1-1-deploy", image, b"seed", Payload(str(stream), 10, image.digest))
    caller = Caller(f"{root}/v1/agent/{token}")
    told = (await caller.configuration())["image"]
    assert told == {"bytes": 10, "compression": "zstd", "disk_bytes": len(CONTENT), "digest": image.digest}
    assert await caller.get("image") == (200, b"compressed")
    assert await caller.get("image", Range="bytes=4-") == (206, b"ressed")


async def test_an_agent_that_erases_gets_nothing_to_write(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """Neither image nor seed."""
    _, token = begun(jobs, agent, ERASE_JOB, root)
    caller = Caller(f"{root}/v1/agent/{token}")
    told = await caller.configuration()
    assert (told["kind"], told["erase"], "image" in told, "seed" in told) == ("erase", "full", False, False)
    assert (await caller.get("image"))[0] == 404


async def test_image_and_seed_come_whole_or_by_ranges(caller: Caller) -> None:
    """A lost connection is resumed where it broke."""
    await caller.configuration()
    assert await caller.get("image") == (200, CONTENT)
    assert await caller.get("image", Range="bytes=5000-") == (206, CONTENT[5000:])
    assert await caller.get("seed") == (200, b"seed")


def sparse(image: Payload, *places: int) -> Payload:
    """The image, now of 200 MiB, with content at these MiB and holes elsewhere."""
    path = Path(image.path)
    with path.open("wb") as file:
        for at in places:
            file.seek(at * MIB)
            file.write(CONTENT)
        file.truncate(200 * MIB)
    return Payload(image.path, 200 * MIB, f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}")


async def test_what_is_zeros_need_not_be_fetched(root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path) -> None:
    """The agent is told where a sparse image has data, and gets all of that by ranges; else there are zeros."""
    job = a_job()
    _, token = begun(jobs, agent, job, root)
    image = sparse(an_image(tmp_path, b""), 0, 40, 41, 90)
    jobs.load(job.id, image, b"seed")
    caller = Caller(f"{root}/v1/agent/{token}")
    stretches = (await caller.configuration())["image"]["data"]
    whole = bytearray(200 * MIB)
    for start, end in stretches:
        status, whole[start:end] = await caller.get("image", Range=f"bytes={start}-{end - 1}")
        assert status == 206
    assert f"sha256:{hashlib.sha256(whole).hexdigest()}" == image.digest
    assert [start for start, _ in stretches] == [0, 40 * MIB, 90 * MIB]
    assert sum(end - start for start, end in stretches) < 3 * MIB


def test_stretches_are_few_however_torn_a_file_is(tmp_path: Path) -> None:
    """Holes are sent too, the smallest first, where there are too many."""
    torn = tmp_path / "torn"
    with torn.open("wb") as file:
        for number in range(MOST_STRETCHES + 5):
            file.seek(number * (2 * MIB) + (MIB if number > 9 else 0))
            file.write(b"x")
    stretches = data_stretches(torn, torn.stat().st_size)
    assert len(stretches) <= MOST_STRETCHES
    assert stretches[-1][1] == torn.stat().st_size
    assert all(before[1] < after[0] for before, after in pairwise(stretches))


async def test_the_agents_own_program_keeps_the_protocol(caller: Caller, jobs: Jobs) -> None:
    """What runs on the machine and what answers it understand each other; its second boot understands the refusal."""

    def converse() -> bytes:
        home = Home(caller.url, lambda _: None)
        size = home.configuration()["image"]["bytes"]
        home.permit(DISK, "write")
        with home.bytes_from("image", size - 100, size) as answer:
            end = answer.read()
        assert home.report({"phase": "writing", "said": "writing", "done": size, "total": size}) == "go-on"
        assert home.report({"phase": "waiting", "result": DONE}) == "go-on"
        with pytest.raises(home_module.Refused, match="used by another boot"):
            Home(caller.url, lambda _: None).configuration()
        return end

    assert await run_blocking(converse) == CONTENT[-100:]
    found = jobs.find("m-1-1-deploy")
    assert found is not None and (found.written, found.result) == (True, DONE)


async def test_reports_are_kept_and_answered_with_an_order(caller: Caller, jobs: Jobs) -> None:
    """The newest one; what people are shown is clean."""
    await caller.configuration()
    assert await caller.report("hardware", hardware={"disks": [DISK]}) == "go-on"
    assert await caller.report("writing", done=5, total=10, said="writing \x1b[31mthe image" + "x" * 900) == "go-on"
    seen = jobs.seen("m-1-1-deploy")
    assert seen.report is not None
    assert (seen.report.phase, seen.report.done, seen.report.total) == ("writing", 5, 10)
    assert seen.report.said.startswith("writing [31mthe image") and len(seen.report.said) == 500
    assert seen.hardware == {"disks": [DISK]}
    jobs.order("m-1-1-deploy", Order.POWER_OFF)
    assert (await caller.post("permits", {"disk": DISK, "what": "write"}))[0] == 204
    assert await caller.report("waiting", result=DONE) == "power-off"
    found = jobs.find("m-1-1-deploy")
    assert found is not None and found.result == DONE


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"digest": "sha256:" + "0" * 64}, "the image has 10240 bytes"),
        ({"written_bytes": 1}, "it tells of 1 bytes"),
        ({"written_bytes": None}, "it tells of None bytes"),
        ({"disk": DISK | {"serial": "S-2"}}, "which it was not permitted to write"),
        ({"disk": None}, "it tells of no disk"),
    ],
    ids=["another-image", "less", "nothing", "another-disk", "no-disk"],
)
async def test_what_cannot_have_been_done_is_not_believed(
    caller: Caller, jobs: Jobs, told: dict[str, object], why: str
) -> None:
    """That the image was read back is the agent's word: it must be the word for this image, on the permitted disk."""
    await caller.configuration()
    assert (await caller.post("permits", {"disk": DISK, "what": "write"}))[0] == 204
    status, body = await caller.post("reports", {"phase": "waiting", "result": DONE | told})
    assert (status, why in body.decode()) == (409, True)
    found = jobs.find("m-1-1-deploy")
    assert found is not None and found.result is None
    assert why in jobs.seen("m-1-1-deploy").refused


async def test_a_permit_is_on_the_disk_before_it_is_given(caller: Caller, jobs: Jobs) -> None:
    """From then on the disk counts as changed, whoever dies."""
    await caller.configuration()
    assert not written(jobs, "m-1-1-deploy")
    assert (await caller.post("permits", {"disk": DISK, "what": "write"}))[0] == 204
    assert (await caller.post("permits", {"disk": DISK, "what": "write"}))[0] == 204
    found = jobs.find("m-1-1-deploy")
    assert found is not None
    (given,) = found.permits
    assert (given.disk, given.what) == ("ST4000, serial S-1, 4000 GB (/dev/sda)", "write")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"serial": "S-2"}, "its serial is S-2, and s-1 was asked for"),
        ({"serial": None}, "its serial is not known"),
        ({"size_bytes": 10**9}, "are needed"),
        ({"size_bytes": "large"}, "are needed"),
        ({"removable": True}, "it is removable"),
    ],
    ids=["another", "unknown", "small", "no-size", "removable"],
)
async def test_a_disk_that_was_not_asked_for_is_not_given(
    caller: Caller, jobs: Jobs, changed: dict[str, object], why: str
) -> None:
    """The agent chose it; nobody vouches for the agent. Whoever waits is told."""
    await caller.configuration()
    with capture_logs() as logs:
        status, body = await caller.post("permits", {"disk": DISK | changed, "what": "write"})
    assert (status, why in body.decode()) == (409, True)
    assert [entry["event"] for entry in logs] == ["agent's permits refused"]
    assert why in jobs.seen("m-1-1-deploy").refused
    assert not written(jobs, "m-1-1-deploy")


@pytest.mark.parametrize("what", ["write", "erase"])
async def test_another_server_than_the_one_that_was_booted_is_given_no_disk(
    root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path, what: str
) -> None:
    """Neither to write nor to erase. Both servers are named, to the agent, in the log, and to whoever waits."""
    kind = JobKind.DEPLOY if what == "write" else JobKind.ERASE
    job = a_job(kind, identity=Identity("ABC1234"))
    _, token = begun(jobs, agent, job, root)
    jobs.load(job.id, an_image(tmp_path, CONTENT) if what == "write" else None, b"seed")
    caller = Caller(f"{root}/v1/agent/{token}")
    await caller.configuration()
    status, body = await caller.post("permits", {"disk": DISK, "what": what})
    assert (status, b"did not tell in this boot" in body) == (409, True)
    await caller.report("hardware", hardware={"serial": "XYZ9876", "board_serial": ""})
    await caller.report("choosing")
    with capture_logs() as logs:
        status, body = await caller.post("permits", {"disk": DISK, "what": what})
    assert (status, b"XYZ9876" in body, b"ABC1234" in body) == (409, True, True)
    (entry,) = logs
    assert (entry["event"], "XYZ9876" in entry["why"]) == ("agent's permits refused", True)
    assert "XYZ9876" in jobs.seen(job.id).refused and not written(jobs, job.id)
    await caller.report("hardware", hardware={"serial": "abc1234"})
    assert (await caller.post("permits", {"disk": DISK, "what": what}))[0] == 204


async def test_an_eraser_must_not_write(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """And may erase every disk."""
    _, token = begun(jobs, agent, ERASE_JOB, root)
    caller = Caller(f"{root}/v1/agent/{token}")
    await caller.configuration()
    assert (await caller.post("permits", {"disk": DISK, "what": "write"}))[0] == 409
    assert (await caller.post("permits", {"disk": DISK, "what": "erase"}))[0] == 204
    assert (await caller.post("permits", {"disk": DISK | {"path": "/dev/sdb"}, "what": "erase"}))[0] == 204


async def test_only_what_the_run_wrote_may_be_erased_where_that_is_asked(
    root: str, jobs: Jobs, agent: AgentImage
) -> None:
    """The undo of a failed run leaves other disks as they are, whatever the agent wishes."""
    only = (PermitGiven("sda", "write", datetime.now(UTC), "/dev/sda", "S-1"),)
    _, token = begun(jobs, agent, a_job(JobKind.ERASE, erase=Erase.METADATA, only=only), root)
    caller = Caller(f"{root}/v1/agent/{token}")
    await caller.configuration()
    other = DISK | {"path": "/dev/sdb", "serial": "S-2"}
    status, body = await caller.post("permits", {"disk": other, "what": "erase"})
    assert (status, b"only what this run may have written" in body) == (409, True)
    assert (await caller.post("permits", {"disk": DISK, "what": "erase"}))[0] == 204


async def test_a_writer_must_not_erase(caller: Caller) -> None:
    """It writes one disk."""
    await caller.configuration()
    assert (await caller.post("permits", {"disk": DISK, "what": "erase"}))[0] == 409


@pytest.mark.parametrize(
    ("kind", "rotational", "status"),
    [("rotational", True, 204), ("rotational", False, 409), ("solid-state", None, 409)],
)
async def test_a_disk_of_another_kind_is_not_given(
    root: str, jobs: Jobs, agent: AgentImage, tmp_path: Path, kind: str, rotational: bool | None, status: int
) -> None:
    """Nor one whose kind is not told."""
    job = a_job(root_disk=RootDisk(kind=DiskKind(kind)))
    _, token = begun(jobs, agent, job, root)
    jobs.load(job.id, an_image(tmp_path, CONTENT), b"seed")
    caller = Caller(f"{root}/v1/agent/{token}")
    await caller.configuration()
    assert (await caller.post("permits", {"disk": DISK | {"rotational": rotational}, "what": "write"}))[0] == status


@pytest.mark.parametrize("name", ["configuration", "image", "seed"])
async def test_a_second_boot_is_refused(caller: Caller, jobs: Jobs, name: str) -> None:
    """The token was used. It is said in the log, and to whoever waits, and never with the token."""
    await caller.configuration()
    with capture_logs() as logs:
        status, body = await Caller(caller.url, "boot-2").get(name)
    assert (status, "used by another boot" in body.decode()) == (409, True)
    (entry,) = logs
    assert (entry["event"], entry["http_status"], entry["job"]) == (f"agent's {name} refused", 409, "m-1-1-deploy")
    assert caller.url.rpartition("/")[2] not in str(logs)
    assert "used by another boot" in jobs.seen("m-1-1-deploy").refused


async def test_a_second_boot_neither_reports_nor_erases(caller: Caller, jobs: Jobs) -> None:
    """Whatever it says."""
    await caller.configuration()
    other = Caller(caller.url, "boot-2")
    assert (await other.post("permits", {"disk": DISK, "what": "write"}))[0] == 409
    assert (await other.post("reports", {"phase": "waiting", "result": {}}))[0] == 409
    found = jobs.find("m-1-1-deploy")
    assert found is not None and (found.result, found.permits) == (None, ())


async def test_the_configuration_comes_first(caller: Caller) -> None:
    """Nobody writes who was not told what."""
    assert (await caller.post("permits", {"disk": DISK, "what": "write"}))[0] == 409
    assert (await caller.get("image"))[0] == 409


async def test_a_look_owns_nothing(caller: Caller, jobs: Jobs) -> None:
    """A HEAD of the configuration, as of a proxy or a monitor, is not the agent."""
    async with (
        aiohttp.ClientSession(headers={"X-Mulligan-Boot": "monitor"}) as session,
        session.head(f"{caller.url}/configuration") as answer,
    ):
        assert answer.status == 405
    await caller.configuration()


async def test_a_boot_says_which_one_it_is(caller: Caller) -> None:
    """Without that, nothing."""
    for boot in ("", "x" * 200):
        assert (await Caller(caller.url, boot).get("configuration"))[0] == 403
    await caller.configuration()


async def test_expired_and_foreign_tokens_are_refused(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """Each with its status, and a word in the log."""
    job, token = begun(jobs, agent, a_job(), root, seconds=-1)
    with capture_logs() as logs:
        assert (await Caller(f"{root}/v1/agent/{token}").get("configuration"))[0] == 403
        assert "expired" in jobs.seen(job.id).refused
        _, token = begun(jobs, agent, job, root)
        assert (await Caller(f"{root}/v1/agent/{token}x").get("configuration"))[0] == 403
        assert (await Caller(f"{root}/v1/agent/other-{token}").get("configuration"))[0] == 404
        for name in ("x" * 300, ".lock"):
            assert (await Caller(f"{root}/v1/agent/{name}.1.1.x").get("configuration"))[0] == 404
    assert [(entry["job"], entry["log_level"]) for entry in logs[:3]] == [
        (job.id, "warning"),
        (job.id, "warning"),
        (f"other-{job.id}", "warning"),
    ]
    assert {entry["log_level"] for entry in logs} == {"warning"}
    assert "not signed by this deployment for this run" in logs[1]["why"]
    assert jobs.seen(job.id).refused == ""
    caller = Caller(f"{root}/v1/agent/{token}")
    await caller.configuration()
    jobs.close(job.id)
    with capture_logs() as logs:
        assert (await caller.post("reports", {"phase": "writing"}))[0] == 410
    assert "the job is over" in logs[0]["why"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"x", {"phase": "sleeping"}, {"phase": "writing", "done": -1}, {"phase": "writing", "total": "1"},
        {"phase": "waiting"}, {"phase": "writing", "done": True}, {"phase": "waiting", "result": {"said": "\ud800"}},
        b'{"phase": "hardware", "hardware": ' + b'{"a":' * 900 + b"1" + b"}" * 901,
    ],
    ids=["empty", "list", "text", "phase", "negative", "string", "no-result", "boolean", "surrogate", "deep"],
)  # fmt: skip
async def test_a_malformed_report_is_a_bad_request(caller: Caller, jobs: Jobs, body: object) -> None:
    """And changes nothing."""
    await caller.configuration()
    assert (await caller.post("reports", body))[0] == 400
    assert jobs.seen("m-1-1-deploy").report is None


@pytest.mark.parametrize("body", [{}, {"disk": "sda", "what": "write"}, {"disk": DISK, "what": "eat"}, b"["])
async def test_a_malformed_wish_is_a_bad_request(caller: Caller, jobs: Jobs, body: object) -> None:
    """And permits nothing."""
    await caller.configuration()
    assert (await caller.post("permits", body))[0] == 400
    assert not written(jobs, "m-1-1-deploy")


async def test_a_report_may_tell_of_much_hardware_and_not_of_everything(caller: Caller) -> None:
    """Up to a mebibyte."""
    await caller.configuration()
    await caller.report("hardware", hardware={"lshw": "x" * 300_000})
    assert (await caller.post("reports", json.dumps({"said": "x" * 2**21}).encode()))[0] == 413


async def test_an_agent_that_failed_says_why(caller: Caller, jobs: Jobs) -> None:
    """By name and in words."""
    await caller.configuration()
    await caller.report("failed", error={"name": "NO_DISK", "message": "no disk is large enough"})
    seen = jobs.seen("m-1-1-deploy")
    assert seen.report is not None
    assert seen.report.error == {"name": "NO_DISK", "message": "no disk is large enough"}
