"""The inventory and the images through the API, runs in lists, and the server itself: health, reflection, loopback."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import update

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.errors import HostNotReady
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.tables import inventories
from mulligan.activities.seal import Keyring
from mulligan.activities.values import Target
from mulligan.api.config import Settings
from mulligan.api.server import SERVICES, serve
from mulligan.v1 import images_pb2, inventory_pb2, machine_pb2, provisioning_pb2, run_pb2
from tests.api.serving import Api, everything, first, info, refusal, spec, violations
from tests.services.temporal import TemporalServer
from tests.workflows.stack import Stack, running_stack, until

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_a_provider_is_looked_at_and_registered(api: Api) -> None:
    """Its driver, in its partition, says what it has; asked again, it looks again."""
    request = inventory_pb2.AddProviderRequest(name="fresh-1", url="simulated://fresh/fresh-1?speed=0")
    added = (await api.inventory.AddProvider(request)).provider
    assert added.partition == "default"
    assert {row.resource for row in added.inventory} == {"vcpu", "memory_mib", "disk_gib"}
    assert added == (await api.inventory.GetProvider(inventory_pb2.GetProviderRequest(name="fresh-1"))).provider
    assert (await api.inventory.AddProvider(request)).provider.name == "fresh-1"
    listed = await everything(api.inventory.ListProviders(inventory_pb2.ListProvidersRequest(partition="default")))
    assert "fresh-1" in [response.provider.name for response in listed]


async def test_what_a_run_failed_with_is_answered_as_its_own_error(api: Api) -> None:
    """A provider that was registered otherwise: the activity's ALREADY_EXISTS comes through."""
    url = "simulated://twice/twice-{}?speed=0"
    await api.inventory.AddProvider(inventory_pb2.AddProviderRequest(name="twice", url=url.format(1)))
    other = inventory_pb2.AddProviderRequest(name="twice", url=url.format(2))
    error = await refusal(api.inventory.AddProvider(other))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert "url" in info(error).metadata["differing"]


async def test_a_partition_without_workers_is_said_at_once(api: Api) -> None:
    """UNAVAILABLE, with the command that starts one."""
    await api.inventory.AddPartition(inventory_pb2.AddPartitionRequest(name="island"))
    await api.inventory.AddPartition(inventory_pb2.AddPartitionRequest(name="island"))
    request = inventory_pb2.AddProviderRequest(name="far", partition="island", url="simulated://far/far")
    error = await refusal(api.inventory.AddProvider(request))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert info(error).metadata["remedy"] == "mulligan worker --partition island"
    assert info(error).metadata["task_queue"] == f"{CONTROL_QUEUE}.island"
    listed = await everything(api.inventory.ListPartitions(inventory_pb2.ListPartitionsRequest()))
    assert [response.name for response in listed] == ["default", "island"]


async def test_an_edit_of_what_someone_else_edited_is_aborted(api: Api, stack: Stack) -> None:
    """The generation that was read must still be the provider's; settings are added to."""
    _, (host,) = await stack.hosts()
    read = (await api.inventory.GetProvider(inventory_pb2.GetProviderRequest(name=host.name))).provider
    edit = inventory_pb2.UpdateProviderRequest(
        name=host.name, generation=read.generation, enabled=False, reserved={"vcpu": 1}, settings={"note": "x"}
    )
    edited = (await api.inventory.UpdateProvider(edit)).provider
    assert not edited.enabled
    assert next(row.reserved for row in edited.inventory if row.resource == "vcpu") == 1
    assert edited.settings == {**read.settings, "note": "x"}
    error = await refusal(api.inventory.UpdateProvider(edit))
    assert error.code() is grpc.StatusCode.ABORTED
    assert info(error).metadata["generation"] == str(edited.generation)


async def test_an_audit_shows_a_drift_and_mends_it_when_asked(api: Api, stack: Stack) -> None:
    """Looking changes nothing; repairing says what it repaired; then it adds up."""
    _, (host,) = await stack.hosts()
    database = Database(f"sqlite:///{stack.directory / 'mulligan.sqlite'}")
    mine = (inventories.c.provider == host.name) & (inventories.c.resource == "vcpu")
    with database.write() as connection:
        connection.execute(update(inventories).where(mine).values(used=3))
    database.close()

    async def audited(repair: bool) -> list[tuple[int, int, bool]]:
        found = await everything(api.inventory.AuditClaims(inventory_pb2.AuditClaimsRequest(repair=repair)))
        return [(drift.used, drift.claimed, drift.repaired) for drift in found if drift.provider == host.name]

    assert await audited(repair=False) == [(3, 0, False)]
    assert await audited(repair=True) == [(3, 0, True)]
    assert await audited(repair=False) == []


