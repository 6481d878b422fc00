"""Registering the search attributes, so that no operator has to: once, by whichever process comes first."""

from __future__ import annotations

import asyncio
import time

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import CountWorkflowExecutionsRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from mulligan.activities.errors import HostNotReady, Unreachable
from mulligan.workflows import search

_KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
_NAMES = tuple(key.name for key in search.ALL)
_USE_ALL = " AND ".join(f"{name} STARTS_WITH '-'" for name in _NAMES)
"""Valid only where every one of them is there, and is a keyword."""

_REFUSED = frozenset(
    {
        RPCStatusCode.PERMISSION_DENIED,
        RPCStatusCode.UNAUTHENTICATED,
        RPCStatusCode.UNIMPLEMENTED,
        RPCStatusCode.INVALID_ARGUMENT,
    }
)
"""What Temporal says when it does not let us add them, or has no room for more. Anything else may pass."""

_AGAIN_SECONDS = 0.1

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def register(client: Client, patience: float = 30.0) -> None:
    """Make the search attributes usable in the client's namespace; where they are, one call finds that out.

    Raises `HostNotReady`, with the command that mends it, when a name is taken by another type or when Temporal refuses
    to add them; `Unreachable` when it does not answer, or does not know them after `patience` seconds.
    """
    end = time.monotonic() + patience
    try:
        while not await _usable(client):
            await _add_missing(client)
            if time.monotonic() > end:
                raise Unreachable(
                    f"Temporal was told of the search attributes {', '.join(_NAMES)}, and cannot use them after "
                    f"{patience:g} s: a cluster may take a minute; else look at its log"
                )
            await asyncio.sleep(_AGAIN_SECONDS)
    except RPCError as error:
        raise Unreachable(f"Temporal was asked for its search attributes and does not answer: {error}") from error


async def _usable(client: Client) -> bool:
    """Whether runs can be searched by all of them now."""
    try:
        asked = CountWorkflowExecutionsRequest(namespace=client.namespace, query=_USE_ALL)
        await client.workflow_service.count_workflow_executions(asked)
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            raise
        return False
    return True


async def _add_missing(client: Client) -> None:
    """Add those that are not there. What another process added meanwhile is success too."""
    mend = _command(client, "create", *(f"--name {name} --type Keyword" for name in _NAMES))
    try:
        asked = ListSearchAttributesRequest(namespace=client.namespace)
        found = (await client.operator_service.list_search_attributes(asked)).custom_attributes
        if clash := [name for name in _NAMES if found.get(name, _KEYWORD) != _KEYWORD]:
            types = ", ".join(f"{name} is {IndexedValueType.Name(found[name]).rpartition('_')[2]}" for name in clash)
            remedy = _command(client, "remove", *(f"--name {name}" for name in clash), "--yes")
            raise HostNotReady(
                f"Temporal's namespace {client.namespace!r} has search attributes of Mulligan's names and of other "
                f"types, where keywords are needed: {types}. If nothing else uses them, remove them and start again",
                remedy=remedy,
            )
        missing = {name: _KEYWORD for name in _NAMES if name not in found}
        if missing:
            add = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            await client.operator_service.add_search_attributes(add)
            log.info("registered search attributes", names=list(missing), namespace=client.namespace)
    except RPCError as error:
        if error.status is RPCStatusCode.ALREADY_EXISTS:
            return
        if error.status not in _REFUSED:
            raise
        raise HostNotReady(
            f"Temporal's namespace {client.namespace!r} lacks search attributes that Mulligan's runs carry, and they "
            f"cannot be added: {error}. Have someone who may add them do it once, then start again",
            remedy=mend,
        ) from error


def _command(client: Client, verb: str, *options: str) -> str:
    """The `temporal` command for it."""
    where = f"--address {client.service_client.config.target_host} --namespace {client.namespace}"
    return f"temporal operator search-attribute {verb} {where} {' '.join(options)}"
