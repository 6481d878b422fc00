"""The Inventory service: partitions, providers and claims. Handlers convert and call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from mulligan.activities.inventory import By, Inventory, SuspectKind
from mulligan.activities.levers import UNKNOWN
from mulligan.activities.threads import run_blocking
from mulligan.api import enums, validate
from mulligan.api.bmcs import Bmcs
from mulligan.api.convert_inventory import (
    claim_message,
    drift_message,
    edit_message,
    explanation_message,
    provider_message,
    suspect_message,
    target_value,
)
from mulligan.api.enrolments import Enrolments
from mulligan.api.interceptor import Context
from mulligan.api.names import require
from mulligan.api.new_settings import NewSettings, Told
from mulligan.api.pages import provider_pages
from mulligan.api.removals import Removals
from mulligan.api.requests import Requests
from mulligan.api.validate import Faults, names_only
from mulligan.v1 import inventory_pb2 as pb
from mulligan.v1 import inventory_pb2_grpc


class InventoryEdge(inventory_pb2_grpc.InventoryServiceServicer):
    """The inventory of a deployment, at the edge of the house."""

    def __init__(
        self,
        inventory: Inventory,
        requests: Requests,
        *,
        enrolments: Enrolments,
        removals: Removals,
        bmcs: Bmcs,
        new_settings: NewSettings,
    ) -> None:
        self._inventory, self._requests, self._bmcs = inventory, requests, bmcs
        self._enrolments, self._removals, self._new_settings = enrolments, removals, new_settings

    async def AddPartition(  # noqa: N802 - the protocol's name
        self, request: pb.AddPartitionRequest, context: Context
    ) -> pb.AddPartitionResponse:
        """Add a partition."""
        names_only(request, "name")
        await run_blocking(self._inventory.add_partition, request.name)
        return pb.AddPartitionResponse(name=request.name)

    async def ListPartitions(  # noqa: N802 - the protocol's name
        self, request: pb.ListPartitionsRequest, context: Context
    ) -> AsyncIterator[pb.ListPartitionsResponse]:
        """The partitions, by name."""
        for name in await run_blocking(self._inventory.partitions):
            yield pb.ListPartitionsResponse(name=name)

    async def AddProvider(  # noqa: N802 - the protocol's name
        self, request: pb.AddProviderRequest, context: Context
    ) -> pb.AddProviderResponse:
        """Look at a provider and register what was found."""
        faults = Faults(request)
        faults.name("name", request.name)
        faults.name("partition", request.partition, required=False)
        validate.provider_url(faults, "url", request.url)
        validate.settings(faults, "settings", request.settings)
        validate.credential(faults, "credential", request.credential)
        faults.refuse()
        before, provider = await self._enrolments.enrol(target_value(request))
        told = await self._new_settings.tell(before, provider.target, By())
        return pb.AddProviderResponse(provider=provider_message(provider), told=_told(told))

    async def GetProvider(  # noqa: N802 - the protocol's name
        self, request: pb.GetProviderRequest, context: Context
    ) -> pb.GetProviderResponse:
        """A provider."""
        names_only(request, "name")
        provider = await run_blocking(self._inventory.provider, request.name)
        suspect = await run_blocking(self._inventory.suspect, SuspectKind.PROVIDER, request.name)
        return pb.GetProviderResponse(
            provider=provider_message(provider), suspect=suspect_message(suspect) if suspect is not None else None
        )

    async def ListProviders(  # noqa: N802 - the protocol's name
        self, request: pb.ListProvidersRequest, context: Context
    ) -> AsyncIterator[pb.ListProvidersResponse]:
        """The providers, by name."""
        names_only(request, "partition", optional=("partition",))
        async for provider in provider_pages(self._inventory, request.partition):
            yield pb.ListProvidersResponse(provider=provider_message(provider))

    async def UpdateProvider(  # noqa: N802 - the protocol's name
        self, request: pb.UpdateProviderRequest, context: Context
    ) -> pb.UpdateProviderResponse:
        """Edit a provider that nobody edited since it was read."""
        faults = Faults(request)
        faults.name("name", request.name)
        faults.between("generation", request.generation, 1, 2**63 - 1)
        validate.percents_and_reserves(faults, request.reserved, request.overcommit_percent)
        validate.settings(faults, "settings", request.settings)
        validate.words(faults, request.actor, request.reason)
        faults.refuse()
        known = await run_blocking(self._inventory.provider, request.name)
        provider = await run_blocking(
            self._inventory.edit_provider,
            request.name,
            generation=request.generation,
            enabled=request.enabled if request.HasField("enabled") else None,
            reserved=dict(request.reserved),
            overcommit_percent=dict(request.overcommit_percent),
            settings={**known.settings, **request.settings} if request.settings else None,
            clear_quarantine=request.clear_quarantine,
            clear_suspect=request.clear_suspect,
            clear_dirty=request.clear_dirty,
            by=(by := By(request.actor or UNKNOWN, request.reason)),
        )
        told = await self._new_settings.tell(known.target, provider.target, by)
        return pb.UpdateProviderResponse(provider=provider_message(provider), told=_told(told))

    async def RemoveProvider(  # noqa: N802 - the protocol's name
        self, request: pb.RemoveProviderRequest, context: Context
    ) -> pb.RemoveProviderResponse:
        """Forget a provider that holds nothing, with what is kept there."""
        faults = Faults(request)
        faults.name("name", request.name)
        validate.words(faults, request.actor, request.reason)
        faults.refuse()
        by = By(request.actor or UNKNOWN, request.reason)
        removed = await self._removals.remove(request.name, by, forget=request.forget)
        return pb.RemoveProviderResponse(removed=removed)

    async def ListSuspects(  # noqa: N802 - the protocol's name
        self, request: pb.ListSuspectsRequest, context: Context
    ) -> AsyncIterator[pb.ListSuspectsResponse]:
        """What runs failed on since one succeeded, the worst first."""
        Faults(request).refuse()
        kind = enums.SUSPECT_KIND.word(request.kind) if request.kind else None
        for suspect in await run_blocking(self._inventory.suspects, kind):
            yield pb.ListSuspectsResponse(suspect=suspect_message(suspect))

    async def ClearSuspect(  # noqa: N802 - the protocol's name
        self, request: pb.ClearSuspectRequest, context: Context
    ) -> pb.ClearSuspectResponse:
        """Forget the failures of a provider or an image."""
        faults = Faults(request)
        if not request.kind:
            faults.add("kind", "must be a provider or an image")
        elif request.kind == pb.SUSPECT_KIND_PROVIDER:
            faults.name("name", request.name)
        else:
            faults.image_name("name", request.name)
        validate.words(faults, request.actor, request.reason)
        faults.refuse()
        kind = enums.SUSPECT_KIND.word(request.kind)
        by = By(request.actor or UNKNOWN, request.reason)
        also = await run_blocking(self._inventory.clear_failures, kind, request.name, by)
        cleared = pb.Suspect(kind=request.kind, name=request.name)
        return pb.ClearSuspectResponse(suspect=cleared, also=[suspect_message(each) for each in also])

    async def ListEdits(  # noqa: N802 - the protocol's name
        self, request: pb.ListEditsRequest, context: Context
    ) -> AsyncIterator[pb.ListEditsResponse]:
        """What operators changed by hand, newest first."""
        faults = Faults(request)
        faults.between("limit", request.limit, 0, 10_000)
        faults.name("project", request.project, required=False)
        if request.name and request.kind == pb.EDIT_KIND_IMAGE:
            faults.image_name("name", request.name)
        elif request.name:
            faults.name("name", request.name)
        faults.refuse()
        kind = enums.EDIT_KIND.word(request.kind) if request.kind else None
        limit = request.limit or 100
        for edit in await run_blocking(self._inventory.edits, kind, request.name, request.project, limit=limit):
            yield pb.ListEditsResponse(edit=edit_message(edit))

    async def ListBmcs(  # noqa: N802 - the protocol's name
        self, request: pb.ListBmcsRequest, context: Context
    ) -> AsyncIterator[pb.ListBmcsResponse]:
        """The BMCs, by partition and name."""
        names_only(request, "partition", "provider", optional=("partition", "provider"))
        for bmc in await self._bmcs.listed(request.partition, request.provider, probe=request.probe):
            yield pb.ListBmcsResponse(bmc=bmc)

    async def ListClaims(  # noqa: N802 - the protocol's name
        self, request: pb.ListClaimsRequest, context: Context
    ) -> AsyncIterator[pb.ListClaimsResponse]:
        """The claims, oldest first."""
        names_only(request, "partition", "project", optional=("partition", "project"))
        if request.partition:
            require("partition", request.partition, await run_blocking(self._inventory.partitions))
        state = enums.CLAIM_STATE.word(request.state).value if request.state else ""
        for claim in await run_blocking(self._inventory.claims, request.partition, request.project, state):
            yield pb.ListClaimsResponse(claim=claim_message(claim))

    async def ExplainClaim(  # noqa: N802 - the protocol's name
        self, request: pb.ExplainClaimRequest, context: Context
    ) -> pb.ExplainClaimResponse:
        """Which providers could hold a machine, and why not the others."""
        asked = await self._requests.claim(request)
        explanation = await run_blocking(self._inventory.explain, asked)
        return pb.ExplainClaimResponse(explanation=explanation_message(explanation))

    async def AuditClaims(  # noqa: N802 - the protocol's name
        self, request: pb.AuditClaimsRequest, context: Context
    ) -> AsyncIterator[pb.AuditClaimsResponse]:
        """What does not add up, mended when asked to."""
        faults = Faults(request)
        validate.words(faults, request.actor, request.reason)
        faults.refuse()
        found = await run_blocking(self._inventory.audit)
        by = By(request.actor or UNKNOWN, request.reason)
        mended = await run_blocking(self._inventory.repair, found, by) if request.repair else []
        for drift in found:
            yield drift_message(drift, repaired=drift in mended)


def _told(told: Iterable[Told]) -> list[pb.ToldRun]:
    return [pb.ToldRun(workflow_id=each.workflow_id, run_id=each.run_id, said=each.said) for each in told]
