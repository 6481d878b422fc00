"""The sandbox in which workflows run: what passes through it, and what it is not asked for."""

from __future__ import annotations

from typing import Any

from temporalio.converter import StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import Info

PASSED_THROUGH = (
    "mulligan.activities.values",
    "mulligan.activities.bmc_health",
    "mulligan.activities.calls",
    "mulligan.activities.errors",
    "mulligan.activities.events",
    "mulligan.activities.history",
    "mulligan.activities.home_evidence",
    "mulligan.activities.levers",
    "mulligan.activities.planning",
    "mulligan.activities.story",
    "mulligan.workflows",
    "pydantic",
    "google.protobuf",
    "temporalio",
)
"""Modules without state that workflows may share with their worker, so that no run needs to load them again: that was a
tenth of the worker's time. That workflow code asks no clock and no dice of its own is tested: histories are replayed in
Temporal's sandbox with only values and calls of this list, where every run loads it anew and such a question fails.

A name covers its submodules too. Pydantic looks up a type's module by name when it first reads the type: one that is
neither covered nor imported by a workflow itself is not found, and its types are "not fully defined".
"""


class _WithoutContext(WorkflowInstance):
    """A run in its sandbox, which is not asked for the context of what is converted.

    Temporal's worker asks for it several times for each payload that goes in or out, and each time a text is compiled
    and executed in the sandbox: a sixth of the worker's time. It is for converters, codecs and outside storage that
    treat runs differently. There are none here.
    """

    def __init__(self, inner: WorkflowInstance) -> None:
        self._inner = inner

    def activate(self, act: Any) -> Any:
        """Do what is due in the run."""
        return self._inner.activate(act)

    def get_serialization_context(self, command_info: Any) -> None:
        """None: all runs are converted in the same way."""

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        """No target: nothing is stored outside."""
        return StorageDriverStoreContext(target=None)

    def get_info(self) -> Info:
        """What Temporal knows of the run."""
        return self._inner.get_info()

    def get_thread_id(self) -> int | None:
        """The thread that is in the run now."""
        return self._inner.get_thread_id()


class _Sandbox(SandboxedWorkflowRunner):
    """Temporal's sandbox, with runs that are not asked for contexts."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """A run in a sandbox of its own."""
        return _WithoutContext(super().create_instance(det))


def workflow_runner() -> SandboxedWorkflowRunner:
    """The sandbox in which workflows run."""
    return _Sandbox(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH))
