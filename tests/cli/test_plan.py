"""`mulligan machine plan` and `--plan`: what a run would do, shown before it is asked for; and expected times."""

from __future__ import annotations

import json
import shlex
from typing import Any

import grpc
import pytest

from mulligan.api.cli.display import progress_text
from mulligan.api.cli.estimates import usual_text
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.v1 import inventory_pb2, machine_pb2, provisioning_pb2, run_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ScriptedApi, provisions, refusal, story

FULL = "has 0 of its 4 vcpu free (asked: 1)"
HASH = "plan-3f2a9c0d1e4b5a67"
DIGEST = "sha256:" + "ab" * 32
ASK = ("machine", "plan", "web-1", "--image", "demo", "--ssh-key", "none")


def estimate(p50: float, p95: float) -> run_pb2.StepEstimate:
    """What twenty runs have taught."""
    return run_pb2.StepEstimate(step="boot", p50_seconds=p50, p95_seconds=p95, runs=20, basis="image demo on libvirt")


def a_plan(**changes: Any) -> provisioning_pb2.Plan:
    """A plan that can be applied."""
    explanation = inventory_pb2.Explanation(
        verdict=inventory_pb2.Explanation.VERDICT_FITS,
        funnel=[inventory_pb2.Predicate(name="clean", description="is erased", remaining=1, removed=2)],
        near_misses=[inventory_pb2.NearMiss(provider="hv-2", failing=["free.vcpu"], detail=FULL)],
        summary="1 of 3 providers can hold it now",
    )
    undo = [provisioning_pb2.UndoAction(action="tear-down", description="switch it off", undoes="boot")]
    steps = [
        provisioning_pb2.PlanStep(step="claim", description="claim 1 vcpu", deadline_seconds=600),
        provisioning_pb2.PlanStep(
            step="boot", description="switch it on", deadline_seconds=90, undo=undo, estimate=estimate(5.2, 8.9)
        ),
    ]
    values: dict[str, Any] = {
        "hash": HASH,
        "spec": machine_pb2.MachineSpec(project="default", name="web-1", image="demo"),
        "provider": "hv-1",
        "why": "no other provider can hold it now",
        "explanation": explanation,
        "image_digest": DIGEST,
        "download_bytes": 412 << 20,
        "place_bytes": 1 << 30,
        "steps": steps,
    }
    return provisioning_pb2.Plan(**(values | changes))


def answers(api: ScriptedApi, plan: provisioning_pb2.Plan) -> None:
    """The API makes this plan."""

    def handler(request: Any, context: grpc.ServicerContext) -> provisioning_pb2.PlanMachineResponse:
        return provisioning_pb2.PlanMachineResponse(plan=plan)

    api.handlers["PlanMachine"] = handler


