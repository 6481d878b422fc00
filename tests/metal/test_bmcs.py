"""A partition of servers as a whole: dead BMCs among living ones, workers that do not share, and BMCs listed.

Temporal, the workers, the boot server and the drivers are real; the servers and their agents are played.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import WorkerStatus
from temporalio.api.workflowservice.v1 import ListWorkersRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.runtime import Runtime, TelemetryConfig
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker

from mulligan.activities import neighbours
from mulligan.activities.calls import CONTROL_QUEUE, partition_queue
from mulligan.activities.drivers import lane
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.redfish import wire
from mulligan.activities.errors import NotShared
from mulligan.activities.neighbours import Neighbours
from mulligan.activities.site import Site
from mulligan.activities.survey import SurveyActivities
from mulligan.activities.values import Deadlines, Inspection, MachineRequest, Resources, Target, VerifyLevel
from mulligan.api.config import Settings
from mulligan.api.processes import worker
from mulligan.api.processes.checks_lanes import lane_findings
from mulligan.api.processes.findings import State
from mulligan.api.processes.worker import partition_worker
from mulligan.api.temporal import connect
from mulligan.v1 import inventory_pb2 as pb
from mulligan.workflows import runs
from tests.api.serving import Api, everything, refusal
from tests.bootserver.agent_parts import an_agent
from tests.drivers.bmc.machine import Machine, a_mac
from tests.drivers.bmc.parts import credentials_in
from tests.drivers.bmc.server import PASSWORD, LyingBmc
from tests.drivers.ipmi_parts import SIZES
from tests.metal.conftest import CONTENT, IMAGE
from tests.metal.played import PlayedServer
from tests.services.temporal import TemporalServer, running_temporal
from tests.workflows.stack import Stack, running_stack, until

LIVING, HANGING, MUTE = 15, 3, 2
PLACES, SILENT_PLACES = 5, 1
"""Activities that the worker carries out at once: as many as there are dead BMCs; and what those may take up of it."""
PATIENT = Deadlines(claim_seconds=600, image_seconds=3600, boot_seconds=3600, verify_seconds=3600, run_seconds=9000)
"""Nothing is given up while the test lasts, which would leave a dead BMC."""
STATES = pb.BmcState


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """A worker with few places, and a boot server that serves the deploy agent."""
    directory = tmp_path_factory.mktemp("stack")
    (directory / "demo.img").write_bytes(CONTENT)
    an_agent(directory / "agent")
    credentials_in(directory).rename(directory / "credentials.yaml")
    with pytest.MonkeyPatch.context() as patched, running_temporal(directory / "temporal") as address:
        patched.setattr(worker, "_ACTIVITIES", PLACES)
        patched.setattr(lane, "MOST_SILENT", SILENT_PLACES)
        patched.setattr(wire, "READ_SECONDS", 5.0)  # less than a real BMC is given, so that the test is over sooner
        async with running_stack(address, directory) as running:
            yield running


@pytest.fixture(scope="module")
async def api(stack: Stack) -> AsyncIterator[Api]:
    """The API server."""
    async with Api(stack) as running:
        yield running


@asynccontextmanager
async def a_server() -> AsyncIterator[LyingBmc]:
    """A server that is played, behind its BMC."""
    with LyingBmc(Machine("1", mac=a_mac())).listening() as bmc:
        playing = asyncio.create_task(PlayedServer(bmc).run())
        yield bmc
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """The URL of a BMC that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redfish+http://127.0.0.1:{server.getsockname()[1]}/redfish/v1/Systems/1"


@contextlib.contextmanager
def mute() -> Iterator[str]:
    """The URL of a BMC that takes what is sent to it, and never says a word."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        yield f"ipmi://127.0.0.1:{server.getsockname()[1]}"


def a_name() -> str:
    """A name that nothing else has."""
    return f"srv-{uuid.uuid4().hex[:8]}"


def url_of(bmc: LyingBmc) -> str:
    """Its system's."""
    return f"{bmc.url}/redfish/v1/Systems/1"


async def looked_at(stack: Stack, bmc: LyingBmc) -> Inspection:
    """What a server is found to be."""
    async with stack.site.driver(Target("any", "default", url_of(bmc), {}, "rack")) as driver:
        return await driver.inspect(Deadline.after(60))


