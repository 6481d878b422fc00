"""What the processes of the race tests do; each opens the inventory for itself, as workers of a deployment do."""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from typing import Any

from sqlalchemy import Engine, event

from mulligan.activities.errors import NeverFits, NotNow, StaleFence
from mulligan.activities.inventory import ClaimRequest, Inventory
from mulligan.activities.values import Kind, Placement, Resources
from tests.inventory.parts import asking


def context() -> ForkServerContext:
    """Processes that start quickly and share nothing with the test's own."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    return made


def outcome_of(inventory: Inventory, request: ClaimRequest) -> tuple[str, str, int]:
    """(claimed, provider, fence), (released, message, 0), or the verdict with the explanation's summary."""
    try:
        made = inventory.claim(request)
    except (NotNow, NeverFits) as error:
        return str(error.explanation.verdict), error.message, 0  # type: ignore[attr-defined]
    except StaleFence as error:
        return "released", error.message, 0
    return "claimed", made.target.name, made.fence


def claim_all(url: str, requests: Sequence[ClaimRequest]) -> list[tuple[str, str, int]]:
    """Make all the claims at once, each in its own thread."""
    inventory = Inventory.open(url)
    together = threading.Barrier(len(requests))

    def one(request: ClaimRequest) -> tuple[str, str, int]:
        together.wait(timeout=60)
        return outcome_of(inventory, request)

    try:
        with ThreadPoolExecutor(len(requests)) as threads:
            return list(threads.map(one, requests))
    finally:
        inventory.close()


def churn(url: str, seed: int, steps: int) -> list[str]:
    """Claim, release, extend and keep at random; gives the ids of the claims that are still live."""
    inventory, chance = Inventory.open(url), random.Random(seed)
    live: list[str] = []
    try:
        for step in range(steps):
            act = chance.choice(("claim", "claim", "release", "extend", "keep", "early-release"))
            if act == "claim":
                request = asking(
                    f"{seed}-{step}",
                    resources=Resources(chance.randint(1, 3), chance.choice((0, 1024)), chance.choice((0, 5))),
                    kind=chance.choice(list(Kind)),
                    placement=chance.choice(list(Placement)),
                )
                if outcome_of(inventory, request)[0] == "claimed":
                    live.append(request.claim_id)
            elif act == "early-release":
                inventory.release_claim(f"{seed}-{chance.randint(step, steps)}")
            elif live and act == "release":
                inventory.release_claim(live.pop(chance.randrange(len(live))))
            elif live and act == "extend":
                inventory.extend_lease(chance.choice(live), 600)
            elif live:
                inventory.make_permanent(chance.choice(live))
    finally:
        inventory.close()
    return live


def fight(url: str, claim_id: str, act: str) -> str:
    """Claim or release the same id as others do at the same time."""
    inventory = Inventory.open(url)
    try:
        if act == "claim":
            return outcome_of(inventory, asking(claim_id))[0]
        inventory.release_claim(claim_id)
        return act
    finally:
        inventory.close()


def stop_at(pipe: Connection, url: str, claim_id: str, act: str, statement: int) -> None:
    """Do the act, but stand still after so many statements of its transaction; says `stopped` or `done`."""
    inventory = Inventory.open(url)
    count = 0

    def executed(connection: Any, *details: Any) -> None:
        nonlocal count
        if connection.get_execution_options().get("writes"):
            count += 1
            if count == statement:
                pipe.send("stopped")
                threading.Event().wait()

    event.listen(Engine, "after_cursor_execute", executed)
    fight_with = {
        "claim": lambda: inventory.claim(asking(claim_id)),
        "release": lambda: inventory.release_claim(claim_id),
    }
    fight_with[act]()
    pipe.send("done")
