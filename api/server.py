"""The gRPC server: the three services, health and reflection, on loopback until identity arrives."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable
from datetime import timedelta

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from temporalio.client import Client
from temporalio.service import RPCError

from mulligan.activities.errors import HostNotReady, MulliganError
from mulligan.activities.inventory import Inventory
from mulligan.activities.seal import Keyring
from mulligan.activities.threads import run_blocking
from mulligan.api.bmcs import Bmcs
from mulligan.api.cancels import Cancels
from mulligan.api.capsules import Capsules
from mulligan.api.config import Settings
from mulligan.api.enrolments import Enrolments
from mulligan.api.interceptor import ErrorInterceptor
from mulligan.api.levers import Levers
from mulligan.api.new_settings import NewSettings
from mulligan.api.plans import Plans
from mulligan.api.releases import Releases
from mulligan.api.removals import Removals
from mulligan.api.requests import Requests
from mulligan.api.retries import Retries
from mulligan.api.runs import Runs
from mulligan.api.services.images import Images
from mulligan.api.services.inventory import InventoryEdge
from mulligan.api.services.provisioning import Provisioning
from mulligan.api.starts import Provisions
from mulligan.api.watch import Hub
from mulligan.v1 import (
    images_pb2,
    images_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    provisioning_pb2,
    provisioning_pb2_grpc,
)

GRACE_SECONDS = 5.0
CHECK_SECONDS = 2.0
OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)
"""One server per port; a client that vanished is noticed within 40 s."""

SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (provisioning_pb2, "ProvisioningService"),
        (inventory_pb2, "InventoryService"),
        (images_pb2, "ImagesService"),
    )
)


async def serve(
    settings: Settings,
    *,
    client: Client,
    inventory: Inventory,
    keyring: Keyring,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve until cancelled; then let calls end, and tell watchers to come back.

    `ready` is called with the address, once it listens. Raises `HostNotReady` for an address that is not loopback, and
    when it cannot be listened on.
    """
    host = _loopback(settings.api)
    hub = Hub(runs := Runs(client, inventory))
    requests = Requests(inventory, keyring)
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=OPTIONS)
    provisioning_pb2_grpc.add_ProvisioningServiceServicer_to_server(
        Provisioning(
            inventory,
            requests,
            provisions=(provisions := Provisions(client, inventory, runs, settings.lease_seconds)),
            releases=Releases(client, inventory, runs, cancels := Cancels(runs)),
            runs=runs,
            hub=hub,
            cancels=cancels,
            levers=(levers := Levers(runs)),
            retries=Retries(client, inventory, runs, provisions),
            capsules=Capsules(client, runs, settings.lease_seconds),
            plans=Plans(client, inventory),
        ),
        server,
    )
    removals = Removals(client, inventory)
    inventory_pb2_grpc.add_InventoryServiceServicer_to_server(
        InventoryEdge(
            inventory,
            requests,
            enrolments=Enrolments(client, inventory),
            removals=removals,
            bmcs=Bmcs(client, inventory),
            new_settings=NewSettings(inventory, runs, levers),
        ),
        server,
    )
    roots = (settings.image_dir, *settings.image_roots)
    images_pb2_grpc.add_ImagesServiceServicer_to_server(Images(inventory, roots, removals), server)
    port = _listen(server, settings.api)
    await _run(server, hub, client, inventory, lambda: ready(f"{host}:{port}") if ready else None)


async def _run(
    server: grpc.aio.Server, hub: Hub, client: Client, inventory: Inventory, started: Callable[[], None]
) -> None:
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    await _check(servicer, client, inventory)
    await server.start()
    try:
        started()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await _check(servicer, client, inventory)
    finally:
        await servicer.enter_graceful_shutdown()
        await hub.stop()
        await server.stop(GRACE_SECONDS)


async def _check(servicer: health.aio.HealthServicer, client: Client, inventory: Inventory) -> None:
    """Say that we serve while Temporal and the database answer."""
    serving = False
    with contextlib.suppress(RPCError, MulliganError):
        await run_blocking(inventory.partitions)
        serving = await client.service_client.check_health(timeout=timedelta(seconds=CHECK_SECONDS))
    answer = health_pb2.HealthCheckResponse
    status = answer.SERVING if serving else answer.NOT_SERVING
    for name in ("", *SERVICES):
        await servicer.set(name, status)


def _loopback(address: str) -> str:
    host = address.rpartition(":")[0]
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host.strip("[]")).is_loopback:
            return host
    if host == "localhost":
        return host
    raise HostNotReady(
        f"the API may listen on loopback only until it knows who calls, and {address} is not; set MULLIGAN_API to "
        "127.0.0.1:7420",
        remedy="export MULLIGAN_API=127.0.0.1:7420",
        address=address,
    )


def _listen(server: grpc.aio.Server, address: str) -> int:
    try:
        port: int = server.add_insecure_port(address)
    except RuntimeError as error:
        raise HostNotReady(
            f"the API cannot listen on {address}: another process does already, or the address is not this host's; "
            "stop that process, or set MULLIGAN_API",
            remedy="mulligan doctor",
            address=address,
        ) from error
    return port
