"""A guest that is awaited: its machine is looked at meanwhile, and what is off is not waited for."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mulligan.activities import calls
from mulligan.activities.drivers.base import ConsoleChunk, Deadline, PowerReading
from mulligan.activities.drivers.simulated import open_simulated
from mulligan.activities.errors import VerifyFailed
from mulligan.activities.events import EventKind
from mulligan.activities.history import STILL_AWAITED
from mulligan.activities.levers import LeverKind
from mulligan.activities.powered import READINGS, Powered
from mulligan.activities.site import Site
from mulligan.activities.translate import metadata_of
from mulligan.activities.values import MachineState, Mark, OnFailure, Outcome, PowerState
from mulligan.activities.watch_guest import GuestActivities, last_line
from mulligan.api.progress import AWAIT, awaited, progress_of
from mulligan.api.suggestions import for_event
from tests.drivers.simulated_parts import booted, new_mark, target
from tests.workflows.behind import Handle, behind_its_back, called, switch_off
from tests.workflows.stack import QUICK, Stack, is_clean, until
from tests.workflows.steer import pull

LONG = replace(QUICK, verify_seconds=90, run_seconds=180)


async def seen(handle: Handle) -> str:
    """What watchers are told of the look at the machine; empty before there was one."""
    for each in progress_of(await handle.describe()):
        if each.action == AWAIT and each.observed_at is not None:
            assert (each.attempt, each.last_failure, each.next_attempt_at) == (1, "", None)
            return each.message
    return ""


async def awaiting(stack: Stack, **values: Any) -> tuple[str, Handle]:
    """A run whose guest does not call, and whose machine was looked at since."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project, **({"deadlines": LONG} | values)))

    async def looked() -> bool:
        return bool(await seen(handle))

    await until(looked, 60)
    return project, handle


async def test_who_waits_is_told_what_is_seen_of_the_machine(stack: Stack) -> None:
    """Its power, and what its console says; the story tells the wait once, and no look. Temporal's page says where it
    tells so, and names the levers that the last step has."""
    project, handle = await awaiting(stack)
    page = (await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)).current_details
    assert "Last seen of the machine: *Pending Activities*, `watch-guest`, *Last Failure*." in page
    assert "Levers: `extend`, `retry-now`, `mulligan`, `abort`; or cancel it." in page
    (looks,) = (await handle.describe()).raw_description.pending_activities
    assert looks.last_failure.message and not looks.last_failure.stack_trace
    assert await seen(handle) == ("awaits the guest's call home; its power is on; its console last said 'm login:'")
    story = await stack.story_so_far(handle)
    assert len([each for each in story if each.kind is EventKind.AWAITING]) == 1
    waits = awaited(story)
    assert waits is not None and "the guest's call home" in waits.message
    await called(handle, stack, project)
    assert (await handle.result()).evidence[-1].source == "call-home"
    assert "watch-guest" not in {each.action for each in await stack.story(handle)}


async def test_a_machine_that_is_off_is_not_waited_for(stack: Stack) -> None:
    """It ends with what its console said last, long before the deadline, and is undone."""
    project, handle = await awaiting(stack)
    await switch_off(stack, handle, project)
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    story = await stack.story(handle)
    (failed,) = [each for each in story if each.action == "watch-guest"]
    assert (failed.kind, failed.reason, failed.step) == (EventKind.ACTION_FAILED, "VERIFY_FAILED", "verify")
    assert failed.message == (f"m was switched on, but {project}-h0 says off; its console last said 'm login:'")
    assert (story[-1].outcome, story[-1].reason) == (Outcome.FAILED, "VERIFY_FAILED")
    assert not any(each.kind is EventKind.DEADLINE_PASSED for each in story)
    assert is_clean(stack, project)