def register(stack: Stack, url: str, inspection: Inspection, partition: str = "default") -> str:
    """A provider, as if it had been looked at while it was well; its name."""
    inspected = SIZES if url.startswith("ipmi") else inspection.settings
    inspection = replace(inspection, settings={**inspected, "macs": a_mac()})
    name = a_name()
    stack.inventory.put_provider(name, partition, url, "rack", inspection, inspection.settings)
    return name


async def begun(stack: Stack, provider: str) -> WorkflowHandle[Any, runs.ProvisionOut]:
    """The run that makes a machine of it."""
    request = MachineRequest(
        provider,
        "m",
        "demo",
        Resources(1, 512, 1),
        provider=provider,
        verify=VerifyLevel.POWER,
        deadlines=PATIENT,
        mulligans=0,
    )
    return await stack.start(request, image=replace(IMAGE, source=(stack.directory / "demo.img").as_uri()))


async def enrolling(
    stack: Stack, url: str, partition: str = "default", name: str = ""
) -> WorkflowHandle[Any, runs.EnrolOut]:
    """The run that looks at a provider."""
    target = Target(name or a_name(), partition, url, SIZES if url.startswith("ipmi") else {}, "rack")
    handle: WorkflowHandle[Any, runs.EnrolOut] = await stack.client.start_workflow(
        runs.ENROL, target, id=runs.enrol_id(target.name), task_queue=CONTROL_QUEUE, result_type=runs.EnrolOut
    )
    return handle


async def bmcs(api: Api, **asked: Any) -> dict[str, pb.Bmc]:
    """What is listed, by the name of the first provider behind each."""
    answers = await everything(api.inventory.ListBmcs(pb.ListBmcsRequest(**asked)))
    return {each.bmc.providers[0]: each.bmc for each in answers}


def why(error: WorkflowFailureError) -> ApplicationError:
    """What its activity failed with."""
    assert isinstance(error.cause, ActivityError) and isinstance(error.cause.cause, ApplicationError)
    return error.cause.cause


async def test_dead_bmcs_hold_up_nobody(stack: Stack, api: Api) -> None:
    """Of twenty servers five have dead BMCs. All begin at once, on few places: the others come up and are listed while
    the dead are still waited for, and so is one that is registered meanwhile."""
    async with AsyncExitStack() as running:
        living = [await running.enter_async_context(a_server()) for _ in range(LIVING)]
        another = await running.enter_async_context(a_server())
        inspection = await looked_at(stack, another)
        with ExitStack() as dying:
            silent = [dying.enter_context(hanging()) for _ in range(HANGING)]
            silent += [dying.enter_context(mute()) for _ in range(MUTE)]
            dead = [register(stack, url, inspection) for url in silent]
            well = [register(stack, url_of(each), inspection) for each in living]
            waiting = [await begun(stack, each) for each in dead]
            going = [await begun(stack, each) for each in well]
            lost = await enrolling(stack, silent[0])
            found = await (await enrolling(stack, url_of(another))).result()
            made = await asyncio.wait_for(asyncio.gather(*(each.result() for each in going)), 300)
            assert sorted(each.provider for each in made) == sorted(well)
            for each in waiting:
                await until(lambda each=each: stack.is_waiting(each, "UNREACHABLE"), 120)
            listed = await bmcs(api)
            assert {each: listed[each].state for each in well} == dict.fromkeys(well, STATES.BMC_STATE_ANSWERS)
            assert {each: listed[each].state for each in dead} == dict.fromkeys(dead, STATES.BMC_STATE_SILENT)
            assert all(listed[each].error and listed[each].silent_since.seconds for each in dead)
            assert listed[found.provider.name].protocols == ["redfish+http"]
            with pytest.raises(WorkflowFailureError) as failed:
                await lost.result()
            assert why(failed.value).type == "UNREACHABLE"
        for each in waiting:
            await each.terminate("the test is over")


async def test_a_bmc_is_asked_now_when_that_is_wanted(stack: Stack, api: Api) -> None:
    """What it says is listed; without a word before, nothing was known. It is not changed, and nothing secret told."""
    async with a_server() as bmc:
        name = register(stack, url_of(bmc), inspection := await looked_at(stack, bmc))
        with hanging() as url:
            dead = register(stack, url, inspection)
            before = (await bmcs(api, provider=dead))[dead]
            assert (before.state, before.HasField("answered_at")) == (STATES.BMC_STATE_NOT_ASKED, False)
            asked = len(bmc.log)
            assert (await bmcs(api, provider=name, probe=True))[name].state == STATES.BMC_STATE_ANSWERS
            assert len(bmc.log) > asked
            assert not bmc.changes()
            after = (await bmcs(api, provider=dead, probe=True))[dead]
            assert (after.state, after.failed) == (STATES.BMC_STATE_SILENT, after.asked)
            assert PASSWORD not in str(after)


