"""The connection to Temporal, the same in every process."""

from __future__ import annotations

from temporalio.client import Client, GrpcCompression
from temporalio.contrib.pydantic import pydantic_data_converter

from mulligan.activities.errors import Unreachable
from mulligan.api.config import Settings


async def connect(settings: Settings) -> Client:
    """Connect, or raise `Unreachable` saying where it was tried."""
    try:
        return await Client.connect(
            settings.temporal,
            namespace=settings.namespace,
            data_converter=pydantic_data_converter,
            # On one host compressing costs 1.5 ms of a call, and saves nothing that is scarce there.
            grpc_compression=GrpcCompression.NONE,
        )
    except RuntimeError as error:
        raise Unreachable(
            f"Temporal does not answer at {settings.temporal}: {error}. Start the embedded stack with "
            "`mulligan up`, or set MULLIGAN_TEMPORAL",
            address=settings.temporal,
        ) from error
