"""The part of the Provisioning service that exports runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from mulligan.api.capsules import Capsules
from mulligan.api.interceptor import Context
from mulligan.api.services.checks import check_run
from mulligan.v1 import provisioning_pb2 as pb

PART_BYTES = 256 * 2**10
"""How much of a capsule one message carries."""


class CapsuleMethods:
    """ExportRun. For the servicer, which sets `_capsules`."""

    _capsules: Capsules

    async def ExportRun(  # noqa: N802 - the protocol's name
        self, request: pb.ExportRunRequest, context: Context
    ) -> AsyncGenerator[pb.ExportRunResponse, None]:
        """Stream one run's capsule."""
        check_run(request)
        data = await self._capsules.export(request.workflow_id, request.run_id)
        for at in range(0, len(data), PART_BYTES):
            yield pb.ExportRunResponse(part=data[at : at + PART_BYTES])
