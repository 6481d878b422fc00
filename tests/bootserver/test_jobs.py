"""The agent's jobs: what survives, whose token is good, and what is known of a disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.bootserver.job import Job, JobKind, Order, PermitGiven, Phase, Report, job_id
from mulligan.activities.bootserver.jobs import Jobs, Refused
from mulligan.activities.errors import Conflict
from mulligan.activities.seal import Keyring
from mulligan.activities.values import Erase, Mark
from tests.bootserver.agent_parts import a_job, a_medium, an_image, begun

URL = "http://192.0.2.1:7421"
NOW = datetime(2026, 11, 23, tzinfo=UTC)
MAC = "52:54:00:00:00:01"
GIVEN = PermitGiven("ST4000 (/dev/sda)", "write", NOW)


def refusal(do: Callable[[], object]) -> tuple[int, str]:
    """How it was refused."""
    with pytest.raises(Refused) as refused:
        do()
    return refused.value.status, refused.value.why


def test_a_job_is_named_after_its_claim() -> None:
    """A machine's next claim has other jobs, and so has one of the same fence on another server."""
    mark = Mark("shop", "web-1", "m-1", "run-1", 3)
    assert job_id("srv-1", mark, JobKind.ERASE) == "m-1-srv-1-3-erase"


def test_a_job_keeps_the_name_that_it_was_given(jobs: Jobs) -> None:
    """Jobs were named without their provider before: it is found by that name, and by its own provider only."""
    mark = Mark("shop", "web-1", "m-1", "run-1", 1)
    jobs.open(a_job(provider="srv-1"))
    assert jobs.name("srv-1", mark, JobKind.DEPLOY) == "m-1-1-deploy"
    assert jobs.name("srv-2", mark, JobKind.DEPLOY) == "m-1-srv-2-1-deploy"
    assert jobs.name("srv-1", mark, JobKind.ERASE) == "m-1-srv-1-1-erase"


def test_another_process_sees_the_same(jobs: Jobs, agent: AgentImage, tmp_path: Path, keyring: Keyring) -> None:
    """All of it: a worker that was killed leaves nothing behind that only it knew."""
    _, token = begun(jobs, agent, a_job(), URL)
    jobs.load("m-1-1-deploy", an_image(tmp_path, b"disk" * 512), b"seed")
    jobs.own(token, "boot-1", "192.0.2.7")
    jobs.permit(token, "boot-1", GIVEN)
    jobs.report(token, "boot-1", Report(NOW, Phase.WRITING, "writing", 5, 10), None, {"disks": 1})
    other = Jobs(tmp_path / "jobs", keyring)
    found = other.find("m-1-1-deploy")
    assert found == jobs.find("m-1-1-deploy")
    assert found is not None and found.boot is not None and found.seed is not None
    assert (found.boot.owner, found.boot.peer, found.permits) == ("boot-1", "192.0.2.7", (GIVEN,))
    assert Path(found.seed.path).read_bytes() == b"seed"
    assert other.seen(found.id).report == Report(NOW, Phase.WRITING, "writing", 5, 10)
    assert other.owned(token, "boot-1") == found


def test_opening_again_goes_on(jobs: Jobs, agent: AgentImage) -> None:
    """The same wish of the same run finds what is there, and its agent at work."""
    job, token = begun(jobs, agent, a_job(), URL)
    again = jobs.open(a_job())
    assert again == replace(job, asked_at=again.asked_at)
    jobs.own(token, "boot-1", "")


def test_another_runs_wish_begins_anew_and_knows_what_was_written(jobs: Jobs, agent: AgentImage) -> None:
    """The old token is of no use, the old result neither; that a disk may have been changed stays known."""
    _, token = begun(jobs, agent, a_job(), URL)
    jobs.own(token, "boot-1", "")
    jobs.permit(token, "boot-1", GIVEN)
    jobs.finish("m-1-1-deploy", {"digest": "x"})
    anew = jobs.open(a_job(run_id="run-2", asked_by="run-2"))
    assert (anew.result, anew.boot, anew.written) == (None, None, True)
    assert refusal(lambda: jobs.owned(token, "boot-1"))[0] == 403


