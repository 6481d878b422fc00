"""OpenStack's Placement as the peer of claims: as many providers on the same PostgreSQL, as many processes that claim.

A claim is its query for candidates and its write of an allocation. Its processes call its application over WSGI within
themselves, so that no HTTP server and no connection is between, as none is between ours and the inventory.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import psycopg
from sqlalchemy import URL, make_url

from mulligan.activities.inventory import ClaimRequest
from mulligan.activities.values import Kind
from tests.bench.claimants import Worked
from tests.bench.fleet import HOT, HOT_CAPABILITIES, HOT_SIZES, MODELS, asking, asking_hot, asking_too_much, shares
from tests.bench.peers import PLACEMENT, NoPeerError, tied

_START_SECONDS = 120
_ANSWER_SECONDS = 300
_CANDIDATES = 32
"""As many as our search looks for. By its default there would be no limit."""
ASKS = (
    f"a claim is its query for {_CANDIDATES} candidates and its write of an allocation, called over WSGI within its "
    f"processes, with max_allocation_candidates = {_CANDIDATES}; a server is one unit of a resource class of its own"
)
_NAMES = {"vcpu": "VCPU", "memory_mib": "MEMORY_MB", "disk_gib": "DISK_GB"}
_CONFIGURATION = """\
[DEFAULT]
log_file = {directory}/placement.log
[api]
auth_strategy = noauth2
[placement]
max_allocation_candidates = {candidates}
[placement_database]
connection = {url}
"""


class Placement:
    """Placement's processes, each told what to do by lines."""

    def __init__(self, programs: list[subprocess.Popen[str]], hot: str) -> None:
        self._programs, self._hot = programs, hot
        self.made = 0
        """How many claims it has accepted."""

    def claim(self, workers: int, gather: float, seconds: float, *, hot: bool = False) -> list[Worked]:
        """Claim with so many processes for so many seconds; with `hot`, all of the same provider."""
        query = _query(asking_hot("")) | {"in_tree": self._hot} if hot else _query(asking(""))
        words = {"do": "claim", "query": query, "start": time.time() + gather, "seconds": seconds}
        done = [Worked(**answer) for answer in _tell(self._programs[:workers], words)]
        self.made += sum(len(each.seconds) for each in done)
        return done

    def refuse(self, times: int) -> list[float]:
        """The seconds of each answer to a query that nothing can meet. It says that there is nothing, and not why."""
        (answer,) = _tell(self._programs[:1], {"do": "look", "query": _query(asking_too_much()), "times": times})
        if answer["found"]:
            raise NoPeerError(f"{PLACEMENT} found {answer['found']} candidates where there are none")
        seconds: list[float] = answer["seconds"]
        return seconds


@contextmanager
def running_placement(directory: Path, server: str, count: int, workers: int) -> Iterator[Placement]:
    """Run so many processes of Placement on a new database of the server, with so many providers."""
    python = PLACEMENT.environment() / "bin/python"
    directory.mkdir()
    database = _database(server, f"placement_{count}")
    url = f"postgresql+psycopg2://{database.username}@/{database.database}?host={database.query['host']}"
    configuration = directory / "placement.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, url=url, candidates=_CANDIDATES))
    environment = {**os.environ, "OS_PLACEMENT_CONFIG_DIR": str(directory)}
    sync = [str(python.parent / "placement-manage"), "--config-file", str(configuration), "db", "sync"]
    done = subprocess.run(sync, capture_output=True, text=True, check=False, timeout=_START_SECONDS)
    if done.returncode:
        raise NoPeerError(f"{PLACEMENT} could not make its tables: {done.stderr[-500:]}")
    program = [str(python), "-P", str(Path(__file__).parent / "inside_placement.py")]
    with ExitStack() as stack, (directory / "stderr.log").open("w") as log:
        programs = [
            stack.enter_context(tied(program, output=log, environment=environment, told=True)) for _ in range(workers)
        ]
        for each in programs:
            _answer(each)
        yield Placement(programs, _fill(programs[0], database, count))


