"""Machines and requests: the protocol's messages to the domain's values, and back. Messages are validated before."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from mulligan.activities import values
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.values import MachineRequest, Service, ServiceKind
from mulligan.api import enums
from mulligan.v1 import machine_pb2 as pb
from mulligan.workflows.runs import provision_id

DEFAULT = "default"
"""The project and the partition of those who name none."""

_PORTS = {ServiceKind.SSH: 22, ServiceKind.HTTP: 80, ServiceKind.TCP: 0}


def timestamp(moment: datetime | None) -> Timestamp | None:
    """The moment as a message; None stays None, which leaves a field absent."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment.astimezone(UTC))
    return message


def moment(message: Timestamp) -> datetime:
    """The message as an aware datetime."""
    return message.ToDatetime(tzinfo=UTC)


def resources_value(message: pb.Resources) -> values.Resources:
    """An amount of each resource."""
    return values.Resources(message.vcpu, message.memory_mib, message.disk_gib)


def resources_message(value: values.Resources) -> pb.Resources:
    """An amount of each resource."""
    return pb.Resources(vcpu=value.vcpu, memory_mib=value.memory_mib, disk_gib=value.disk_gib)


def request_value(spec: pb.MachineSpec, user_data: str = "", user_data_digest: str = "") -> MachineRequest:
    """A request with its defaults filled in; `user_data` is what to keep instead of the plain text."""
    return MachineRequest(
        project=spec.project or DEFAULT,
        name=spec.name,
        image=spec.image,
        resources=resources_value(spec.resources),
        partition=spec.partition or DEFAULT,
        kind=enums.KIND.word(spec.kind),
        requires=tuple(sorted(set(spec.requires))),
        forbids=tuple(sorted(set(spec.forbids))),
        provider=spec.provider,
        placement=enums.PLACEMENT.word(spec.placement),
        when_none=enums.WHEN_NONE.word(spec.when_none),
        hostname=(spec.hostname or spec.name).lower(),
        ssh_keys=tuple(dict.fromkeys(" ".join(key.split()) for key in spec.ssh_keys)),
        user_data=user_data,
        user_data_digest=user_data_digest,
        network_config=spec.network_config,
        firmware=enums.FIRMWARE.word(spec.firmware),
        verify=enums.VERIFY.word(spec.verify),
        service=_service_value(spec.service),
        on_failure=enums.ON_FAILURE.word(spec.on_failure),
        deadlines=_deadlines_value(spec.deadlines),
        priority=spec.priority or 3,
        root_disk=_root_disk_value(spec.root_disk),
        **({"mulligans": spec.mulligans} if spec.HasField("mulligans") else {}),
    )


def _service_value(message: pb.Service) -> Service:
    kind = enums.SERVICE.word(message.kind)
    return Service(kind, message.port or _PORTS[kind], message.path or "/")


def _root_disk_value(message: pb.RootDisk) -> values.RootDisk:
    """The hints in one spelling, so that equal requests are equal."""
    return values.RootDisk(
        serial=message.serial.strip(),
        wwn=message.wwn.strip().lower().removeprefix("0x"),
        model=message.model.strip(),
        kind=enums.DISK_KIND.word(message.kind),
        min_gib=message.min_gib,
    )


def _root_disk_message(value: values.RootDisk) -> pb.RootDisk | None:
    if value == values.RootDisk():
        return None
    kind = enums.DISK_KIND.number(value.kind)
    return pb.RootDisk(serial=value.serial, wwn=value.wwn, model=value.model, kind=kind, min_gib=value.min_gib)


def _deadlines_value(message: pb.Deadlines) -> values.Deadlines:
    return values.Deadlines(**{field.name: value for field, value in message.ListFields() if value})


def spec_message(request: MachineRequest) -> pb.MachineSpec:
    """A request as it is shown: without user data."""
    deadlines = {field.name: getattr(request.deadlines, field.name) for field in pb.Deadlines.DESCRIPTOR.fields}
    service = request.service
    return pb.MachineSpec(
        project=request.project,
        name=request.name,
        image=request.image,
        resources=resources_message(request.resources),
        partition=request.partition,
        kind=enums.KIND.number(request.kind),
        requires=request.requires,
        forbids=request.forbids,
        provider=request.provider,
        placement=enums.PLACEMENT.number(request.placement),
        when_none=enums.WHEN_NONE.number(request.when_none),
        hostname=request.hostname,
        ssh_keys=request.ssh_keys,
        network_config=request.network_config,
        firmware=enums.FIRMWARE.number(request.firmware),
        verify=enums.VERIFY.number(request.verify),
        service=pb.Service(kind=enums.SERVICE.number(service.kind), port=service.port, path=service.path),
        mulligans=request.mulligans,
        on_failure=enums.ON_FAILURE.number(request.on_failure),
        deadlines=pb.Deadlines(**deadlines),
        priority=request.priority,
        root_disk=_root_disk_message(request.root_disk),
    )


def evidence_message(value: values.Evidence) -> pb.Evidence:
    """One observation."""
    level = enums.VERIFY.number(value.level) if value.level is not None else pb.VERIFY_LEVEL_UNSPECIFIED
    return pb.Evidence(level=level, source=value.source, observed=value.observed, at=timestamp(value.at))


def machine_message(value: Machine) -> pb.Machine:
    """A machine, as it is."""
    return pb.Machine(
        id=value.id,
        project=value.project,
        name=value.name,
        state=enums.MACHINE_STATE.number(value.state),
        partition=value.partition,
        provider=value.provider,
        workflow_id=provision_id(value.project, value.name),
        run_id=value.run_id,
        spec=spec_message(value.request),
        image_digest=value.image.digest,
        addresses=value.addresses,
        login=value.login,
        evidence=[evidence_message(one) for one in value.evidence],
        reason=value.reason,
        created_at=timestamp(value.created_at),
        ready_at=timestamp(value.ready_at),
    )
