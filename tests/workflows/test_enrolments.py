"""Registering providers is a run as well: it ends with a story that is kept."""

from __future__ import annotations

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle

from mulligan.activities.calls import CONTROL_QUEUE
from mulligan.activities.record import STORY
from mulligan.activities.values import Outcome, Target
from mulligan.workflows import runs
from mulligan.workflows.enrol import KEEPS_STORY
from tests.workflows.stack import Stack


async def enrolling(stack: Stack, name: str, **settings: str) -> WorkflowHandle[object, runs.EnrolOut]:
    """Start the run that registers a simulated host."""
    query = "&".join(f"{key}={value}" for key, value in ({"speed": "0"} | settings).items())
    return await stack.client.start_workflow(
        runs.ENROL,
        Target(name, "default", f"simulated://{name}/{name}?{query}"),
        id=runs.enrol_id(name),
        task_queue=CONTROL_QUEUE,
        result_type=runs.EnrolOut,
    )


async def test_an_enrolments_story_is_kept(stack: Stack) -> None:
    """What was found can be read when Temporal has forgotten the run."""
    handle = await enrolling(stack, "kept")
    out = await handle.result()
    kept = stack.inventory.run(handle.id)
    story = STORY.validate_json(kept.story)
    assert (kept.kind, kept.outcome) == ("enrol", Outcome.ENROLLED)
    assert [event.message for event in story if event.action == "record"][-1] == out.said
    assert (story[-1].outcome, story[-1].reason) == (Outcome.ENROLLED, "")


async def test_the_story_of_an_enrolment_that_failed_is_kept_too(stack: Stack) -> None:
    """With why: whoever added the provider may be asked next week."""
    handle = await enrolling(stack, "refused", fail="inspect:*:AccessDenied")
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    kept = stack.inventory.run(handle.id)
    assert kept.outcome is Outcome.FAILED
    assert kept.reason
    assert "inspect" in [event.action for event in STORY.validate_json(kept.story)]


async def test_the_patch_is_marked_in_the_history(stack: Stack) -> None:
    """A run that begins now says that it knows of it, so that it replays as it ran."""
    handle = await enrolling(stack, "marked")
    await handle.result()
    assert KEEPS_STORY in str((await handle.fetch_history()).events)