def test_a_stronger_erase_is_another_wish(jobs: Jobs) -> None:
    """What was wiped is overwritten when that is asked for."""
    jobs.open(a_job(JobKind.ERASE, erase=Erase.METADATA))
    jobs.finish("m-1-1-erase", {"disks": []})
    assert jobs.open(a_job(JobKind.ERASE, erase=Erase.METADATA)).result is not None
    assert jobs.open(a_job(JobKind.ERASE, erase=Erase.FULL)).result is None


def test_what_is_done_stays_done_when_it_is_closed(jobs: Jobs) -> None:
    """An activity whose answer was lost is run again, and finds it done; one that was broken off begins anew."""
    jobs.open(a_job())
    jobs.close("m-1-1-deploy")
    assert not jobs.open(a_job()).closed
    jobs.finish("m-1-1-deploy", {"digest": "x"})
    jobs.close("m-1-1-deploy")
    jobs.close("m-1-1-deploy")
    assert jobs.open(a_job()).result == {"digest": "x"}


def test_the_first_boot_owns_the_token(jobs: Jobs, agent: AgentImage) -> None:
    """Another one is told who was first."""
    _, token = begun(jobs, agent, a_job(), URL)
    status, why = refusal(lambda: jobs.owned(token, "boot-1"))
    assert (status, "configuration comes first" in why) == (409, True)
    jobs.own(token, "boot-1", "192.0.2.7")
    jobs.own(token, "boot-1", "192.0.2.7")
    status, why = refusal(lambda: jobs.own(token, "boot-2", "192.0.2.8"))
    assert (status, "192.0.2.7" in why) == (409, True)


def test_of_many_boots_at_once_one_owns_the_token(jobs: Jobs, agent: AgentImage) -> None:
    """Whoever it is."""
    _, token = begun(jobs, agent, a_job(), URL)
    start, owners = threading.Barrier(8), []

    def ask(number: int) -> None:
        start.wait()
        try:
            jobs.own(token, f"boot-{number}", "")
        except Refused:
            return
        owners.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(owners) == 1


@pytest.mark.parametrize("end", ["boot", "given-up", "closed"])
def test_a_token_ends(jobs: Jobs, agent: AgentImage, end: str) -> None:
    """With the next boot, when its boot is waited for no more, and with the job."""
    job, token = begun(jobs, agent, a_job(), URL)
    jobs.own(token, "boot-1", "")
    if end == "boot":
        begun(jobs, agent, job, URL)
    elif end == "given-up":
        jobs.give_up_boot(job.id)
    else:
        jobs.close(job.id)
    assert refusal(lambda: jobs.owned(token, "boot-1"))[0] == 410


def test_a_token_expires(tmp_path: Path, agent: AgentImage, keyring: Keyring) -> None:
    """To the second."""
    late = Jobs(tmp_path / "jobs", keyring, now=lambda: datetime.now(UTC) + timedelta(seconds=61))
    _, token = begun(Jobs(tmp_path / "jobs", keyring), agent, a_job(), URL)
    status, why = refusal(lambda: late.admit(token))
    assert (status, "expired" in why) == (403, True)


