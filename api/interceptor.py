"""Stands around every handler, so that handlers just raise: the one place where errors become statuses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from grpc_status import rpc_status

from mulligan.api.errors import status_of

Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]]
Context = grpc.aio.ServicerContext[Any, Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Answers what a handler raises with its status and details."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap our own handlers; those of health and reflection stay as they are."""
        handler = await continuation(handler_call_details)
        if handler is None or not str(handler_call_details.method).startswith("/mulligan."):
            return handler
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(_streaming(handler.unary_stream), **codec)
        assert handler.unary_unary is not None
        return grpc.unary_unary_rpc_method_handler(_single(handler.unary_unary), **codec)


def _single(handle: Callable[..., Any]) -> Any:
    async def handler(request: Any, context: Context) -> Any:
        try:
            return await handle(request, context)
        except Exception as error:  # noqa: BLE001 - the call's boundary: everything is answered, and nothing leaks
            return await _refuse(context, error)

    return handler


def _streaming(handle: Callable[..., Any]) -> Any:
    async def handler(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(handle(request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - the call's boundary: everything is answered, and nothing leaks
            await _refuse(context, error)

    return handler


async def _refuse(context: Context, error: Exception) -> None:
    status = rpc_status.to_status(status_of(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
