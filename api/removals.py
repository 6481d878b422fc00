"""Removing providers, and what an image left on them: starting the runs that do it."""

from __future__ import annotations

import structlog
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.errors import MulliganError
from mulligan.activities.inventory import By, Inventory
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Image, Provider
from mulligan.api.errors import domain_error
from mulligan.api.pages import provider_pages
from mulligan.api.queues import require_workers
from mulligan.workflows.runs import REMOVE, SPARE, RemoveOut, SpareIn, remove_id, spare_id

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Removals:
    """Starts, or joins, the runs that remove what Mulligan keeps on providers for itself."""

    def __init__(self, client: Client, inventory: Inventory) -> None:
        self._client, self._inventory = client, inventory

    async def remove(self, name: str, by: By, *, forget: bool) -> tuple[str, ...]:
        """Forget a provider; what was removed from it. Unless it shall only be forgotten, it must answer.

        Raises `NotFound`, `Conflict` naming the machines that hold something of it, and what its driver raised: then
        it stays, disabled.
        """
        provider = await run_blocking(self._inventory.retire_provider, name, by, forget=forget)
        if forget:
            await run_blocking(self._inventory.remove_provider, name)
            return ()
        try:
            return await self._emptied(provider)
        except Exception as error:  # whatever it was is raised on; ours with what has become of the provider
            if (known := domain_error(error)) is None:
                raise
            raise _stays(known, name) from error

    async def _emptied(self, provider: Provider) -> tuple[str, ...]:
        await require_workers(self._client, provider.partition)
        handle = await self._client.start_workflow(
            REMOVE,
            provider.target,
            id=remove_id(provider.name),
            task_queue=CONTROL_QUEUE,
            result_type=RemoveOut,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"Remove provider {provider.name} of partition {provider.partition}",
        )
        result: RemoveOut = await handle.result()
        return result.removed

    async def spare(self, image: Image) -> None:
        """Begin to remove the bases of an image that was forgotten, unless another name or a machine needs its bytes.

        Nobody waits for it, and nobody is harmed when it cannot be done: bases only take space.
        """
        if image.digest in await run_blocking(self._inventory.wanted_digests):
            return
        targets = [provider.target async for provider in provider_pages(self._inventory, "")]
        if not targets:
            return
        try:
            await self._client.start_workflow(
                SPARE,
                SpareIn(image.name, image.digest, tuple(targets)),
                id=spare_id(image.digest),
                task_queue=CONTROL_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                static_summary=f"Remove image {image.name} from all providers",
            )
        except RPCError as error:
            log.warning("an image's bases stay on its providers", image=image.name, error=str(error))


def _stays(error: MulliganError, name: str) -> MulliganError:
    """The same error, saying what has become of the provider, and what can be done."""
    forget = f"mulligan provider remove {name} --forget"
    error.message = (
        f"{error.message}. Provider {name} stays, disabled: try again when it answers; where it is gone for good: "
        f"`{forget}`; to use it again: `mulligan provider set {name} --enable`"
    )
    error.metadata = {"remedy": forget, **error.metadata}
    return error