async def test_who_has_no_credential_is_told_so_by_a_probe(stack: Stack, api: Api) -> None:
    """It could not be asked, and is not silent therefore."""
    async with a_server() as bmc:
        inspection = await looked_at(stack, bmc)
    name = a_name()
    stack.inventory.put_provider(name, "default", "ipmi://bmc-of-nobody", "nobody", inspection, SIZES)
    found = (await bmcs(api, provider=name, probe=True))[name]
    assert found.state == STATES.BMC_STATE_NOT_ASKED
    assert "nobody" in found.error


async def test_one_bmc_behind_two_providers_is_one(stack: Stack, api: Api) -> None:
    """Spoken to by two protocols at their usual ports, or two systems in one chassis; others are not mixed up."""
    async with a_server() as bmc:
        inspection = await looked_at(stack, bmc)
    host = f"chassis-{uuid.uuid4().hex[:6]}"
    urls = f"redfish://{host}/redfish/v1/Systems/1", f"redfish://{host}/redfish/v1/Systems/2", f"ipmi://{host}"
    names = sorted(register(stack, url, inspection) for url in urls)
    (found,) = (await bmcs(api, provider=names[1])).values()
    assert (found.name, sorted(found.protocols), list(found.providers)) == (host, ["ipmi", "redfish"], names)
    assert await refusal(api.inventory.ListBmcs(pb.ListBmcsRequest(provider="no-such")))
    assert await refusal(api.inventory.ListBmcs(pb.ListBmcsRequest(partition="no-such")))


async def test_a_partition_without_workers_is_told_as_such(stack: Stack, api: Api) -> None:
    """Its BMCs are listed with what starts a worker; those of others are as ever."""
    partition = f"site-{uuid.uuid4().hex[:6]}"
    stack.inventory.add_partition(partition)
    async with a_server() as bmc:
        inspection = await looked_at(stack, bmc)
        here, there = register(stack, url_of(bmc), inspection), register(stack, "ipmi://far", inspection, partition)
        listed = await bmcs(api)
    assert listed[there].state == STATES.BMC_STATE_NOT_KNOWN
    assert f"mulligan worker --partition {partition}" in listed[there].error
    assert listed[here].state == STATES.BMC_STATE_ANSWERS
    assert list(await bmcs(api, partition=partition)) == [there]


@asynccontextmanager
async def two_workers(stack: Stack, directory: Path) -> AsyncIterator[tuple[str, Site]]:
    """A partition with a worker as the stack has it, and one with this drivers' directory; its name, and the other."""
    partition, site = f"site-{uuid.uuid4().hex[:6]}", stack.site
    stack.inventory.add_partition(partition)
    other = Site(site.store, site.keyring, directory, site.boot_url, site.credentials)
    second = await connect(settings_of(stack))
    async with partition_worker(stack.client, partition, site), partition_worker(second, partition, other):
        await until(lambda: _poll(stack, partition, {site.directory_id, other.directory_id}), 60)
        yield partition, other
        await other.kept.close()


def settings_of(stack: Stack) -> Settings:
    """Where the stack is."""
    return Settings(temporal=stack.client.service_client.config.target_host, state_dir=stack.directory)


async def _poll(stack: Stack, partition: str, directories: set[str]) -> bool:
    there = await neighbours.workers_of(stack.client, partition)
    return {each.directory for each in there} == directories


