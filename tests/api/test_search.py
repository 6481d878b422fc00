"""The search attributes register themselves, and say what to do when they cannot."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client

from mulligan.activities.errors import HostNotReady, Unreachable
from mulligan.api.config import Settings
from mulligan.api.processes.temporal_dev import temporal_program
from mulligan.api.search import register
from mulligan.api.temporal import connect
from mulligan.workflows import search
from tests.services.temporal import TemporalServer

NAMES = {key.name for key in search.ALL}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TemporalServer]:
    """A Temporal that nobody has registered anything with."""
    with TemporalServer(tmp_path) as running:
        yield running


@pytest.fixture
async def client(server: TemporalServer) -> Client:
    """Connected to it."""
    return await connect(Settings(temporal=server.address))


async def registered(client: Client) -> dict[str, str]:
    """The custom search attributes of the namespace: name and type."""
    asked = ListSearchAttributesRequest(namespace="default")
    found = (await client.operator_service.list_search_attributes(asked)).custom_attributes
    return {name: IndexedValueType.Name(kind).rpartition("_")[2] for name, kind in found.items()}


async def add(client: Client, kind: IndexedValueType.ValueType, *names: str) -> None:
    """Add search attributes as someone else would."""
    asked = AddSearchAttributesRequest(namespace="default", search_attributes=dict.fromkeys(names, kind))
    await client.operator_service.add_search_attributes(asked)


async def test_they_are_registered_once_however_many_processes_start_at_a_time(client: Client) -> None:
    """All of them can be used when it returns, in whichever process."""
    await asyncio.gather(*(register(client) for _ in range(8)))
    assert await registered(client) == dict.fromkeys(NAMES, "KEYWORD")
    assert (await client.count_workflows("MulliganProject = 'shop' AND MulliganOutcome = 'open'")).count == 0
    await register(client)
    assert await registered(client) == dict.fromkeys(NAMES, "KEYWORD")


async def test_what_is_there_already_is_left_alone(client: Client) -> None:
    """Another program's search attributes, and ours when an operator has added some by hand."""
    await add(client, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD, "MulliganStep", "Customer")
    await register(client)
    assert await registered(client) == dict.fromkeys({*NAMES, "Customer"}, "KEYWORD")


async def test_a_name_that_has_another_type_is_said_with_the_command_that_mends_it(client: Client) -> None:
    """The command is run, and then it works."""
    await add(client, IndexedValueType.INDEXED_VALUE_TYPE_TEXT, "MulliganStep")
    with pytest.raises(HostNotReady, match="MulliganStep is TEXT") as caught:
        await register(client)
    await run(caught.value.remedy)
    await register(client)
    assert (await registered(client))["MulliganStep"] == "KEYWORD"


async def test_when_temporal_refuses_the_command_that_an_administrator_runs_is_said(client: Client) -> None:
    """Here there is no room: this database holds ten keywords. The command works when there is."""
    others = [f"Other{number}" for number in range(4)]
    await add(client, IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD, *others)
    with pytest.raises(HostNotReady, match=r"cannot be added: .*more than 10") as caught:
        await register(client)
    command = caught.value.remedy
    remove = command.partition(" --name ")[0].replace(" create ", " remove ")
    await run(" --name ".join([remove, *others]) + " --yes")
    await run(command)
    assert set(await registered(client)) == NAMES
    await register(client)


async def test_a_temporal_that_has_gone_is_not_taken_for_a_refusal(server: TemporalServer, client: Client) -> None:
    """A process that starts goes on trying."""
    server.kill()
    with pytest.raises(Unreachable, match="does not answer"):
        await register(client)


async def run(command: str) -> None:
    """Run a `temporal` command line, which must succeed."""
    program, *words = shlex.split(command)
    assert program == "temporal"
    process = await asyncio.create_subprocess_exec(
        temporal_program(), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, said.decode()
