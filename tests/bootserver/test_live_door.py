"""The seed of a live machine, over real HTTP: given whenever its machine starts, and to whom is looked at."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from structlog.testing import capture_logs

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.bootserver.job import JobKind, Medium
from mulligan.activities.bootserver.jobs import Jobs
from mulligan.activities.bootserver.live_door import packed
from tests.bootserver.agent_parts import a_job

MAC = "52:54:00:00:00:08"
FILES = {"meta-data": "instance-id: m-1", "user-data": "#cloud-config", "vendor-data": "how to call home"}


@pytest.fixture
def live(root: str, jobs: Jobs, agent: AgentImage) -> str:
    """The job of a live machine that was booted from the network."""
    job = jobs.open(a_job(JobKind.LIVE))
    booted = jobs.begin_boot(job.id, root, datetime.now(UTC) + timedelta(days=1), (MAC,))
    line = f"ds=nocloud-net;s={root}/v1/seed/{jobs.token(booted)}/"
    jobs.load(job.id, None, packed(FILES))
    jobs.equip(job.id, Medium(str(agent.kernel), str(agent.initrd), "", 0, "", line))
    jobs.switching_on(job.id)
    return jobs.booted(job.id).id


async def seed(root: str, source: str, method: str = "GET") -> tuple[dict[str, str], list[str]]:
    """What who boots by the machine's MAC from this address is given, and what the log says of it, without tokens."""
    at = aiohttp.TCPConnector(local_addr=(source, 0))
    with capture_logs() as logs:
        async with aiohttp.ClientSession(connector=at, raise_for_status=True) as session:
            script = await (await session.get(f"{root}/v1/ipxe?mac={MAC}")).text()
            (where,) = set(re.findall(r"s=(http://\S+/)", script))
            found = {name: await (await session.request(method, where + name)).text() for name in FILES}
    assert where.split("/")[-2] not in str(logs)
    event = "the seed of a live machine went to another address"
    return found, [f"{each['peer']} after {each['before']}" for each in logs if each["event"] == event]


async def test_a_machine_is_given_its_seed_at_each_start(root: str, live: str) -> None:
    """There is nothing to be said of it."""
    assert [await seed(root, "127.0.0.1") for _ in range(2)] == [(FILES, [])] * 2


async def test_a_seed_that_goes_to_another_address_is_told(root: str, live: str) -> None:
    """Once for each change; it is given all the same, because the machine itself may have another address now."""
    told = [await seed(root, f"127.0.0.{number}") for number in (1, 2, 2, 1)]
    assert [found for found, _ in told] == [FILES] * 4
    assert [said for _, said in told] == [[], ["127.0.0.2 after 127.0.0.1"], [], ["127.0.0.1 after 127.0.0.2"]]


async def test_who_only_asks_how_large_a_seed_is_has_none_of_it(root: str, live: str) -> None:
    """It is not taken for another one."""
    assert [await seed(root, "127.0.0.1"), await seed(root, "127.0.0.2", "HEAD")][1][1] == []


async def test_another_boot_begins_anew(root: str, live: str, jobs: Jobs) -> None:
    """Whoever had the seed of the boot before."""
    assert await seed(root, "127.0.0.1") == (FILES, [])
    before = jobs.find(live)
    assert before is not None and before.boot is not None and before.boot.medium is not None
    again = jobs.begin_boot(live, root, before.boot.expires_at, (MAC,))
    line = f"ds=nocloud-net;s={root}/v1/seed/{jobs.token(again)}/"
    jobs.equip(live, Medium(before.boot.medium.kernel, before.boot.medium.initrd, "", 0, "", line))
    jobs.switching_on(live)
    assert await seed(root, "127.0.0.2") == (FILES, [])
