"""An API server in the test's own process, with a client, and what tests ask of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any, Self

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from grpc_status import rpc_status
from temporalio.client import Client

from mulligan.activities.seal import Keyring
from mulligan.api.config import Settings
from mulligan.api.server import serve
from mulligan.v1 import images_pb2_grpc, inventory_pb2, inventory_pb2_grpc, machine_pb2, provisioning_pb2, run_pb2
from mulligan.v1.provisioning_pb2_grpc import ProvisioningServiceStub
from tests.workflows.stack import Stack


class Api:
    """A server that a test may stop and start again, and stubs that find it."""

    def __init__(self, stack: Stack, client: Client | None = None) -> None:
        self._stack, self._client = stack, client or stack.client
        self._task: asyncio.Task[None] | None = None
        self.address = "127.0.0.1:0"

    async def start(self) -> None:
        """Serve, on the same port as before if there was one."""
        listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = serve(
            Settings(api=self.address, state_dir=self._stack.directory),
            client=self._client,
            inventory=self._stack.inventory,
            keyring=Keyring.load(self._stack.directory / "secret.key"),
            ready=listening.set_result,
        )
        self._task = asyncio.create_task(serving)
        await asyncio.wait([self._task, listening], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task
        self.address = listening.result()
        self.channel = grpc.aio.insecure_channel(self.address)
        self.provisioning = ProvisioningServiceStub(self.channel)
        self.inventory = inventory_pb2_grpc.InventoryServiceStub(self.channel)
        self.images = images_pb2_grpc.ImagesServiceStub(self.channel)

    async def stop_serving(self) -> None:
        """End the server as a signal would; the client's channel stays, and hears what it was told last."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def stop(self) -> None:
        """End the server, then the client's channel."""
        await self.stop_serving()
        await self.channel.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def provision(self, spec: machine_pb2.MachineSpec, **options: Any) -> Any:
        """The stream of a request."""
        return self.provisioning.ProvisionMachine(provisioning_pb2.ProvisionMachineRequest(spec=spec, **options))

    def watch(self, workflow_id: str, **options: Any) -> Any:
        """The stream of a run."""
        return self.provisioning.WatchRun(provisioning_pb2.WatchRunRequest(workflow_id=workflow_id, **options))

    def release(self, project: str, name: str = "m", **options: Any) -> Any:
        """The stream of a release."""
        request = provisioning_pb2.ReleaseMachineRequest(project=project, name=name, **options)
        return self.provisioning.ReleaseMachine(request)

    async def made(self, project: str, name: str = "m", **values: Any) -> list[Any]:
        """Make a machine; every response of the stream."""
        return await everything(self.provision(spec(project, name, **values)))


def spec(project: str, name: str = "m", **values: Any) -> machine_pb2.MachineSpec:
    """A request that only the project's own fleet can hold."""
    resources = machine_pb2.Resources(vcpu=1, memory_mib=512, disk_gib=2)
    deadlines = machine_pb2.Deadlines(claim_seconds=20, boot_seconds=30, verify_seconds=30, undo_seconds=10)
    given = {"resources": resources, "image": "demo", "requires": [f"fleet.{project}"], "deadlines": deadlines} | values
    return machine_pb2.MachineSpec(project=project, name=name, **given)


async def everything(stream: AsyncIterable[Any]) -> list[Any]:
    """The whole stream."""
    return [response async for response in stream]


async def first(stream: AsyncIterable[Any]) -> Any:
    """The next response of the stream."""
    return await anext(aiter(stream))


def events(responses: list[Any]) -> list[run_pb2.RunEvent]:
    """The durable events of a stream."""
    return [response.update.event for response in responses if response.update.HasField("event")]


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """The error with which a call, or a stream, is answered."""
    try:
        if hasattr(call, "__aiter__"):
            await everything(call)
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call was not refused")


def info(error: grpc.aio.AioRpcError) -> ErrorInfo:
    """The error's reason and metadata."""
    return _detail(error, ErrorInfo())


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """What is wrong, by field."""
    return {one.field: one.description for one in _detail(error, BadRequest()).field_violations}


def explanation(error: grpc.aio.AioRpcError) -> inventory_pb2.Explanation:
    """Why nothing was found."""
    return _detail(error, inventory_pb2.Explanation())


def _detail(error: grpc.aio.AioRpcError, wanted: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None, f"{error.code()} {error.details()} carries no details"
    assert any(detail.Unpack(wanted) for detail in status.details), f"no {type(wanted).__name__} in {status}"
    return wanted
