"""A scripted API with runs in flight and providers, whose story goes on as the test tells it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
from google.rpc import code_pb2

from mulligan.v1 import inventory_pb2, provisioning_pb2, run_pb2
from tests.cli.scripted import ScriptedApi, event, refuse

LEVERS = ("RetryRunNow", "HoldRun", "ResumeRun", "ExtendRun", "TakeMulligan", "AbortRun")


def a_run(machine: str, kind: str = "provision", run_id: str = "one", age: float = 60) -> run_pb2.Run:
    """A run in flight that began so many seconds ago."""
    run = run_pb2.Run(
        workflow_id=f"{kind}:default:{machine}",
        run_id=run_id,
        kind=run_pb2.RunKind.Value(f"RUN_KIND_{kind.upper()}"),
        project="default",
        machine=machine,
        outcome=run_pb2.RUN_OUTCOME_OPEN,
    )
    run.started_at.seconds = int(time.time() - age)
    return run


def a_provider(name: str, used: int = 4, **more: Any) -> inventory_pb2.Provider:
    """A hypervisor with 16 vcpu, of which so many are claimed."""
    return inventory_pb2.Provider(
        name=name,
        partition="default",
        kind=inventory_pb2.PROVIDER_KIND_HYPERVISOR,
        inventory=[
            inventory_pb2.InventoryRow(resource="vcpu", total=16, overcommit_percent=100, used=used),
            inventory_pb2.InventoryRow(resource="memory_mib", total=65536, overcommit_percent=100, used=used * 1536),
            inventory_pb2.InventoryRow(resource="disk_gib", total=500, overcommit_percent=100, used=used * 20),
        ],
        **{"enabled": True, **more},
    )


class Fleet:
    """Answers for the API what `mulligan top` asks. Tell it of runs; every stream of them then says so."""

    def __init__(self, api: ScriptedApi) -> None:
        self._changed = threading.Condition()
        self.runs: dict[tuple[str, str], run_pb2.Run] = {}
        self.updates: dict[tuple[str, str], list[run_pb2.RunUpdate]] = {}
        self.providers: list[inventory_pb2.Provider] = []
        self.streams = 0
        """How many watch a run now."""
        api.handlers |= {
            "ListRuns": self._list,
            "ListProviders": self._list_providers,
            "WatchRun": self._watch,
            "GetRun": self._get,
            "CancelRun": self._cancel,
            "RetryRun": lambda request, context: provisioning_pb2.RetryRunResponse(
                run=run_pb2.Run(workflow_id=request.workflow_id, run_id="again")
            ),
        }
        api.handlers |= {method: self._lever(method) for method in LEVERS}

    def add(self, run: run_pb2.Run, *updates: run_pb2.RunUpdate) -> run_pb2.Run:
        """A run, and what it has told so far."""
        self.runs[run.workflow_id, run.run_id] = run
        self.tell(run, *updates)
        return run

    def tell(self, run: run_pb2.Run, *updates: run_pb2.RunUpdate) -> None:
        """The run goes on; its events happen so many seconds after its beginning as their cursors say."""
        for update in updates:
            if update.HasField("event"):
                update.event.at.seconds = run.started_at.seconds + int(update.event.cursor)
        with self._changed:
            self.updates.setdefault((run.workflow_id, run.run_id), []).extend(updates)
            self._changed.notify_all()

    def end(self, run: run_pb2.Run, outcome: str, message: str, **more: Any) -> None:
        """The run ends."""
        number = run_pb2.RunOutcome.Value(f"RUN_OUTCOME_{outcome}")
        run.outcome = number
        run.ended_at.GetCurrentTime()
        self.tell(run, event(90, "RUN_FINISHED", message=message, outcome=number, **more))

    def _list(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for run in reversed(self.runs.values()):
            if request.outcome in (run.outcome, run_pb2.RUN_OUTCOME_UNSPECIFIED):
                yield provisioning_pb2.ListRunsResponse(run=run)

    def _list_providers(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for each in self.providers:
            yield inventory_pb2.ListProvidersResponse(provider=each)

    def _get(self, request: Any, context: grpc.ServicerContext) -> provisioning_pb2.GetRunResponse:
        key = request.workflow_id, request.run_id
        if key not in self.runs:
            refuse(context, code_pb2.NOT_FOUND, f"no run {request.workflow_id}")
        told = self.updates[key]
        events = [each.event for each in told if each.HasField("event")]
        return provisioning_pb2.GetRunResponse(run=self.runs[key], events=events)

    def _watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        key, sent, ended = (request.workflow_id, request.run_id), 0, False
        context.add_callback(self._left)
        self.streams += 1
        yield provisioning_pb2.WatchRunResponse(update=run_pb2.RunUpdate(run=self.runs[key]))
        while not ended and context.is_active():
            told = self._after(key, sent, context)
            sent += len(told)
            for update in told:
                if not (
                    update.HasField("event") and request.cursor and int(update.event.cursor) <= int(request.cursor)
                ):
                    yield provisioning_pb2.WatchRunResponse(update=update)
                ended = ended or update.event.kind == run_pb2.RUN_EVENT_KIND_RUN_FINISHED

    def _after(self, key: tuple[str, str], sent: int, context: grpc.ServicerContext) -> list[run_pb2.RunUpdate]:
        """What the run told after so many updates; waits for more where there is none, while someone listens."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.updates[key]) > sent or not context.is_active(), 60)
            return self.updates[key][sent:]

    def _left(self) -> None:
        with self._changed:
            self.streams -= 1
            self._changed.notify_all()

    def _cancel(self, request: Any, context: grpc.ServicerContext) -> provisioning_pb2.CancelRunResponse:
        undo = [provisioning_pb2.UndoAction(action=each) for each in ("tear-down", "remove-disks", "release-claim")]
        return provisioning_pb2.CancelRunResponse(run=self.runs[request.workflow_id, request.run_id], undo=undo)

    def _lever(self, method: str) -> Any:
        def pulled(request: Any, context: grpc.ServicerContext) -> Any:
            answer = provisioning_pb2.LeverAnswer(said=f"{method} was taken up")
            return getattr(provisioning_pb2, f"{method}Response")(answer=answer)

        return pulled


def booting(fleet: Fleet, machine: str, provider: str = "hyp-1", age: float = 60) -> run_pb2.Run:
    """A run whose boot is in progress on this provider."""
    where = {"provider": provider}
    return fleet.add(
        a_run(machine, age=age),
        event(1, "RUN_STARTED"),
        event(2, "ACTION_STARTED", "claim", "claim"),
        event(3, "ACTION_FINISHED", "claim", "claim", f"claimed {provider}", attempts=1, **where),
        event(4, "ACTION_STARTED", "image", "place-disks", **where),
        event(5, "ACTION_FINISHED", "image", "place-disks", "the disk is there", attempts=1, **where),
        event(6, "ACTION_STARTED", "boot", "boot", "defining and switching on", **where),
    )