async def test_a_claim_is_explained_and_listed(api: Api, stack: Stack) -> None:
    """Explaining needs neither name nor image and claims nothing."""
    project, (host,) = await stack.hosts()
    asked = spec(project)
    asked.ClearField("name")
    asked.ClearField("image")
    told = await api.inventory.ExplainClaim(inventory_pb2.ExplainClaimRequest(spec=asked))
    assert told.explanation.verdict == inventory_pb2.Explanation.VERDICT_FITS
    asked.resources.vcpu = 100_000
    never = (await api.inventory.ExplainClaim(inventory_pb2.ExplainClaimRequest(spec=asked))).explanation
    assert never.verdict == inventory_pb2.Explanation.VERDICT_NEVER
    assert host.name in [miss.provider for miss in never.near_misses]
    assert await everything(api.inventory.ListClaims(inventory_pb2.ListClaimsRequest(project=project))) == []
    await api.made(project)
    (listed,) = await everything(api.inventory.ListClaims(inventory_pb2.ListClaimsRequest(project=project)))
    assert listed.claim.provider == host.name
    assert listed.claim.state == inventory_pb2.CLAIM_STATE_PERMANENT


async def test_an_image_is_registered_once_and_kept_while_it_is_used(api: Api, stack: Stack) -> None:
    """The same again is harmless, another one is told what differs, and a live machine keeps its image."""
    image = images_pb2.Image(
        name="tiny", source="simulated:tiny", digest="sha256:" + "1" * 64, format=images_pb2.IMAGE_FORMAT_RAW
    )
    added = (await api.images.AddImage(images_pb2.AddImageRequest(image=image))).image
    assert added.architecture == "x86_64"
    assert (await api.images.AddImage(images_pb2.AddImageRequest(image=image))).image == added
    image.digest = "sha256:" + "2" * 64
    error = await refusal(api.images.AddImage(images_pb2.AddImageRequest(image=image)))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert info(error).metadata["differing"] == "digest"
    project, _ = await stack.hosts()
    await api.made(project, image="tiny")
    removal = images_pb2.RemoveImageRequest(name="tiny")
    assert (await refusal(api.images.RemoveImage(removal))).code() is grpc.StatusCode.FAILED_PRECONDITION
    await everything(api.release(project))
    await api.images.RemoveImage(removal)
    assert (await refusal(api.images.GetImage(images_pb2.GetImageRequest(name="tiny")))).code() is (
        grpc.StatusCode.NOT_FOUND
    )
    listed = await everything(api.images.ListImages(images_pb2.ListImagesRequest()))
    assert "demo" in [response.image.name for response in listed]


async def test_a_request_that_the_image_cannot_serve_is_refused_before_its_run(api: Api, stack: Stack) -> None:
    """The disk must hold the image."""
    project, _ = await stack.hosts()
    big = images_pb2.Image(
        name="big",
        source="simulated:big",
        digest="sha256:" + "3" * 64,
        format=images_pb2.IMAGE_FORMAT_RAW,
        virtual_size_bytes=5 * 2**30,
        firmware=[machine_pb2.FIRMWARE_UEFI],
    )
    await api.images.AddImage(images_pb2.AddImageRequest(image=big))
    error = await refusal(api.provision(spec(project, image="big", firmware=machine_pb2.FIRMWARE_BIOS)))
    assert set(violations(error)) == {"spec.firmware", "spec.resources.disk_gib"}


async def test_runs_and_machines_are_listed_once_newest_first(api: Api, stack: Stack) -> None:
    """Open runs come from Temporal, kept ones from the database, none twice."""
    project, _ = await stack.hosts(2)
    await api.made(project, "a")
    await api.made(project, "b")
    await everything(api.release(project, "a"))
    request = provisioning_pb2.ListRunsRequest(project=project)
    listed = [response.run for response in await everything(api.provisioning.ListRuns(request))]
    assert [run.workflow_id for run in listed] == [
        f"release:{project}:a",
        f"provision:{project}:b",
        f"provision:{project}:a",
    ]
    assert [run.outcome for run in listed] == [
        run_pb2.RUN_OUTCOME_RELEASED,
        run_pb2.RUN_OUTCOME_READY,
        run_pb2.RUN_OUTCOME_READY,
    ]
    ready = provisioning_pb2.ListRunsRequest(project=project, outcome=run_pb2.RUN_OUTCOME_READY, limit=1)
    (newest,) = await everything(api.provisioning.ListRuns(ready))
    assert newest.run.machine == "b"
    machines = await everything(api.provisioning.ListMachines(provisioning_pb2.ListMachinesRequest(project=project)))
    assert [response.machine.name for response in machines] == ["b"]
    gone = provisioning_pb2.ListMachinesRequest(project=project, states=[machine_pb2.MACHINE_STATE_RELEASED])
    assert [r.machine.name for r in await everything(api.provisioning.ListMachines(gone))] == ["a"]
    one = await api.provisioning.GetMachine(provisioning_pb2.GetMachineRequest(project=project, name="a"))
    assert one.machine.state == machine_pb2.MACHINE_STATE_RELEASED