async def test_workers_that_do_not_share_a_directory_speak_to_no_bmc(
    stack: Stack, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them refuses and says why; what has no BMC goes on, and so do servers once the other one is gone."""
    monkeypatch.setattr(neighbours, "LOOK_SECONDS", 0.0)
    mine = stack.site.directory_id
    async with a_server() as bmc:
        inspection = await looked_at(stack, bmc)
        bmc.log.clear()
        async with two_workers(stack, tmp_path / "drivers") as (partition, other):
            with pytest.raises(WorkflowFailureError) as failed:
                await (await enrolling(stack, url_of(bmc), partition)).result()
            said = why(failed.value)
            assert said.type == "NOT_SHARED"
            assert mine in said.message and other.directory_id in said.message
            assert "Give all of them one state directory (MULLIGAN_STATE_DIR" in said.message
            assert await (await enrolling(stack, f"simulated://alone/{a_name()}?speed=0", partition)).result()
            (shared, *_) = await asyncio.to_thread(lambda: list(lane_findings(settings_of(stack), [partition])))
            assert (shared.state, other.directory_id in shared.found) == (State.WRONG, True)
            name = register(stack, url_of(bmc), inspection, partition)
            probed = (await bmcs(api, provider=name, probe=True))[name]
            assert (probed.state, mine in probed.error) == (STATES.BMC_STATE_NOT_KNOWN, True)
            assert not bmc.log
        async with partition_worker(stack.client, partition, stack.site):
            assert await (await enrolling(stack, url_of(bmc), partition)).result()
            assert bmc.log


async def test_workers_that_share_the_directory_speak_to_its_bmcs(
    stack: Stack, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what one was told by a BMC, the other one lists."""
    monkeypatch.setattr(neighbours, "LOOK_SECONDS", 0.0)
    async with a_server() as bmc, two_workers(stack, stack.site.drivers_dir) as (partition, other):
        assert other.directory_id == stack.site.directory_id
        (shared, *_) = await asyncio.to_thread(lambda: list(lane_findings(settings_of(stack), [partition])))
        assert shared.state is State.FINE
        name = a_name()
        for _ in range(4):
            await (await enrolling(stack, url_of(bmc), partition, name)).result()
            assert (await bmcs(api, provider=name))[name].state == STATES.BMC_STATE_ANSWERS


async def test_heartbeats_without_a_directory_are_no_neighbours(stack: Stack) -> None:
    """Workers beat under their clients' names too, which say no directory: only who says one is another that works."""
    partition, survey = f"site-{uuid.uuid4().hex[:6]}", SurveyActivities(stack.site).survey
    queue, nameless, named = partition_queue(partition), "7@host-b", "8@host-c/abc"
    asked = ListWorkersRequest(namespace=stack.client.namespace, query=f"TaskQueue='{queue}'")

    async def beat() -> bool:
        answer = await stack.client.workflow_service.list_workers(asked)
        running = WorkerStatus.WORKER_STATUS_RUNNING
        seen = {each.worker_heartbeat.worker_identity: each.worker_heartbeat.status for each in answer.workers_info}
        return seen == {nameless: running, named: running}

    often = Runtime(telemetry=TelemetryConfig(), worker_heartbeat_interval=timedelta(seconds=1))
    address = stack.client.service_client.config.target_host
    async with AsyncExitStack() as workers:
        for name in (nameless, named):
            client = await Client.connect(address, namespace=stack.client.namespace, runtime=often)
            await workers.enter_async_context(Worker(client, task_queue=queue, activities=[survey], identity=name))
        await until(beat, 60)
        assert await neighbours._heard(stack.client, partition) == ({named}, {})


def test_the_directory_of_a_stack_is_fine(stack: Stack) -> None:
    """Its locks stay not on this host; a partition without workers is noted."""
    nobody, locks = lane_findings(settings_of(stack), ["nobody-is-there"])
    assert (nobody.state, nobody.remedy) == (State.NOTE, "mulligan worker --partition nobody-is-there")
    assert locks.state is State.FINE


async def test_a_look_that_fails_fails_nothing(tmp_path: Path) -> None:
    """Temporal is away: whoever has a turn goes on, as its run will when Temporal is back."""
    with TemporalServer(tmp_path / "temporal") as temporal:
        attempt = ActivityEnvironment(client=await connect(Settings(temporal=temporal.address, state_dir=tmp_path)))
        temporal.kill()
        await attempt.run(Neighbours(tmp_path, "mine").require_shared, "srv-1", "default")


async def test_a_directory_whose_locks_others_do_not_see_is_not_shared(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker on another host has the same directory, which is mounted here so that locks stay here."""
    partition, mine = f"site-{uuid.uuid4().hex[:6]}", stack.site.directory_id
    survey = SurveyActivities(stack.site).survey
    queue = partition_queue(partition)
    attempt = ActivityEnvironment(client=stack.client)
    async with Worker(stack.client, task_queue=queue, activities=[survey], identity=f"7@host-b/{mine}"):
        await until(lambda: _poll(stack, partition, {mine}), 60)
        here = Neighbours(stack.site.drivers_dir, mine)
        await attempt.run(here.require_shared, "srv-1", partition)
        monkeypatch.setattr(neighbours, "locks_are_local", lambda _: True)
        with pytest.raises(NotShared, match=rf"7@host-b .*{mine}.* mounted here so that locks stay on this host"):
            await attempt.run(here.require_shared, "srv-1", partition)
