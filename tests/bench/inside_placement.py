"""Runs in Placement's own environment: its application, called over WSGI within this process, told what to do.

Each line on standard input is a JSON object, `do` and its arguments; each gives one line of JSON on standard output.
Started by `placement.py`; OS_PLACEMENT_CONFIG_DIR names the directory of its configuration.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from typing import Any
from urllib.parse import urlencode

from placement.wsgi import init_application
from webob import Request

_HEADERS = {"x-auth-token": "admin", "OpenStack-API-Version": "placement 1.39", "Accept": "application/json"}
_PROJECT = _USER = "00000000-0000-0000-0000-000000000001"


class Placement:
    """The application, and what the benchmark asks of it."""

    def __init__(self) -> None:
        self._application = init_application()

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        request = Request.blank(path, method=method, headers=_HEADERS)
        if body is not None:
            request.content_type = "application/json"
            request.body = json.dumps(body).encode()
        response = request.get_response(self._application)
        return response.status_code, response.json if response.body else None

    def register(self, name: str, inventories: dict[str, int], traits: list[str]) -> dict[str, Any]:
        """Register one resource provider, as its users do."""
        for resource in (name for name in inventories if name.startswith("CUSTOM_")):
            self._must("PUT", f"/resource_classes/{resource}")
        for trait in traits:
            self._must("PUT", f"/traits/{trait}")
        provider = self._must("POST", "/resource_providers", {"name": name})
        path, generation = f"/resource_providers/{provider['uuid']}", provider["generation"]
        amounts = {resource: {"total": total} for resource, total in inventories.items()}
        told = self._must(
            "PUT", f"{path}/inventories", {"resource_provider_generation": generation, "inventories": amounts}
        )
        generation = told["resource_provider_generation"]
        self._must("PUT", f"{path}/traits", {"resource_provider_generation": generation, "traits": traits})
        return {"uuid": provider["uuid"]}

    def look(self, query: dict[str, Any], times: int) -> dict[str, Any]:
        """Ask for candidates so often; how long each answer took, and how many candidates the last had."""
        took, found = [], 0
        for _ in range(times):
            began = time.perf_counter()
            found = len(self._candidates(query))
            took.append(time.perf_counter() - began)
        return {"seconds": took, "found": found}

    def claim(self, query: dict[str, Any], start: float, seconds: float) -> dict[str, Any]:
        """Claim for so many seconds: ask for candidates, then write an allocation to one of them."""
        time.sleep(max(0.0, start - time.time()))
        began, took, lost = time.time(), [], 0
        while time.time() < start + seconds:
            one = time.perf_counter()
            if self._allocate(self._candidates(query)):
                took.append(time.perf_counter() - one)
            else:
                lost += 1
        return {"began": began, "ended": time.time(), "seconds": took, "lost": lost}

    def _candidates(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._must("GET", f"/allocation_candidates?{urlencode(query)}")[
            "allocation_requests"
        ]
        return found

    def _allocate(self, candidates: list[dict[str, Any]]) -> bool:
        """Write to one candidate after the other until it is accepted: others may have been there before."""
        consumer = {"project_id": _PROJECT, "user_id": _USER, "consumer_generation": None, "consumer_type": "INSTANCE"}
        for candidate in random.sample(candidates, len(candidates)):
            body = {**consumer, "allocations": candidate["allocations"]}
            status, said = self._call("PUT", f"/allocations/{uuid.uuid4()}", body)
            if status == 204:
                return True
            if status != 409:
                raise RuntimeError(f"Placement answered {status} to an allocation: {said}")
        return False

    def _must(self, method: str, path: str, body: object = None) -> Any:
        status, said = self._call(method, path, body)
        if status >= 300:
            raise RuntimeError(f"Placement answered {status} to {method} {path}: {said}")
        return said


def main() -> None:
    """Do what is told until the input ends."""
    placement = Placement()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        told = json.loads(line)
        print(json.dumps(getattr(placement, told.pop("do"))(**told)), flush=True)


if __name__ == "__main__":
    main()