def test_no_other_token_is_good(jobs: Jobs, agent: AgentImage, tmp_path: Path) -> None:
    """Neither a changed one, nor one of another job, run or deployment, nor what is none."""
    job, token = begun(jobs, agent, a_job(), URL)
    said, _, signature = token.rpartition(".")
    name, attempt, expires = said.rsplit(".", 2)
    for changed in (
        f"{name}.{int(attempt) + 1}.{expires}.{signature}",
        f"{name}.{attempt}.{int(expires) + 1}.{signature}",
        f"{said}.{signature[:-1]}",
        f"{said}.{signature}x",
        f"{said}.",
        "x",
        "",
        "...",
    ):
        assert refusal(lambda changed=changed: jobs.admit(changed))[0] == 403  # type: ignore[misc]
    assert refusal(lambda: jobs.admit(f"{name}x.{attempt}.{expires}.{signature}"))[0] == 404
    assert refusal(lambda: jobs.admit(f"../{name}.{attempt}.{expires}.{signature}"))[0] == 404
    theirs = Jobs(tmp_path / "theirs", Keyring(b"o" * 32))
    begun(theirs, agent, a_job(), URL)
    assert refusal(lambda: theirs.admit(token))[0] == 403
    jobs.change(job.id, lambda found: replace(found, run_id="run-9"))
    assert refusal(lambda: jobs.admit(token))[0] == 403


def test_tokens_are_short(jobs: Jobs, agent: AgentImage) -> None:
    """Some BMCs take no URL of more than 255 characters: host, token, run and suffix."""
    machine, run = "0" * 36, "0" * 36
    job = replace(a_job(run_id=run), id=f"{machine}-100-deploy")
    _, token = begun(jobs, agent, job, URL)
    assert len(f"http://192.168.100.100:17421/v1/media/{token}/{run}.iso") < 200


def test_a_file_that_is_damaged_says_nothing(jobs: Jobs, agent: AgentImage, tmp_path: Path) -> None:
    """As if there were none: it is not taken for a job that came to nothing."""
    assert jobs.find("m-1-1-deploy") is None
    assert not jobs.open(a_job()).written
    (tmp_path / "jobs" / "m-1-1-deploy.json").write_text('{"id": ')
    assert jobs.find("m-1-1-deploy") is None
    assert not jobs.open(a_job()).closed


def test_a_report_of_an_earlier_boot_is_not_taken_for_this_ones(jobs: Jobs, agent: AgentImage) -> None:
    """Each boot begins without a word."""
    job, token = begun(jobs, agent, a_job(), URL)
    jobs.own(token, "boot-1", "")
    jobs.report(token, "boot-1", Report(NOW, Phase.WRITING), None, None)
    jobs.note_fetched(job, "medium", 7)
    begun(jobs, agent, job, URL)
    assert jobs.seen(job.id).report is None
    assert jobs.seen(job.id).fetched == {}


def test_orders_reach_the_agent_with_its_next_report(jobs: Jobs, agent: AgentImage) -> None:
    """And it is known that it was told."""
    job, token = begun(jobs, agent, a_job(), URL)
    jobs.own(token, "boot-1", "")
    report = Report(NOW, Phase.WAITING)
    assert jobs.report(token, "boot-1", report, {"digest": "x"}, None) is Order.GO_ON
    jobs.order(job.id, Order.POWER_OFF)
    assert jobs.report(token, "boot-1", report, {"digest": "other"}, None) is Order.POWER_OFF
    assert jobs.seen(job.id).told is Order.POWER_OFF
    found = jobs.find(job.id)
    assert found is not None and found.result == {"digest": "x"}


def test_what_an_earlier_boot_still_fetches_is_not_of_this_one(jobs: Jobs, agent: AgentImage) -> None:
    """And takes nothing away of what this one told."""
    before, _ = begun(jobs, agent, a_job(), URL)
    now, _ = begun(jobs, agent, a_job(), URL)
    jobs.switching_on(now.id)
    told = jobs.seen(now.id)
    jobs.note_fetched(before, "initrd", 4096)
    assert jobs.seen(now.id) == told and told.on_at is not None
    jobs.note_fetched(now, "initrd", 1)
    assert jobs.seen(now.id).fetched == {"initrd": 1}


