"""A request, from the message to the normalised value by which runs are started, joined and compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass, replace
from typing import Any

from pydantic import TypeAdapter

from mulligan.activities.calls import ClaimIn
from mulligan.activities.claim import claim_request_of, requirements
from mulligan.activities.drivers.base import CAPABILITIES
from mulligan.activities.errors import NotFound
from mulligan.activities.inventory import ClaimRequest, Inventory
from mulligan.activities.seal import Keyring
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Firmware, Image, ImageFormat, MachineRequest, RootDisk, VerifyLevel
from mulligan.api.convert import request_value
from mulligan.api.names import require
from mulligan.api.validate import Faults
from mulligan.api.validate_spec import check_capabilities, check_spec
from mulligan.v1 import inventory_pb2, machine_pb2, provisioning_pb2

_REQUEST = TypeAdapter(MachineRequest)
_SAME_MACHINE = frozenset({"user_data", "priority"})
"""Fields that may differ between requests for the same machine: one is sealed anew each time (its digest tells), the
other says how soon."""

_GIB = 2**30


class Requests:
    """Validates and normalises what is asked for."""

    def __init__(self, inventory: Inventory, keyring: Keyring) -> None:
        self._inventory = inventory
        self._keyring = keyring

    async def machine(
        self, message: provisioning_pb2.ProvisionMachineRequest | provisioning_pb2.PlanMachineRequest
    ) -> tuple[MachineRequest, Image]:
        """The request and its image. Raises `InvalidRequest` with every fault, `NotFound` for what it names."""
        faults, spec = Faults(message), message.spec
        await run_blocking(check_spec, faults, spec)  # user data is parsed: milliseconds that others need not wait
        await self._check_capabilities(faults, spec)
        faults.refuse()
        image = await run_blocking(self._inventory.image, spec.image)
        request = request_value(spec, *self._sealed(spec.user_data))
        await self._require_places(request)
        _check_against_image(faults, request, image)
        faults.refuse()
        return diskless(request, image), image

    async def claim(self, message: inventory_pb2.ExplainClaimRequest) -> ClaimRequest:
        """What would be claimed for this machine. Raises as `machine` does."""
        faults, spec = Faults(message), message.spec
        await run_blocking(check_spec, faults, spec, named=False)
        await self._check_capabilities(faults, spec)
        faults.refuse()
        request = request_value(spec)
        await self._require_places(request)
        image = Image("", "", "", ImageFormat.RAW)
        if spec.image:
            image = await run_blocking(self._inventory.image, spec.image)
        request = diskless(request, image)
        asked = claim_request_of(ClaimIn(request, image, "", "", "", "", "", (), lease_seconds=900))
        return asked if spec.image else replace(asked, requires=requirements(request, None))

    async def _check_capabilities(self, faults: Faults, spec: machine_pb2.MachineSpec) -> None:
        if spec.requires or spec.forbids:
            known = await run_blocking(self._inventory.known_capabilities)
            check_capabilities(faults, spec, sorted({*known, *CAPABILITIES}))

    async def _require_places(self, request: MachineRequest) -> None:
        require("partition", request.partition, await run_blocking(self._inventory.partitions))
        if request.provider:
            provider = await run_blocking(self._inventory.provider, request.provider)
            if provider.partition != request.partition:
                raise NotFound(
                    f"no provider {provider.name!r} in partition {request.partition!r}: it is in {provider.partition!r}"
                    "; ask for that partition, or for another provider",
                    what="provider",
                    name=provider.name,
                    partition=provider.partition,
                )

    def _sealed(self, user_data: str) -> tuple[str, str]:
        if not user_data:
            return "", ""
        return self._keyring.seal(user_data), self._keyring.digest(user_data)


def _check_against_image(faults: Faults, request: MachineRequest, image: Image) -> None:
    if request.firmware is not Firmware.ANY and request.firmware not in image.firmware:
        boots = " and ".join(image.firmware)
        faults.add("spec.firmware", f"image {image.name} boots with {boots}, not with {request.firmware}")
    if image.live:
        _check_against_live(faults, request, image)
        return
    needed = max(1, -(-image.virtual_size_bytes // _GIB))
    if request.resources.disk_gib < 1:
        faults.add("spec.resources.disk_gib", f"must be at least 1: image {image.name} is put on a disk")
    elif request.resources.disk_gib < needed:
        faults.add("spec.resources.disk_gib", f"must be at least {needed}: image {image.name} describes such a disk")


def _check_against_live(faults: Faults, request: MachineRequest, image: Image) -> None:
    """What cannot be asked of a machine without a disk."""
    if request.root_disk != RootDisk():
        faults.add("spec.root_disk", f"must be absent: {image.name} is a live image, and no disk is touched")
    if request.network_config:
        why = f"must be empty: {image.name} is a live image, and has its network from DHCP or from its kernel arguments"
        faults.add("spec.network_config", why)
    if image.format is not ImageFormat.ISO:
        return
    if request.verify.includes(VerifyLevel.GUEST):
        why = f"{image.name} is an ISO, into which nothing can be put, so that no guest of it calls home"
        most = f"ask for level {VerifyLevel.POWER}, or on a hypervisor for at most {VerifyLevel.ADDRESS}"
        faults.add("spec.verify", f"{why}; {most}")
    if request.user_data_digest:
        faults.add("spec.user_data", f"must be empty: {image.name} is an ISO, into which nothing can be put")


def diskless(request: MachineRequest, image: Image) -> MachineRequest:
    """The request, with no disk for a live image, whatever was said."""
    return replace(request, resources=replace(request.resources, disk_gib=0)) if image.live else request


def fingerprint(request: MachineRequest, image: Image) -> str:
    """Equal for requests that mean the same machine, whenever their user data was sealed, however urgent they are."""
    told = _REQUEST.dump_python(replace(request, user_data="", priority=0), mode="json")
    more = [image.initrd_digest, image.kernel_arguments] if image.format is ImageFormat.KERNEL else []
    canonical = json.dumps([told, image.digest, *more], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def differing(one: MachineRequest, other: MachineRequest) -> tuple[str, ...]:
    """The fields in which two requests differ, by their names in the message; the image's digest where none does."""
    told = [name for name in _differing(one, other) if name not in _SAME_MACHINE]
    found = tuple(name.removesuffix("_digest") for name in told)
    return found or ("image.digest",)


def _differing(one: Any, other: Any, prefix: str = "") -> list[str]:
    names: list[str] = []
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if is_dataclass(mine) and is_dataclass(theirs):
            names += _differing(mine, theirs, f"{prefix}{field.name}.")
        elif mine != theirs:
            names.append(f"{prefix}{field.name}")
    return names
