"""iPXE scripts: the agent for who is to boot it, the local disk for everybody else."""

from __future__ import annotations

import aiohttp
import pytest

from mulligan.activities.agent.image import AgentImage
from mulligan.activities.bootserver.jobs import Jobs
from tests.bootserver.agent_parts import a_job, begun

MAC = "52:54:00:00:00:01"


async def script_of(root: str, mac: str | None) -> str:
    """What iPXE gets."""
    url = f"{root}/v1/ipxe" + ("" if mac is None else f"?mac={mac}")
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        return await answer.text()


def boots_the_local_disk(script: str) -> bool:
    """By BIOS itself, by UEFI through the firmware."""
    return script.startswith("#!ipxe\n") and "sanboot" in script and "exit 1" in script and "kernel" not in script


async def test_the_first_script_asks_by_network_card(root: str) -> None:
    """It is the same for all, so DHCP can name it; without an answer the local disk is booted."""
    script = await script_of(root, None)
    assert "chain --replace ipxe?mac=${netX/mac:hexhyp} || goto local" in script
    assert boots_the_local_disk(script)


@pytest.mark.parametrize("mac", [MAC, "", "x", "52:54:00:00:00:01;reboot", "../../etc/passwd", "é"])
async def test_an_unknown_machine_boots_its_local_disk(root: str, mac: str) -> None:
    """Whatever it says it is."""
    assert boots_the_local_disk(await script_of(root, mac))


@pytest.mark.parametrize("spelling", [MAC, MAC.upper(), MAC.replace(":", "-")])
async def test_an_awaited_machine_boots_the_agent(root: str, jobs: Jobs, agent: AgentImage, spelling: str) -> None:
    """With its run's kernel arguments, from URLs that are served."""
    job, token = begun(jobs, agent, a_job(), root, macs=(MAC,))
    script = await script_of(root, spelling)
    kernel = next(line for line in script.splitlines() if line.startswith("kernel "))
    assert kernel.split()[1] == f"{root}/v1/boot/{token}/kernel"
    assert f" {agent.command_line(f'mulligan.url={root}/v1/agent/{token}')} " in kernel
    assert f"{root}/v1/boot/{token}/initrd" in script
    assert jobs.seen(job.id).fetched["script"] == len(script)


async def test_a_finished_machine_boots_its_local_disk(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """Once the agent is done, once it is waited for no more, and once the job is closed."""
    job, _ = begun(jobs, agent, a_job(), root, macs=(MAC,))
    jobs.give_up_boot(job.id)
    assert boots_the_local_disk(await script_of(root, MAC))
    begun(jobs, agent, job, root, macs=(MAC,))
    assert not boots_the_local_disk(await script_of(root, MAC))
    jobs.finish(job.id, {"digest": "x"})
    assert boots_the_local_disk(await script_of(root, MAC))
    jobs.close(job.id)
    assert boots_the_local_disk(await script_of(root, MAC))


async def test_a_machine_whose_time_has_passed_boots_its_local_disk(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """The agent could do nothing with a token that has expired."""
    begun(jobs, agent, a_job(), root, macs=(MAC,), seconds=-1)
    assert boots_the_local_disk(await script_of(root, MAC))


async def test_a_machine_with_virtual_media_is_not_answered(root: str, jobs: Jobs, agent: AgentImage) -> None:
    """Its job has no network card."""
    begun(jobs, agent, a_job(), root)
    assert boots_the_local_disk(await script_of(root, MAC))