async def test_an_open_run_is_listed_read_and_cancelled(api: Api, stack: Stack) -> None:
    """Cancelling is answered at once, and harmless when repeated after the end."""
    project, _ = await stack.hosts(personality="never-boots")
    stream = api.provision(spec(project))
    await first(stream)
    stream.cancel()
    workflow_id = f"provision:{project}:m"

    async def is_listed() -> bool:
        request = provisioning_pb2.ListRunsRequest(project=project, outcome=run_pb2.RUN_OUTCOME_OPEN)
        return [r.run.workflow_id for r in await everything(api.provisioning.ListRuns(request))] == [workflow_id]

    await until(is_listed)
    read = await api.provisioning.GetRun(provisioning_pb2.GetRunRequest(workflow_id=workflow_id))
    assert read.run.outcome == run_pb2.RUN_OUTCOME_OPEN
    assert read.events[0].kind == run_pb2.RUN_EVENT_KIND_RUN_STARTED
    cancel = provisioning_pb2.CancelRunRequest(workflow_id=workflow_id, reason="not needed")
    assert (await api.provisioning.CancelRun(cancel)).run.cancel_requested
    ended = (await everything(api.watch(workflow_id)))[-2].update.run
    assert ended.outcome == run_pb2.RUN_OUTCOME_CANCELLED
    again = (await api.provisioning.CancelRun(cancel)).run
    assert again.outcome == run_pb2.RUN_OUTCOME_CANCELLED
    unknown = provisioning_pb2.CancelRunRequest(workflow_id=f"provision:{project}:mm")
    error = await refusal(api.provisioning.CancelRun(unknown))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert workflow_id in info(error).metadata["nearest"].split(",")


async def test_health_and_reflection_answer(api: Api) -> None:
    """Every service is serving, and says what it is."""
    health = health_pb2_grpc.HealthStub(api.channel)
    for name in ("", *SERVICES):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == SERVING
    stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answer = await first(stub.ServerReflectionInfo(iter([asked])))
    assert set(SERVICES) <= {service.name for service in answer.list_services_response.service}


async def test_health_says_when_temporal_is_away(tmp_path: Path) -> None:
    """NOT_SERVING while it is, SERVING when it is back; nothing has to be restarted."""
    with TemporalServer(tmp_path / "temporal") as temporal:
        async with running_stack(temporal.address, tmp_path) as own, Api(own) as api:
            health = health_pb2_grpc.HealthStub(api.channel)

            async def is_serving() -> bool:
                return (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING

            async def is_not_serving() -> bool:
                return not await is_serving()

            assert await is_serving()
            temporal.kill()
            await until(is_not_serving)
            request = provisioning_pb2.GetRunRequest(workflow_id="provision:default:m")
            error = await refusal(api.provisioning.GetRun(request))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert info(error).metadata["service"] == "temporal"
            temporal.start()
            await until(is_serving)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "192.0.2.1:7420", "example.org:7420", "[::]:0"])
async def test_an_address_that_is_not_loopback_is_refused(address: str, stack: Stack) -> None:
    """Until the API knows who calls."""
    keyring = Keyring.load(stack.directory / "secret.key")
    with pytest.raises(HostNotReady, match="loopback"):
        await serve(Settings(api=address), client=stack.client, inventory=stack.inventory, keyring=keyring)


async def test_a_port_that_is_taken_is_said(api: Api, stack: Stack) -> None:
    """Two servers never share a port."""
    keyring = Keyring.load(stack.directory / "secret.key")
    with pytest.raises(HostNotReady, match="cannot listen"):
        await serve(Settings(api=api.address), client=stack.client, inventory=stack.inventory, keyring=keyring)


async def test_an_action_without_a_worker_says_what_it_waits_for(api: Api, stack: Stack) -> None:
    """A partition whose workers are away: the run waits, and tells for which task queue."""
    stack.inventory.add_partition("asleep")
    target = Target("asleep-h", "asleep", "simulated://asleep/asleep-h?speed=0")
    await stack.enrol(target)
    asked = spec("asleep", partition="asleep")
    async for response in api.provision(asked):
        if response.update.progress.message:
            break
    assert response.update.progress.message == "waiting for a worker on task queue mulligan.asleep"
    cancel = provisioning_pb2.CancelRunRequest(workflow_id="provision:asleep:m")
    assert (await api.provisioning.CancelRun(cancel)).run.cancel_requested