def test_a_plan_is_shown_with_the_command_that_applies_it(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Provider and why, why not the others, what moves, the steps; and at the end what to type."""
    answers(api, a_plan())
    done = mulligan(*ASK, "--hostname", "it's me")
    assert done.returncode == ExitCode.OK, done.stderr
    for told in (
        "hv-1: no other provider can hold it now",
        FULL,
        "412.0 MiB to be downloaded, 1.0 GiB to be put on hv-1",
        "5 to 9 s (20 runs: image demo on libvirt)",
        "not known yet",
        "tear-down: switch it off",
        "nothing to undo",
        "90s",
        "10m",
        HASH,
        DIGEST,
    ):
        assert told in done.stdout, told
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("next: ")]
    applied = shlex.split(line.removeprefix("next: "))
    assert applied[:3] == ["mulligan", "machine", "provision"]
    assert applied[-2:] == ["--plan", HASH]
    api.handlers["ProvisionMachine"] = provisions(story())
    assert mulligan(*applied[1:]).returncode == ExitCode.OK
    asked = api.last("ProvisionMachine")
    assert (asked.plan_hash, asked.spec) == (HASH, api.last("PlanMachine").spec)
    assert asked.spec.hostname == "it's me"


def test_a_plan_is_one_object_for_programs(api: ScriptedApi, mulligan: Mulligan) -> None:
    """With --output json nothing else is on standard output."""
    answers(api, a_plan(destroys=["everything on the root disk of hv-1"]))
    told = json.loads(mulligan(*ASK, "--output", "json").stdout)
    assert told["hash"] == HASH
    assert told["destroys"] == ["everything on the root disk of hv-1"]
    assert told["steps"][1]["estimate"]["runs"] == 20


def test_nothing_fits(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The exit code says so; there is nothing to apply, and the explanation is shown."""
    answers(api, a_plan(provider="", why="", hash=""))
    done = mulligan(*ASK)
    assert done.returncode == ExitCode.NO_ROOM
    assert "none: no provider fits" in done.stdout
    assert FULL in done.stdout
    assert "--plan" not in done.stderr


def test_a_provider_that_is_only_out_of_service_is_named_with_what_helps(api: ScriptedApi, mulligan: Mulligan) -> None:
    """For a plan that finds none; one that lacks room as well is not what keeps the machine waiting."""
    plan = a_plan(provider="", why="", hash="")
    for failing, helps in (
        (("enabled",), "next: mulligan provider set hv-2 --enable\n"),
        (("not-quarantined",), "next: mulligan provider show hv-2\n"),
        (("enabled", "free.vcpu"), "next: mulligan provider list\n"),
    ):
        plan.explanation.near_misses[0].failing[:] = failing
        answers(api, plan)
        assert mulligan(*ASK).stderr.splitlines(keepends=True)[0] == helps


def test_what_does_not_fit_now_may_wait_for_room(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The first thing to type is what was typed, as a provision that waits; what never fits is not waited for."""
    plan = a_plan(provider="", why="", hash="")
    plan.explanation.verdict = inventory_pb2.Explanation.VERDICT_NOT_NOW
    answers(api, plan)
    waits = f"next: {shlex.join(['mulligan', 'machine', 'provision', *ASK[2:], '--wait-for-room'])}"
    for more in ((), ("--wait-for-room",)):
        assert mulligan(*ASK, *more).stderr.splitlines() == [
            waits,
            "  or: mulligan claim list",
            "  or: mulligan provider list",
        ]
    api.handlers["ProvisionMachine"] = provisions(story())
    assert mulligan(*shlex.split(waits)[2:]).returncode == ExitCode.OK
    assert api.last("ProvisionMachine").spec.when_none == machine_pb2.WHEN_NONE_WAIT
    plan.explanation.verdict = inventory_pb2.Explanation.VERDICT_NEVER
    answers(api, plan)
    assert "--wait-for-room" not in mulligan(*ASK).stderr


def test_what_is_asked_of_one_provider_is_told_of_that_one(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Another provider would not help: what helps is to wait for it, to look at it, or to ask for any."""
    plan = a_plan(provider="", why="", hash="")
    plan.explanation.verdict = inventory_pb2.Explanation.VERDICT_NOT_NOW
    plan.explanation.funnel.add(name="provider", description="is hv-2", remaining=1, removed=2)
    answers(api, plan)
    for pin in (("--provider", "hv-2"), ("--provider=hv-2",)):
        told = mulligan(*ASK, *pin).stderr.splitlines()
        assert told == [
            f"next: {shlex.join(['mulligan', 'machine', 'provision', *ASK[2:], *pin, '--wait-for-room'])}",
            "  or: mulligan provider show hv-2",
            f"  or: {shlex.join(['mulligan', *ASK])}",
        ]
    plan.explanation.verdict = inventory_pb2.Explanation.VERDICT_NEVER
    answers(api, plan)
    assert mulligan(*ASK, "--provider", "hv-2").stderr.startswith("next: mulligan provider show hv-2\n")
    plan.explanation.near_misses[0].failing[:] = ("enabled",)
    answers(api, plan)
    assert "provider set hv-2 --enable" in mulligan(*ASK, "--provider", "hv-2").stderr.splitlines()[0]
    plan.explanation.verdict = inventory_pb2.Explanation.VERDICT_NOT_NOW
    plan.explanation.near_misses[0].failing[:] = ("not-quarantined",)
    answers(api, plan)
    told = mulligan(*ASK, "--provider", "hv-2").stderr
    assert told.startswith("next: mulligan provider show hv-2\n")
    assert "--wait-for-room" not in told, "it has room, and waits for an operator"


def test_something_is_lacking(api: ScriptedApi, mulligan: Mulligan) -> None:
    """What, and no command that would fail."""
    answers(api, a_plan(hash="", lacks=["the driver of hv-1 cannot read a console"], download_bytes=0, place_bytes=0))
    done = mulligan(*ASK)
    assert done.returncode == ExitCode.NOT_READY
    assert "cannot read a console" in done.stdout
    assert "--plan" not in done.stderr


def test_what_is_cached_need_not_move(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Bytes to move against bytes that are there."""
    answers(api, a_plan(download_bytes=0, place_bytes=0, cached_bytes=1 << 30))
    assert "nothing; 1.0 GiB are there already" in mulligan(*ASK).stdout


@pytest.mark.parametrize("command", ["plan", "provision"])
def test_a_machine_without_an_image_cannot_be_asked_for(mulligan: Mulligan, command: str) -> None:
    """Both commands say it in the same way."""
    done = mulligan("machine", command, "web-1")
    assert done.returncode == ExitCode.USAGE
    assert "mulligan image list" in done.stderr


def test_a_plan_that_does_not_hold_says_what_changed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """And what to type next."""
    message = f"{HASH} does not hold any more: its generation was 3, is 4; plan again"
    api.handlers["ProvisionMachine"] = refusal(
        "FAILED_PRECONDITION", message, "CONFLICT", changed="generation", plan=HASH
    )
    done = mulligan("machine", "provision", *ASK[2:], "--hostname", "it's me", "--detach", "--plan", HASH)
    assert done.returncode == ExitCode.CONFLICT
    assert "its generation was 3, is 4" in done.stderr
    assert done.stderr.endswith(f"next: {shlex.join(['mulligan', *ASK, '--hostname', 'it' + chr(39) + 's me'])}\n")


@pytest.mark.parametrize(
    ("p50", "p95", "text"),
    [
        (5.2, 8.9, "5 to 9 s"),
        (0.11, 0.94, "0.1 to 0.9 s"),
        (9.1, 9.2, "9 s"),
        (0.01, 0.02, "under 0.1 s"),
        (50.0, 125.0, "50.0 s to 2:05"),
    ],
)
def test_expected_times_are_short_to_read(p50: float, p95: float, text: str) -> None:
    """No more digits than mean something."""
    assert usual_text(estimate(p50, p95)) == text


def test_progress_says_how_long_it_usually_takes_and_when_it_is_slower() -> None:
    """Without an estimate it says neither."""
    assert progress_text(run_pb2.RunProgress(message="booting")) == "booting"
    usual = run_pb2.RunProgress(message="booting", estimate=estimate(5.2, 8.9))
    assert progress_text(usual) == "booting, usually 5 to 9 s"
    usual.slower_than_p95 = True
    assert "slower than p95 of 20 runs (image demo on libvirt: usually 5 to 9 s)" in progress_text(usual)


def test_a_plan_of_a_machine_that_is_there_says_where_to_look(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Not to provision it, which would be refused, or change nothing."""
    answers(api, a_plan(hash="", provider="", there="provision:default:web-1"))
    done = mulligan(*ASK)
    assert "next: mulligan machine show web-1 --project default" in done.stderr
    assert "mulligan run show provision:default:web-1" in done.stderr
    assert "machine provision" not in done.stderr
