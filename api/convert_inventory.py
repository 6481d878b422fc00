"""Providers, claims, explanations and images: the protocol's messages to the domain's values, and back."""

from __future__ import annotations

from collections.abc import Sequence

from mulligan.activities import values
from mulligan.activities.bmc_health import BmcHealth
from mulligan.activities.drivers.registry import normalise_url
from mulligan.activities.inventory.claims import ClaimRow, Drift
from mulligan.activities.inventory.edits import Edit
from mulligan.activities.inventory.explanation import Explanation
from mulligan.activities.inventory.suspects import Suspect
from mulligan.api import enums
from mulligan.api.convert import DEFAULT, resources_message, timestamp
from mulligan.v1 import images_pb2
from mulligan.v1 import inventory_pb2 as pb


def target_value(request: pb.AddProviderRequest) -> values.Target:
    """Which provider a driver shall look at."""
    return values.Target(
        request.name,
        request.partition or DEFAULT,
        normalise_url(request.url),
        dict(sorted(request.settings.items())),
        request.credential,
    )


def provider_message(value: values.Provider) -> pb.Provider:
    """A provider, as the inventory knows it."""
    return pb.Provider(
        name=value.name,
        partition=value.partition,
        kind=enums.PROVIDER_KINDS[value.kind],
        url=value.url,
        settings=value.settings,
        credential=value.credential,
        capabilities=value.capabilities,
        inventory=[
            pb.InventoryRow(
                resource=row.resource,
                total=row.total,
                reserved=row.reserved,
                overcommit_percent=row.overcommit_percent,
                used=row.used,
            )
            for row in value.inventory
        ],
        generation=value.generation,
        enabled=value.enabled,
        dirty=value.dirty,
        suspect_count=value.suspect_count,
        quarantined=value.quarantined,
        facts=value.facts,
    )


def suspect_message(value: Suspect) -> pb.Suspect:
    """What runs failed on, with the evidence."""
    return pb.Suspect(
        kind=enums.SUSPECT_KIND.number(value.kind),
        name=value.name,
        failures=value.failures,
        quarantined=value.quarantined,
        evidence=[
            pb.Blame(
                workflow_id=one.workflow_id,
                run_id=one.run_id,
                step=one.step,
                reason=one.reason,
                provider=one.provider,
                image=one.image,
                at=timestamp(one.at),
            )
            for one in value.evidence
        ],
        verdict=value.verdict,
    )


def edit_message(value: Edit) -> pb.Edit:
    """What an operator changed by hand."""
    return pb.Edit(
        kind=enums.EDIT_KIND.number(value.kind),
        name=value.name,
        project=value.project,
        what=value.what,
        actor=value.actor,
        reason=value.reason,
        at=timestamp(value.at),
    )


def bmc_message(value: BmcHealth, partition: str, providers: Sequence[values.Provider]) -> pb.Bmc:
    """One BMC, with the providers behind it."""
    return pb.Bmc(
        name=value.bmc,
        protocols=sorted({each.url.partition(":")[0] for each in providers}),
        partition=partition,
        providers=sorted(each.name for each in providers),
        state=enums.BMC_STATE.number(value.state),
        answered_at=timestamp(value.answered_at),
        silent_since=timestamp(value.silent_since),
        busy_until=timestamp(value.busy_until),
        error=value.error,
        asked=value.asked,
        failed=value.failed,
        counted_since=timestamp(value.counted_since),
    )


def claim_message(value: ClaimRow) -> pb.Claim:
    """One claim."""
    return pb.Claim(
        id=value.id,
        machine_id=value.machine_id,
        project=value.project,
        machine=value.machine,
        partition=value.partition,
        provider=value.provider,
        resources=resources_message(value.resources),
        fence=value.fence,
        state=enums.CLAIM_STATE.number(value.state),
        lease_expires_at=timestamp(value.lease_expires_at),
        reason=value.reason,
        mend=value.mend,
        created_at=timestamp(value.created_at),
    )


def explanation_message(value: Explanation) -> pb.Explanation:
    """Why a claim finds a provider, or none."""
    return pb.Explanation(
        verdict=enums.VERDICT.number(value.verdict),
        funnel=[
            pb.Predicate(name=one.name, description=one.description, remaining=one.remaining, removed=one.removed)
            for one in value.funnel
        ],
        never_count=value.never_count,
        not_now_count=value.not_now_count,
        near_misses=[
            pb.NearMiss(provider=one.provider, failing=one.failing, detail=one.detail) for one in value.near_misses
        ],
        summary=value.summary,
    )


def drift_message(value: Drift, *, repaired: bool) -> pb.AuditClaimsResponse:
    """One thing that does not add up."""
    return pb.AuditClaimsResponse(
        kind=enums.DRIFT.number(value.kind),
        provider=value.provider,
        resource=value.resource,
        used=value.used,
        claimed=value.claimed,
        claim_id=value.claim_id,
        machine_id=value.machine_id,
        detail=value.detail,
        repaired=repaired,
    )


def image_value(message: images_pb2.Image) -> values.Image:
    """An image that was validated before, with its defaults filled in."""
    firmware = tuple(dict.fromkeys(enums.FIRMWARE.word(number) for number in message.firmware))
    return values.Image(
        name=message.name,
        source=message.source,
        digest=message.digest.lower(),
        format=enums.FORMAT.word(message.format),
        compression=enums.COMPRESSION.word(message.compression),
        architecture=message.architecture or "x86_64",
        firmware=tuple(sorted(firmware)) or (values.Firmware.BIOS, values.Firmware.UEFI),
        size_bytes=message.size_bytes,
        virtual_size_bytes=message.virtual_size_bytes,
        login=message.login,
        initrd_source=message.initrd_source,
        initrd_digest=message.initrd_digest.lower(),
        kernel_arguments=" ".join(message.kernel_arguments.split()),
    )


def image_message(value: values.Image) -> images_pb2.Image:
    """An image as registered."""
    return images_pb2.Image(
        name=value.name,
        source=value.source,
        digest=value.digest,
        format=enums.FORMAT.number(value.format),
        compression=enums.COMPRESSION.number(value.compression),
        architecture=value.architecture,
        firmware=[enums.FIRMWARE.number(one) for one in value.firmware],
        size_bytes=value.size_bytes,
        virtual_size_bytes=value.virtual_size_bytes,
        login=value.login,
        initrd_source=value.initrd_source,
        initrd_digest=value.initrd_digest,
        kernel_arguments=value.kernel_arguments,
    )
