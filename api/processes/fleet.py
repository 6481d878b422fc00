"""A simulated fleet, added through the API as a user would add real providers."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from mulligan.activities.drivers.simulated.fleet import fleet
from mulligan.api.config import Settings
from mulligan.v1 import inventory_pb2, inventory_pb2_grpc

FLEET = "sim"
"""The fleet's name, and what its providers' names begin with."""

_CALL_SECONDS = 60.0


def add_partition(settings: Settings, name: str) -> None:
    """Have the partition, whether or not it is there."""
    with grpc.insecure_channel(settings.api) as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)
        try:
            stub.AddPartition(inventory_pb2.AddPartitionRequest(name=name), timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            if not (isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.ALREADY_EXISTS):
                raise


def add_fleet(settings: Settings, size: int, partition: str, *, say: Callable[[str], None]) -> tuple[str, ...]:
    """Register `size` simulated hosts, always the same ones for the same size; gives their names."""
    add_partition(settings, partition)
    hosts = fleet(FLEET, size=size)
    with grpc.insecure_channel(settings.api) as channel:
        stub = inventory_pb2_grpc.InventoryServiceStub(channel)
        for host in hosts:
            request = inventory_pb2.AddProviderRequest(name=host.name, partition=partition, url=host.url)
            stub.AddProvider(request, timeout=_CALL_SECONDS)
    say(f"a simulated fleet of {size} hosts is in partition {partition}: {hosts[0].name} to {hosts[-1].name}")
    return tuple(host.name for host in hosts)