def allocated(server: str, count: int) -> int:
    """How many claims its database of so many providers holds."""
    with _connected(server, f"placement_{count}") as connection:
        row = connection.execute("SELECT count(DISTINCT consumer_id) FROM allocations").fetchone()
        assert row is not None
        return int(row[0])


def _database(server: str, name: str) -> URL:
    with _connected(server, "postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return make_url(server).set(database=name)


def _connected(server: str, name: str) -> psycopg.Connection[Any]:
    url = make_url(server)
    return psycopg.connect(f"host={url.query['host']} user={url.username} dbname={name}", autocommit=True)


def _fill(program: subprocess.Popen[str], database: URL, count: int) -> str:
    """Register one provider of each model by the API, and copy it in the database; the id of the hot one."""
    with _connected(database.render_as_string(hide_password=False), str(database.database)) as connection:
        for model in MODELS:
            sizes = model.sizes if model.kind is Kind.VIRTUAL else None
            _register(program, f"{model.name}-0", sizes, model.capabilities)
            for statement in _COPY:
                connection.execute(statement, {"first": f"{model.name}-0", "last": shares(count)[model.name] - 1})
        hot = _register(program, HOT, HOT_SIZES, HOT_CAPABILITIES)
        connection.execute("ANALYZE")
    return hot


def _register(
    program: subprocess.Popen[str], name: str, sizes: tuple[int, int, int] | None, capabilities: tuple[str, ...]
) -> str:
    """Register a provider; its id. What is given whole is, there, one unit of a resource class of its own."""
    amounts = dict(zip(_NAMES.values(), sizes, strict=True)) if sizes else {"CUSTOM_SERVER": 1}
    words = {"do": "register", "name": name, "inventories": amounts, "traits": [_trait(each) for each in capabilities]}
    (made,) = _tell([program], words)
    return str(made["uuid"])


_COPY = (
    """INSERT INTO resource_providers (uuid, name, generation, root_provider_id)
       SELECT gen_random_uuid()::text, left(name, -1) || n, generation, id
       FROM resource_providers, generate_series(1, %(last)s) AS n WHERE name = %(first)s""",
    """INSERT INTO inventories (resource_provider_id, resource_class_id, total, reserved, min_unit, max_unit, step_size,
         allocation_ratio)
       SELECT its.id, resource_class_id, total, reserved, min_unit, max_unit, step_size, allocation_ratio
       FROM resource_providers AS its JOIN resource_providers AS first ON its.root_provider_id = first.id
       JOIN inventories ON resource_provider_id = first.id WHERE first.name = %(first)s AND its.id <> first.id""",
    """INSERT INTO resource_provider_traits (trait_id, resource_provider_id)
       SELECT trait_id, its.id
       FROM resource_providers AS its JOIN resource_providers AS first ON its.root_provider_id = first.id
       JOIN resource_provider_traits ON resource_provider_id = first.id
       WHERE first.name = %(first)s AND its.id <> first.id""",
    "UPDATE resource_providers SET root_provider_id = id WHERE root_provider_id <> id",
)


def _trait(capability: str) -> str:
    return "CUSTOM_" + capability.upper().replace(".", "_").replace("-", "_")


def _query(request: ClaimRequest) -> dict[str, Any]:
    resources = ",".join(f"{_NAMES[name]}:{amount}" for name, amount in request.resources.rows())
    required = ",".join(_trait(name) for name in request.requires)
    return {"resources": resources, "limit": _CANDIDATES} | ({"required": required} if required else {})


def _tell(programs: list[subprocess.Popen[str]], words: dict[str, Any]) -> list[Any]:
    for each in programs:
        stdin: IO[str] = each.stdin  # type: ignore[assignment]
        stdin.write(json.dumps(words) + "\n")
        stdin.flush()
    return [_answer(each) for each in programs]


def _answer(program: subprocess.Popen[str]) -> Any:
    stdout: IO[str] = program.stdout  # type: ignore[assignment]
    if not select.select([stdout], [], [], _ANSWER_SECONDS)[0]:
        raise NoPeerError(f"{PLACEMENT} gave no answer for {_ANSWER_SECONDS} seconds")
    line = stdout.readline()
    if not line:
        raise NoPeerError(f"{PLACEMENT} ended with status {program.wait()}")
    return json.loads(line)
