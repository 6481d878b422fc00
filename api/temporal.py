"""The connection to Temporal, the same in every process."""

from __future__ import annotations

from temporalio.api.failure.v1 import Failure
from temporalio.client import Client, GrpcCompression
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import CompositePayloadConverter, DataConverter, DefaultFailureConverter, PayloadConverter

from mulligan.activities.errors import Unreachable
from mulligan.activities.history import STILL_AWAITED
from mulligan.api.config import Settings

_SHARED = PydanticPayloadConverter()


class _Converter(PydanticPayloadConverter):
    """Pydantic's converter, with one memory in the process of how each type is read.

    Temporal makes a converter for each run, which would work out every type's schema anew: a tenth of the
    worker's time.
    """

    def __init__(self) -> None:
        CompositePayloadConverter.__init__(self, *_SHARED.converters.values())


class _Failures(DefaultFailureConverter):
    """Temporal's converter, without a stack for what is no failure: its Web UI would show that beside what was seen."""

    def to_failure(self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure) -> None:
        super().to_failure(exception, payload_converter, failure)
        if failure.application_failure_info.type == STILL_AWAITED:
            failure.stack_trace = ""


DATA_CONVERTER = DataConverter(payload_converter_class=_Converter, failure_converter_class=_Failures)
"""How arguments and results become payloads: as JSON, by Pydantic; and how errors become failures."""


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
