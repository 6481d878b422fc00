"""The connection to Temporal, the same in every process."""

from __future__ import annotations

from temporalio.client import Client, GrpcCompression
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import CompositePayloadConverter, DataConverter

from mulligan.activities.errors import Unreachable
from mulligan.api.config import Settings

_SHARED = PydanticPayloadConverter()


class _Converter(PydanticPayloadConverter):
    """Pydantic's converter, with one memory in the process of how each type is read.

    Temporal makes a converter for each run, which would work out every type's schema anew: a tenth of the
    worker's time.
    """

    def __init__(self) -> None:
        CompositePayloadConverter.__init__(self, *_SHARED.converters.values())


DATA_CONVERTER = DataConverter(payload_converter_class=_Converter)
"""How arguments and results become payloads: as JSON, by Pydantic."""


async def connect(settings: Settings) -> Client:
    """Connect, or raise `Unreachable` saying where it was tried."""
    try:
        return await Client.connect(
            settings.temporal,
            namespace=settings.namespace,
            data_converter=DATA_CONVERTER,
            # On one host compressing costs 1.5 ms of a call, and saves nothing that is scarce there.
            grpc_compression=GrpcCompression.NONE,
        )
    except RuntimeError as error:
        raise Unreachable(
            f"Temporal does not answer at {settings.temporal}: {error}. Start the embedded stack with "
            "`mulligan up`, or set MULLIGAN_TEMPORAL",
            address=settings.temporal,
        ) from error
