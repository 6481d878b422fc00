"""Capsules: all that is known of a run, gathered into one file that can be read and replayed anywhere."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import temporalio.service
from google.protobuf.json_format import MessageToDict
from pydantic import TypeAdapter, ValidationError
from temporalio.api.common.v1 import Payloads
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import History, HistoryEvent
from temporalio.api.workflowservice.v1 import GetSystemInfoRequest
from temporalio.client import Client, WorkflowHistory

from mulligan.activities.events import RunEvent
from mulligan.activities.history import innermost
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.story import fold, parse_action_id
from mulligan.activities.threads import run_blocking
from mulligan.activities.translate import VERBS_DETAIL
from mulligan.activities.values import Verb
from mulligan.api.capsule_file import FORMAT, VERSION, Capsule, Run, Said, pack
from mulligan.api.convert_runs import RunView
from mulligan.api.redaction import redact
from mulligan.api.runs import Runs

_VERBS = TypeAdapter(tuple[Verb, ...])


class Capsules:
    """Makes capsules of runs, wherever they are: in Temporal, or kept in the database."""

    def __init__(self, client: Client, runs: Runs, lease_seconds: int) -> None:
        self._client, self._runs, self._lease_seconds = client, runs, lease_seconds

    async def export(self, workflow_id: str, run_id: str = "") -> bytes:
        """The file's bytes. Without a run id the newest run of the workflow id. Raises `NotFound`."""
        found = await self._runs.find(workflow_id, run_id)
        view = found.view
        machine = await self._runs.machine(view.machine_id) if view.machine_id else None
        history: WorkflowHistory | None = None
        kept: list[RunEvent] = []
        if found.description is not None:
            history = await self._runs.handle(view.workflow_id, view.run_id).fetch_history()
        else:
            kept = await self._runs.story(found)
        known = {"versions": await self.versions(), "configuration": configuration(machine, self._lease_seconds)}
        return await run_blocking(lambda: pack(capsule_of(view, history=history, kept=kept, **known)))

    async def versions(self) -> dict[str, str]:
        """Of everything that a replay may depend on."""
        server = await self._client.workflow_service.get_system_info(GetSystemInfoRequest(), retry=True)
        return {
            "mulligan": version("mulligan"),
            "temporalio": temporalio.service.__version__,
            "python": platform.python_version(),
            "temporal-server": server.server_version,
        }


def capsule_of(
    view: RunView,
    *,
    history: WorkflowHistory | None,
    kept: Sequence[RunEvent] = (),
    versions: Mapping[str, str],
    configuration: Mapping[str, Any],
) -> Capsule:
    """The capsule of a run with its history, or with the story that was kept of it. Nothing in it is secret."""
    clean = History(events=history.events) if history is not None else None
    if clean is not None:
        redact(clean)
    events = tuple(fold(iter(clean.events))) if clean is not None else tuple(kept)
    run = Run(**{name: getattr(view, name) for name in Run.__dataclass_fields__} | {"kind": view.kind.value})
    return Capsule(
        format=FORMAT,
        version=VERSION,
        exported_at=datetime.now(UTC),
        run=run,
        events=events,
        evidence=tuple(dict.fromkeys(one for event in events for one in event.evidence)),
        transcript=tuple(transcript_of(clean.events)) if clean is not None else (),
        versions=versions,
        configuration=configuration,
        history=MessageToDict(clean) if clean is not None else None,
    )


def configuration(machine: Machine | None, lease_seconds: int) -> dict[str, Any]:
    """What bounds a run: numbers and policies, taken one by one, so that no secret can slip in."""
    found: dict[str, Any] = {"lease_seconds": lease_seconds}
    if machine is not None:
        request = machine.request
        found |= {
            "deadlines": asdict(request.deadlines),
            "mulligans": request.mulligans,
            "on_failure": request.on_failure,
            "when_none": request.when_none,
            "verify": request.verify,
            "priority": request.priority,
        }
    return found


def transcript_of(events: Sequence[HistoryEvent]) -> Iterator[Said]:
    """What the actions of a history asked of their drivers."""
    actions: dict[int, str] = {}
    attempts: dict[int, int] = {}
    for event in events:
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = event.activity_task_scheduled_event_attributes
            if parse_action_id(scheduled.activity_id) is not None:
                actions[event.event_id] = scheduled.activity_id
        elif event.HasField("activity_task_started_event_attributes"):
            started = event.activity_task_started_event_attributes
            attempts[started.scheduled_event_id] = started.attempt
            if verbs := _of_failure(started.last_failure):
                yield Said(actions.get(started.scheduled_event_id, ""), verbs, 0, event.event_id)
        elif (ended := _ended(event)) is not None and ended[0] in actions and ended[1]:
            yield Said(actions[ended[0]], ended[1], attempts.get(ended[0], 0), event.event_id)


def _ended(event: HistoryEvent) -> tuple[int, tuple[Verb, ...]] | None:
    """(which action, its transcript) of an event that ends an action."""
    if event.HasField("activity_task_completed_event_attributes"):
        completed = event.activity_task_completed_event_attributes
        return completed.scheduled_event_id, _of_result(completed.result)
    if event.HasField("activity_task_failed_event_attributes"):
        failed = event.activity_task_failed_event_attributes
        return failed.scheduled_event_id, _of_failure(failed.failure)
    if event.HasField("activity_task_timed_out_event_attributes"):
        late = event.activity_task_timed_out_event_attributes
        return late.scheduled_event_id, _of_failure(late.failure)
    return None


def _of_result(result: Payloads) -> tuple[Verb, ...]:
    found = _json(result, 0)
    return _verbs(found.get("verbs")) if isinstance(found, dict) else ()


def _of_failure(failure: Failure) -> tuple[Verb, ...]:
    return _verbs(_json(innermost(failure).application_failure_info.details, VERBS_DETAIL))


def _verbs(found: object) -> tuple[Verb, ...]:
    try:
        return _VERBS.validate_python(found or ())
    except ValidationError:  # written by another version
        return ()


def _json(payloads: Payloads, at: int) -> Any:
    try:
        return json.loads(payloads.payloads[at].data) if at < len(payloads.payloads) else None
    except ValueError:
        return None
