"""Looking at running processes from outside: what they use, and what Temporal says that it was asked for."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping

import psutil
from temporalio.api.workflowservice.v1.request_response_pb2 import GetClusterInfoRequest
from temporalio.client import Client

_FLUSH_SECONDS = 15.0
_POLL_SECONDS = 0.05
_MARK = "GetClusterInfo"
"""A call that nobody else makes."""
_REQUESTS = re.compile(
    r'^service_requests\{namespace="(?P<namespace>[^"]*)",operation="(?P<operation>[^"]*)",service_name="frontend"\} '
    r"(?P<count>\S+)$",
    re.MULTILINE,
)


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """The processor time that each process has used so far, user and system."""
    return {name: sum(psutil.Process(pid).cpu_times()[:2]) for name, pid in pids.items()}


def memory_mib(pid: int) -> float:
    """The process's proportional set size in MiB: pages shared with others are counted in part."""
    return float(psutil.Process(pid).memory_full_info().pss) / 2**20


class TemporalCalls:
    """Counts the calls to a Temporal server's frontend, by its own metrics."""

    def __init__(self, client: Client, pid: int) -> None:
        self._client, self._pid = client, pid
        self._url = ""

    async def so_far(self) -> Counter[str]:
        """How often each operation was called in the namespace, all calls before this one included."""
        before = (await self._read())[_MARK]
        await self._client.workflow_service.get_cluster_info(GetClusterInfoRequest())
        end = time.monotonic() + _FLUSH_SECONDS
        while True:
            counts = await self._read()
            if counts[_MARK] > before:
                del counts[_MARK]
                return counts
            assert time.monotonic() < end, f"Temporal's metrics at {self._url} do not show a call that was made"
            await asyncio.sleep(_POLL_SECONDS)

    async def _read(self) -> Counter[str]:
        text = await asyncio.to_thread(self._scrape)
        counts: Counter[str] = Counter()
        for found in _REQUESTS.finditer(text):
            if found["namespace"] == self._client.namespace or found["operation"] == _MARK:
                counts[found["operation"]] += int(float(found["count"]))
        return counts

    def _scrape(self) -> str:
        if not self._url:
            self._url = self._find()
        with urllib.request.urlopen(self._url, timeout=5) as answer:
            text: str = answer.read().decode()
        return text

    def _find(self) -> str:
        """The development server serves its metrics on a free port and does not say which."""
        for connection in psutil.Process(self._pid).net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN:
                continue
            url = f"http://127.0.0.1:{connection.laddr.port}/metrics"
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    if b"service_requests{" in answer.read():
                        return url
            except (urllib.error.URLError, OSError):  # another of its ports
                continue
        raise AssertionError(f"no port of Temporal's process {self._pid} serves its metrics")
