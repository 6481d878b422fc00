"""How many claims a second, how long the search and an explanation take, and that nothing is claimed twice."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psycopg
from sqlalchemy import make_url

from mulligan.activities.inventory import Inventory
from mulligan.activities.inventory.claiming import _CANDIDATES
from mulligan.activities.inventory.database import Database
from mulligan.activities.inventory.search import candidates
from tests.bench import claimants
from tests.bench.fleet import asking, asking_too_much, fill, servers
from tests.bench.peers import PLACEMENT, NoPeerError, have_part
from tests.bench.placement import ASKS, allocated, running_placement
from tests.bench.results import Reach, Result, percentile
from tests.services.postgres import running_postgres

FLOOR = (
    "for claims, transactions that update one row, by as many processes; for times, the next smaller inventory, than "
    "which they shall grow by less than the number of providers does; `beside Placement`: Placement on the same server"
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    providers: tuple[int, ...]
    workers: tuple[int, ...]
    seconds: float
    looks: int
    gather: float
    """Seconds for the processes to be ready to begin together."""
    beside: int
    """With so many providers Placement is measured too."""
    beside_seconds: float


QUICK = Size((100, 1_000), (1, 2), 0.3, 3, 0.2, beside=100, beside_seconds=0.3)
FULL = Size((100, 10_000, 100_000), (1, 16), 2.0, 5, 1.0, beside=10_000, beside_seconds=4.0)


def measure(quick: bool) -> Result:
    """Run the benchmark."""
    result = Result("claims", FLOOR)
    size = QUICK if quick else FULL
    beside = size.beside if have_part(quick) else 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.bench.claimants"])
    with (
        tempfile.TemporaryDirectory() as directory,
        running_postgres(Path(directory)) as server,
        ProcessPoolExecutor(max(size.workers), context) as pool,
    ):
        bench = Bench(result, size, pool)
        for count in size.providers:
            with _databases(Path(directory), server, count) as urls:
                claimed = bench.measure(urls, count)
                if count == beside:
                    claimed["PostgreSQL"] += beside_placement(bench, Path(directory), server, urls["PostgreSQL"], count)
                bench.check(urls, count, claimed)
    if not beside:
        result.notes.append(f"the peer, {PLACEMENT}, has no part in the quick run (PEERS=1 installs it)")
    result.notes.append("PostgreSQL runs without fsync here, and SQLite with it: compare each with its own floor only")
    return result


@contextmanager
def _databases(directory: Path, server: str, count: int) -> Iterator[dict[str, str]]:
    """A new database of each kind with so many providers, by the name of its kind."""
    url, name = make_url(server), f"bench_{count}"
    with psycopg.connect(
        f"host={url.query['host']} user={url.username} dbname=postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    postgres = url.set(database=name).render_as_string(hide_password=False)
    urls = {"SQLite": f"sqlite:///{directory}/{name}.db", "PostgreSQL": postgres}
    for each in urls.values():
        fill(each, count)
    yield urls


class Bench:
    """Measures one inventory after the other, and remembers the times of the smaller ones."""

    def __init__(self, result: Result, size: Size, pool: ProcessPoolExecutor) -> None:
        self.result, self.size, self._pool = result, size, pool
        self._times: dict[tuple[str, str, int], float] = {}

    def measure(self, urls: dict[str, str], count: int) -> dict[str, int]:
        """All figures of inventories of this size; how many claims were made of each."""
        claimed = dict.fromkeys(urls, 0)
        for kind, url in urls.items():
            self._look(kind, url, count)
            claimed[kind] += sum(self._together(max(self.size.workers), claimants.prepare, url))
        for workers in self.size.workers:
            for kind, url in urls.items():
                claimed[kind] += self._claim(kind, url, count, workers)
        for kind, url in urls.items():
            claimed[kind] += self._claim(kind, url, count, max(self.size.workers), hot=True)
        return claimed

    def check(self, urls: dict[str, str], count: int, claimed: dict[str, int]) -> None:
        """Nothing was claimed twice, on any of them."""
        for kind, url in urls.items():
            self._check(kind, url, count, claimed[kind])

    def _look(self, kind: str, url: str, count: int) -> None:
        """How long a search and an explanation take."""
        database, inventory = Database(url), Inventory.open(url)

        def search() -> None:
            with database.read() as connection:
                assert len(candidates(connection, asking("search"), _CANDIDATES)) > 1

        with closing(database), closing(inventory):
            for what, work in (("search", search), ("explain", lambda: inventory.explain(asking_too_much()))):
                self._times[kind, what, count] = 1000 * median(_seconds(work) for _ in range(self.size.looks))
                before = max((size for size in self.size.providers if size < count), default=count)
                smaller = self._times[kind, what, before] if before < count else None
                reach = (Reach(count / before, "ratio"),) if smaller and what == "search" else ()
                name = f"{what}, {count:,} providers, {kind}"
                self.result.add(name, self._times[kind, what, count], "ms", smaller, *reach)

    def claim(self, url: str, workers: int, seconds: float, hot: bool = False) -> list[claimants.Worked]:
        """Let so many processes claim."""
        return self._together(workers, claimants.claim, url, seconds, hot)

    def _claim(self, kind: str, url: str, count: int, workers: int, hot: bool = False) -> int:
        """How many claims a second; how many were made."""
        floor = self._together(workers, claimants.commit, url, self.size.seconds)
        done = self.claim(url, workers, self.size.seconds, hot)
        who = f"{workers} worker{'s' if workers > 1 else ''}, {'one hot host, ' if hot else ''}{kind}"
        name = f"claims, {count:,} providers, {who}"
        self.result.add(name, rate(done), "claims/s", rate(floor))
        took = [seconds for each in done for seconds in each.seconds]
        if took:
            self.result.add("  99th percentile of one", 1000 * percentile(took, 99), "ms")
        lost = sum(each.lost for each in done)
        if lost:
            self.result.notes.append(f"{name}: {lost} lost every race and would be tried again, {len(took)} did not")
        return len(took)

    def _check(self, kind: str, url: str, count: int, claimed: int) -> None:
        """Nothing was claimed twice: let all race for the whole servers, then add everything up."""
        contested = count == self.size.providers[0]
        taken: list[str] = []
        if contested:
            taken = [name for each in self._together(max(self.size.workers), claimants.exhaust, url) for name in each]
            self.result.require(len(set(taken)) == len(taken), f"{kind}: servers were claimed twice: {sorted(taken)}")
            want = servers(count)
            self.result.require(len(taken) == want, f"{kind}: {len(taken)} of {want} servers could be claimed")
        with closing(Inventory.open(url)) as inventory:
            drifts, live = inventory.audit(), len(inventory.claims())
        where = f"{kind}, {count:,} providers"
        self.result.require(not drifts, f"{where}: the claims do not add up: {drifts[:3]}")
        made = claimed + len(taken)
        self.result.require(live == made, f"{where}: {made} claims were made, {live} are there")

    def refuse(self, url: str, count: int, theirs: list[float]) -> None:
        """How long the explanation of a failure takes, beside a refusal that gives no reason."""
        with closing(Inventory.open(url)) as inventory:
            took = median(_seconds(lambda: inventory.explain(asking_too_much())) for _ in theirs)
        name = f"explain, {count:,} providers, PostgreSQL, beside Placement, which says nothing"
        self.result.add(name, 1000 * took, "ms", 1000 * median(theirs))

    def _together(self, workers: int, work: Callable[..., T], url: str, *arguments: Any) -> list[T]:
        """Let so many processes do the same, beginning at the same time."""
        start = time.time() + self.size.gather
        futures = [self._pool.submit(work, url, start, *arguments) for _ in range(workers)]
        return [future.result(timeout=120) for future in futures]


def beside_placement(bench: Bench, directory: Path, server: str, url: str, count: int) -> int:
    """The same with Placement on the same server, in turn; how many claims of ours were made."""
    ours, workers = 0, max(bench.size.workers)
    try:
        with running_placement(directory / "placement", server, count, workers) as placement:
            for hot in (False, True):
                done = bench.claim(url, workers, bench.size.beside_seconds, hot)
                theirs = placement.claim(workers, bench.size.gather, bench.size.beside_seconds, hot=hot)
                ours += sum(len(each.seconds) for each in done)
                what = f"{workers} workers{', one hot host' if hot else ''}"
                reach = (Reach(5, "ratio", at_most=False),) if count >= FULL.beside and not hot else ()
                name = f"claims, {count:,} providers, {what}, PostgreSQL, beside Placement"
                bench.result.add(name, rate(done), "claims/s", rate(theirs), *reach)
            bench.refuse(url, count, placement.refuse(bench.size.looks))
            bench.result.require(allocated(server, count) == placement.made, "Placement does not hold what it accepted")
    except NoPeerError as error:
        bench.result.notes.append(f"without the peer: {error}")
    else:
        bench.result.notes.append(f"beside Placement: {PLACEMENT}; {ASKS}")
    return ours


def rate(worked: list[claimants.Worked]) -> float:
    """How many claims a second they made together."""
    seconds = max(each.ended for each in worked) - min(each.began for each in worked)
    return sum(len(each.seconds) for each in worked) / seconds


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
