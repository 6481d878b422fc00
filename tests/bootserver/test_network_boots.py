"""For which job a server that boots from the network is answered, by its network card."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.bootserver.job import Job
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.errors import Conflict
from mulligan.activities.seal import Keyring
from tests.bootserver.agent_parts import a_job, begun

URL = "http://192.0.2.1:7421"
MAC = "52:54:00:00:00:01"


def test_a_network_card_finds_its_job(jobs: Jobs, agent: AgentImage) -> None:
    """While the agent is awaited or at work, and not a moment longer."""
    mac = "52:54:00:00:00:01"
    job, token = begun(jobs, agent, a_job(), URL, macs=(mac, "52:54:00:00:00:02"))
    found = jobs.for_mac(mac)
    assert found is not None and found.id == job.id
    assert jobs.for_mac("52:54:00:00:00:09") is None
    jobs.own(token, "boot-1", "")
    assert jobs.for_mac(mac) is not None
    jobs.finish(job.id, {"digest": "x"})
    assert jobs.for_mac(mac) is None
    jobs.close(job.id)
    assert jobs.for_mac(mac) is None


def network_boot(jobs: Jobs, agent: AgentImage, name: str, provider: str, *macs: str) -> Job:
    """A job of this name is open, and its server boots by these network cards."""
    job, _ = begun(jobs, agent, replace(a_job(), id=name, provider=provider), URL, macs=macs)
    return job


def booted_by(jobs: Jobs, mac: str) -> str:
    """The job for which a network card boots; empty for none."""
    job = jobs.for_mac(mac)
    return job.id if job is not None else ""


def test_two_servers_are_not_booted_by_one_network_card(jobs: Jobs, agent: AgentImage) -> None:
    """The second is refused, and the first goes on; once that is over, the second may."""
    mac, other = "52:54:00:00:00:01", "52:54:00:00:00:02"
    network_boot(jobs, agent, "m-1-1-deploy", "srv-1", mac)
    with pytest.raises(Conflict, match=r"srv-2 is to boot from the network by .*:01, and so does srv-1") as refused:
        network_boot(jobs, agent, "m-2-1-deploy", "srv-2", other, mac)
    assert (refused.value.metadata["other"], refused.value.metadata["blame"]) == ("srv-1", "site")
    assert (booted_by(jobs, mac), booted_by(jobs, other)) == ("m-1-1-deploy", "")
    jobs.close("m-1-1-deploy")
    network_boot(jobs, agent, "m-2-1-deploy", "srv-2", other, mac)
    assert (booted_by(jobs, mac), booted_by(jobs, other)) == ("m-2-1-deploy", "m-2-1-deploy")


def test_what_tells_no_servers_apart_is_no_conflict(jobs: Jobs, agent: AgentImage) -> None:
    """The BMCs' own cards, of one local address; and a job that an older worker left open, which says no provider."""
    own, older = "be:3a:f2:b6:05:9f", "0c:c4:7a:00:00:03"
    network_boot(jobs, agent, "m-1-1-deploy", "srv-1", "0c:c4:7a:00:00:01", own)
    network_boot(jobs, agent, "m-2-1-deploy", "srv-2", "0c:c4:7a:00:00:02", own)
    network_boot(jobs, agent, "m-3-1-live", "", older)
    network_boot(jobs, agent, "m-4-1-deploy", "srv-3", older)
    assert booted_by(jobs, older) == "m-4-1-deploy"


def test_a_servers_next_job_has_its_network_card(jobs: Jobs, agent: AgentImage) -> None:
    """Also where a job of it was left open; and the end of that one takes the card from nobody."""
    mac = "52:54:00:00:00:01"
    network_boot(jobs, agent, "m-1-1-deploy", "srv-1", mac)
    network_boot(jobs, agent, "m-2-2-deploy", "srv-1", mac)
    assert booted_by(jobs, mac) == "m-2-2-deploy"
    jobs.close("m-1-1-deploy")
    assert booted_by(jobs, mac) == "m-2-2-deploy"