def test_a_boot_before_a_job_was_forgotten_is_none_of_the_next(jobs: Jobs, agent: AgentImage) -> None:
    """Neither is its token good, nor does the end of one of its connections say anything of the new boot."""
    erase = a_job(JobKind.ERASE, erase=Erase.FULL)
    before, old = begun(jobs, agent, erase, URL)
    jobs.own(old, "boot-1", "")
    assert not jobs.write_anew("m-1-1-deploy", erase.id, asked=0, heard=60)
    assert not jobs.write_anew("m-1-1-deploy", erase.id, asked=60, heard=0)
    assert jobs.write_anew("m-1-1-deploy", erase.id, asked=0, heard=0)
    forgotten = jobs.find(erase.id)
    assert forgotten is not None and (forgotten.asked_by, forgotten.result, forgotten.closed) == ("", None, True)
    _, token = begun(jobs, agent, erase, URL)
    assert refusal(lambda: jobs.own(old, "boot-1", ""))[0] == 410
    jobs.own(token, "boot-2", "")
    jobs.report(token, "boot-2", Report(NOW, Phase.HARDWARE), None, {"uuid": "x"})
    jobs.note_fetched(before, "medium", 5)
    assert jobs.seen(erase.id).hardware == {"uuid": "x"}


def test_a_job_that_is_over_begins_no_boot(jobs: Jobs, agent: AgentImage) -> None:
    """Whoever comes late gets neither a token nor what another job boots by."""
    job, _ = begun(jobs, agent, a_job(provider="srv-1"), URL, macs=(MAC,))
    jobs.close(job.id)
    begun(jobs, agent, a_job(JobKind.ERASE, provider="srv-1", erase=Erase.FULL), URL, macs=(MAC,))
    late: list[Callable[[], object]] = [
        lambda: jobs.begin_boot(job.id, URL, NOW + timedelta(hours=1), (MAC,)),
        lambda: jobs.load(job.id, None, b"seed"),
        lambda: jobs.equip(job.id, a_medium(agent, URL)),
        lambda: jobs.switching_on(job.id),
    ]
    for do in late:
        with pytest.raises(Conflict, match="srv-1: what was begun there was ended by another action"):
            do()
    served = jobs.for_mac(MAC)
    assert served is not None and served.id == "m-1-1-erase"


def test_the_seed_goes_with_its_job(jobs: Jobs, tmp_path: Path) -> None:
    """It may hold secrets: nobody else reads it, and it is gone when the job is closed."""
    job: Job = jobs.open(a_job())
    seed = jobs.load(job.id, an_image(tmp_path, b"x" * 512), b"secret").seed
    assert seed is not None
    path = Path(seed.path)
    assert path.stat().st_mode & 0o077 == 0
    jobs.load(job.id, an_image(tmp_path, b"y" * 512), b"another")
    assert path.read_bytes() == b"secret"
    jobs.close(job.id)
    assert not path.exists()


def test_a_run_boots_its_own_arguments(agent: AgentImage) -> None:
    """On the kernel's command line as in the medium's hole."""
    medium = a_medium(agent, f"{URL}/v1/agent/t")
    assert medium.command_line.endswith(f"mulligan.url={URL}/v1/agent/t")
    assert len(medium.hole) == agent.hole_bytes


def test_the_seed_goes_whenever_its_job_went(jobs: Jobs, agent: AgentImage, tmp_path: Path) -> None:
    """Also where a worker was killed in between, or a job that was given up long ago is removed."""
    for name in ("m-1-1-deploy", "m-2-1-deploy"):
        begun(jobs, agent, replace(a_job(), id=name), URL)
        jobs.load(name, None, b"secret")
    left = (tmp_path / "jobs" / "m-1-1-deploy.seed").read_bytes()
    jobs.close("m-1-1-deploy")
    (tmp_path / "jobs" / "m-1-1-deploy.seed").write_bytes(left)  # as if it had been killed before it came to that
    jobs.close("m-1-1-deploy")
    jobs.give_up_boot("m-2-1-deploy")
    for path in (tmp_path / "jobs").glob("m-2*"):
        os.utime(path, (0, 0))
    jobs.open(replace(a_job(), id="m-3-1-deploy"))
    assert (jobs.find("m-2-1-deploy"), list((tmp_path / "jobs").glob("*.seed"))) == (None, [])