async def test_one_that_is_held_for_it_may_be_mended(stack: Stack) -> None:
    """Somebody switches it on again, resumes the run, and its guest calls; who switches nothing on boots it anew."""
    project, handle = await awaiting(stack, on_failure=OnFailure.HOLD)
    await switch_off(stack, handle, project)
    await until(lambda: stack.machine_is(project, "m", MachineState.HELD), 60)
    (held,) = [each for each in await stack.story_so_far(handle) if each.kind is EventKind.HELD]
    page = (await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)).current_details
    assert "Last seen of the machine" not in page and "Levers: `resume`" in page
    resume = f"mulligan run resume {handle.id} --held 1"
    assert for_event(held, handle.id)[:2] == [f"{resume} --from boot", resume]
    async with behind_its_back(stack, handle, project) as (driver, mark):
        await driver.power_on(mark, Deadline.after(10))
    await pull(handle, LeverKind.RESUME)

    async def waits() -> bool:
        return awaited(await stack.story_so_far(handle)) is not None

    await until(waits)
    await called(handle, stack, project)
    assert (await handle.result()).evidence[-1].source == "call-home"


async def test_a_deadline_says_what_was_seen_last(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """And a cancelled look is none of the story, nor an error in the worker's log."""
    project, _ = await stack.hosts(personality="no-call-home", hold="undefine:1:2")
    handle = await stack.start(stack.request(project, deadlines=replace(LONG, verify_seconds=14)))

    async def is_over() -> bool:
        gc.collect()  # what nobody has read of a task is logged when the task goes
        return (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING

    await until(is_over, 60)
    assert "never retrieved" not in caplog.text
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    story = await stack.story(handle)
    assert "its power is on; its console last said 'm login:'" in story[-1].message
    assert "watch-guest" not in {each.action for each in story}
    assert is_clean(stack, project)


async def look(site: Site, mark: Mark, heard: list[str], **patience: float) -> ApplicationError:
    """One look at a machine of `simulated_parts`, which says that it shall look again; `heard` gets its heartbeats."""
    environment = ActivityEnvironment()
    environment.on_heartbeat = lambda said: heard.append(str(said["message"]))
    asked = calls.WatchGuestIn(target(), mark, "the guest's call home")
    with pytest.raises(ApplicationError) as caught:
        await environment.run(GuestActivities(site, **patience).watch_guest, asked)
    return caught.value


async def test_a_machine_that_restarts_is_looked_at_again(stack: Stack) -> None:
    """Off for a moment is not off; whoever waits is told."""
    mark, began, heard = new_mark(), datetime.now(UTC), list[str]()
    driver = await open_simulated(target(), stack.site.drivers_dir)
    await booted(driver, mark)
    await driver.power_off(mark, Deadline.after(10))
    looking = asyncio.create_task(look(stack.site, mark, heard, off_seconds=600, off_again=0.05))

    async def is_told() -> bool:
        return any("its power is off, which is asked again" in each for each in heard)

    await until(is_told)
    await driver.power_on(mark, Deadline.after(10))
    await driver.close()
    said = await looking
    assert said.type == STILL_AWAITED and not said.non_retryable and said.next_retry_delay is not None
    assert said.message.startswith("awaits the guest's call home; its power is on")
    assert float(metadata_of(said)["at"]) >= began.timestamp()


async def test_one_that_is_gone_is_off(stack: Stack) -> None:
    """After as many readings as are believed, and no fewer; one that says on begins them anew."""
    asked = calls.WatchGuestIn(target(), new_mark(), "the guest's call home")
    with pytest.raises(VerifyFailed, match=r"m was switched on, but h1 says absent$"):
        await ActivityEnvironment().run(GuestActivities(stack.site, 0.0, 0.0).watch_guest, asked)
    mark, driver = new_mark(), await open_simulated(target(), stack.site.drivers_dir)
    powered = Powered(target(), mark, 0.0)
    for _ in range(READINGS - 1):
        assert (await powered.look(driver)).state is PowerState.ABSENT and powered.in_doubt
    await booted(driver, mark)
    assert (await powered.look(driver)).state is PowerState.ON and not powered.in_doubt
    await driver.power_off(mark, Deadline.after(10))
    for _ in range(READINGS - 1):
        assert (await powered.look(driver)).state is PowerState.OFF
    with pytest.raises(VerifyFailed, match=r"h1 says off; seen before$"):
        await powered.look(driver, "seen before")
    await driver.close()


async def test_an_off_that_the_driver_doubts_fails_nothing(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is read: the look ends, and tells of it. Once it is not doubtful it counts, from the start."""
    mark, driver = new_mark(), await open_simulated(target(), stack.site.drivers_dir)
    await booted(driver, mark)
    await driver.power_off(mark, Deadline.after(10))
    believed = type(driver).power

    async def doubted(self: Any, mark: Mark, deadline: Deadline) -> PowerReading:
        return replace(await believed(self, mark, deadline), doubtful=True)

    powered = Powered(target(), mark, 0.0)
    monkeypatch.setattr(type(driver), "power", doubted)
    for _ in range(READINGS + 1):
        assert (await powered.look(driver)).state is PowerState.OFF and not powered.in_doubt
    said = await look(stack.site, mark, [])
    assert "its power is off, says a BMC that may have restarted" in said.message
    monkeypatch.setattr(type(driver), "power", believed)
    for _ in range(READINGS - 1):
        await powered.look(driver)
    with pytest.raises(VerifyFailed):
        await powered.look(driver)
    await driver.close()


async def test_a_long_console_is_read_to_its_end() -> None:
    """Chunk by chunk; blank lines, and characters that cannot be printed, say nothing."""
    said = ["one\r\n" * 10, "two\r\n\x1b[0mlast \x07word\r\n", "  \r\n\r\n"]

    class Talks:
        async def console(self, mark: Mark, offset: int, deadline: Deadline) -> ConsoleChunk:
            return ConsoleChunk(offset, min(offset + 1, len(said)), said[offset] if offset < len(said) else "")

    assert await last_line(Talks(), new_mark()) == "[0mlast word"  # type: ignore[arg-type]  # it has a console only


async def test_a_driver_without_a_console_says_nothing() -> None:
    """As those of servers whose BMC has none."""
    assert await last_line(object(), new_mark()) == ""  # type: ignore[arg-type]


async def test_a_host_that_cannot_be_looked_at_fails_nothing(stack: Stack) -> None:
    """Neither one that is away nor one that lets nobody in: its guest may call all the same."""
    for name in ("Unreachable", "AccessDenied"):
        asked = calls.WatchGuestIn(target(f"speed=0&fail=power:*:{name}"), new_mark(), "the guest's call home")
        with pytest.raises(ApplicationError, match=r"its machine cannot be looked at: .*h1") as caught:
            await ActivityEnvironment().run(GuestActivities(stack.site).watch_guest, asked)
        assert caught.value.type == STILL_AWAITED and not caught.value.non_retryable


async def test_a_console_that_cannot_be_read_hides_no_power(stack: Stack) -> None:
    """Whoever waits is told that it cannot be; a machine that is off is found to be all the same."""
    mark, away = new_mark(), target("speed=0&fail=console:*:Unreachable")
    driver = await open_simulated(target(), stack.site.drivers_dir)
    await booted(driver, mark)
    asked = calls.WatchGuestIn(away, mark, "the guest's call home")
    watch = GuestActivities(stack.site, 0.0, 0.0).watch_guest
    with pytest.raises(ApplicationError, match=r"its power is on; its console cannot be read: .*console") as caught:
        await ActivityEnvironment().run(watch, asked)
    assert caught.value.type == STILL_AWAITED
    await driver.power_off(mark, Deadline.after(10))
    await driver.close()
    with pytest.raises(VerifyFailed, match=r"h1 says off; its console cannot be read: "):
        await ActivityEnvironment().run(watch, asked)