def test_a_network_card_is_looked_up_without_reading_every_job(jobs: Jobs, agent: AgentImage, tmp_path: Path) -> None:
    """Jobs that nobody can read, which would be told in the log, are not even looked at."""
    mac = "52:54:00:00:00:01"
    network_boot(jobs, agent, "m-1-1-deploy", "srv-1", mac)
    for number in range(20):
        (tmp_path / "jobs" / f"m-9-{number}-deploy.json").write_text("{")
    with capture_logs() as logged:
        assert (booted_by(jobs, mac), booted_by(jobs, "52:54:00:00:00:09")) == ("m-1-1-deploy", "")
    assert logged == []


def test_another_process_finds_network_cards_too(
    jobs: Jobs, agent: AgentImage, tmp_path: Path, keyring: Keyring
) -> None:
    """What one began the other boots, what the other closed the first does not; without an index it is made anew."""
    macs = ("52:54:00:00:00:01", "52:54:00:00:00:02")
    jobs.for_mac(macs[0])
    network_boot(jobs, agent, "m-1-1-deploy", "srv-1", macs[0])
    network_boot(jobs, agent, "m-2-1-deploy", "srv-2", macs[1])
    other = Jobs(tmp_path / "jobs", keyring)
    assert [booted_by(other, mac) for mac in macs] == ["m-1-1-deploy", "m-2-1-deploy"]
    other.close("m-1-1-deploy")
    assert [booted_by(jobs, mac) for mac in macs] == ["", "m-2-1-deploy"]
    shutil.rmtree(tmp_path / "jobs" / "macs")
    assert [booted_by(jobs, mac) for mac in macs] == ["", "m-2-1-deploy"]
    (tmp_path / "jobs" / "macs" / macs[1].replace(":", "-")).unlink()  # as if an older worker had begun it
    assert booted_by(jobs, macs[1]) == ""
    other.index()
    assert [booted_by(jobs, mac) for mac in macs] == ["", "m-2-1-deploy"]
    jobs.close("m-2-1-deploy")
    assert [booted_by(jobs, mac) for mac in macs] == ["", ""]


def test_a_card_is_answered_once_its_server_is_switched_on(jobs: Jobs, agent: AgentImage) -> None:
    """Not while the BMC is asked for the boot: whatever boots then boots by habit, or for somebody else."""
    job = jobs.open(a_job(provider="srv-1"))
    jobs.begin_boot(job.id, URL, datetime.now(UTC) + timedelta(hours=1), (MAC,))
    assert booted_by(jobs, MAC) == ""
    jobs.index()
    shutil.rmtree(jobs._files.directory / "macs")
    assert booted_by(jobs, MAC) == ""
    jobs.switching_on(job.id)
    assert booted_by(jobs, MAC) == job.id


def test_what_was_left_open_for_a_server_is_over_when_it_is_switched_on_for_another_job(
    jobs: Jobs, agent: AgentImage
) -> None:
    """And for no other server."""
    for name, provider in (("m-1-1-erase", "srv-1"), ("m-2-1-deploy", "srv-2"), ("m-3-2-deploy", "srv-1")):
        begun(jobs, agent, replace(a_job(), id=name, provider=provider), URL)
    found = [jobs.find(name) for name in ("m-1-1-erase", "m-2-1-deploy", "m-3-2-deploy")]
    assert [job is not None and job.closed for job in found] == [True, False, False]


def test_a_card_that_another_server_boots_by_meanwhile_is_not_taken_from_it(jobs: Jobs, agent: AgentImage) -> None:
    """It was free when the boot began, and is not any more when the server is to be switched on."""
    expires = datetime.now(UTC) + timedelta(hours=1)
    for name, provider in (("m-1-1-deploy", "srv-1"), ("m-2-1-deploy", "srv-2")):
        jobs.open(replace(a_job(), id=name, provider=provider))
        jobs.begin_boot(name, URL, expires, (MAC,))
    jobs.switching_on("m-1-1-deploy")
    with pytest.raises(Conflict, match=r"srv-2 is to boot from the network by .*, and so does srv-1"):
        jobs.switching_on("m-2-1-deploy")
    assert booted_by(jobs, MAC) == "m-1-1-deploy"
