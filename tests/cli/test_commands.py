"""Every noun and verb: what it asks of the API, and what it shows to people and to programs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import grpc
import pytest
from google.rpc import code_pb2

from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.main import COMMANDS, cli
from mulligan.v1 import inventory_pb2, machine_pb2, provisioning_pb2, run_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ID, ScriptedApi, event, evidence, machine, refusal, refuse, run_update, watches

NOUNS = ("machine", "run", "provider", "bmc", "image", "agent", "suspect", "edit", "claim", "partition")

OFFLINE = {("run", "replay"), ("agent", "build"), ("agent", "show")}
"""Verbs that ask no API."""


def provider(**more: Any) -> inventory_pb2.Provider:
    """A hypervisor, partly used."""
    return inventory_pb2.Provider(
        name="hyp-1",
        partition="default",
        kind=inventory_pb2.PROVIDER_KIND_HYPERVISOR,
        url="qemu:///system",
        capabilities=["accel.kvm", "arch.x86_64"],
        inventory=[inventory_pb2.InventoryRow(resource="vcpu", total=8, reserved=2, overcommit_percent=200, used=3)],
        generation=7,
        **{"enabled": True, **more},
    )


def commands() -> Iterator[tuple[str, ...]]:
    """Every command of the client, as words."""
    for noun in NOUNS:
        group = cli.get_command(click.Context(cli), noun)
        assert isinstance(group, click.Group)
        yield (noun,)
        for verb in group.commands:
            yield noun, verb


def test_the_verbs_are_these() -> None:
    """The client can do what the contract offers."""
    assert {" ".join(words) for words in commands() if len(words) == 2} == {
        *("machine plan", "machine provision", "machine list", "machine show", "machine release"),
        *("run list", "run show", "run watch", "run cancel", "run retry", "run retry-now", "run hold", "run resume"),
        *("run extend", "run mulligan", "run abort", "run export", "run replay"),
        *("provider add", "provider list", "provider show", "provider set", "provider remove"),
        *("agent build", "agent show", "bmc list"),
        *("suspect list", "suspect clear", "edit list"),
        *("image add", "image list", "image show", "image build", "image remove"),
        *("claim explain", "claim list", "claim audit", "partition add", "partition list"),
    }


def test_every_command_has_help_and_json() -> None:
    """Each says what it does, each option what it is for, and each verb takes the options that all take."""
    for words in commands():
        command: click.Command = cli
        for word in words:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), word)
            assert found is not None
            command = found
        assert command.help, words
        options = [param for param in command.params if isinstance(param, click.Option)]
        common = {"output"} if words in OFFLINE else {"output", "api", "timeout"}
        assert len(words) == 1 or common <= {option.name for option in options}, words
        undescribed = [option.name for option in options if not option.help]
        assert undescribed == [], words


def test_the_overview_says_what_the_commands_say() -> None:
    """The table that spares importing the commands does not drift from them."""
    for name in NOUNS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.help == COMMANDS[name].help


def test_help_imports_neither_grpc_nor_temporal() -> None:
    """`mulligan --help` answers at once because it brings nothing that it does not need."""
    code = "import sys; from mulligan.api.cli.main import run; run(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert "Exit codes" in done.stdout
    assert loaded & {"grpc", "google", "temporalio", "rich", "yaml", "pydantic", "sqlalchemy", "libvirt"} == set()


def test_completion_knows_the_nouns(environment: dict[str, str], mulligan: Mulligan) -> None:
    """A shell that asks for completions gets the commands."""
    environment.update(_MULLIGAN_COMPLETE="bash_complete", COMP_WORDS="mulligan ma", COMP_CWORD="1")
    assert mulligan().stdout.strip() == "plain,machine"


def test_machines_are_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The filters reach the API; people get a table, programs a line for each."""
    api.handlers["ListMachines"] = lambda request, context: iter(
        [provisioning_pb2.ListMachinesResponse(machine=machine())]
    )
    arguments = ("machine", "list", "--project", "shop", "--state", "ready", "--state", "held")
    table = mulligan(*arguments).stdout.splitlines()
    assert table[0].split() == ["NAME", "PROJECT", "STATE", "PARTITION", "PROVIDER", "ADDRESS", "AGE"]
    assert table[1].split()[:6] == ["web-1", "default", "ready", "default", "hyp-1", "192.0.2.10"]
    assert json.loads(mulligan(*arguments, "--output", "json").stdout)["name"] == "web-1"
    states = [machine_pb2.MACHINE_STATE_READY, machine_pb2.MACHINE_STATE_HELD]
    assert api.last("ListMachines") == provisioning_pb2.ListMachinesRequest(project="shop", states=states)


def test_an_empty_list_is_empty_data(api: ScriptedApi, mulligan: Mulligan) -> None:
    """That there is nothing is said on standard error."""
    api.handlers["ListMachines"] = lambda request, context: iter(())
    done = mulligan("machine", "list")
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.OK, "", "none\n")


def test_a_machine_is_shown(api: ScriptedApi, mulligan: Mulligan) -> None:
    """How it was proved and how to log in are there."""
    api.handlers["GetMachine"] = lambda request, context: provisioning_pb2.GetMachineResponse(machine=machine())
    shown = mulligan("machine", "show", "web-1", "--project", "shop").stdout
    assert "ssh demo@192.0.2.10" in shown
    assert evidence().observed in shown
    assert api.last("GetMachine") == provisioning_pb2.GetMachineRequest(project="shop", name="web-1")


def test_a_machine_is_released(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The run that takes it down is followed to its end."""
    updates = [
        run_update(kind="RELEASE"),
        event(2, "ACTION_STARTED", "undo", "power-off", provider="hyp-1"),
        event(3, "ACTION_FINISHED", "undo", "power-off", "power is off", provider="hyp-1", attempts=1),
        event(4, "RUN_FINISHED", message="released", outcome=run_pb2.RUN_OUTCOME_RELEASED),
        run_update("RELEASED", kind="RELEASE"),
    ]
    api.handlers["ReleaseMachine"] = lambda request, context: (
        provisioning_pb2.ReleaseMachineResponse(update=update) for update in updates
    )
    done = mulligan("machine", "release", "web-1")
    assert done.returncode == ExitCode.OK
    assert "undo/power-off done" in done.stderr
    assert done.stdout == "machine web-1 is gone; nothing of it is left\n"
    assert api.last("ReleaseMachine").erase == machine_pb2.ERASE_MODE_UNSPECIFIED
    by = ("--reason", "done with", "--actor", "alice")
    assert mulligan("machine", "release", "web-1", "--erase", "full", *by).returncode == ExitCode.OK
    asked = api.last("ReleaseMachine")
    assert (asked.erase, asked.reason, asked.actor) == (machine_pb2.ERASE_MODE_FULL, "done with", "alice")


def test_several_machines_are_released_and_the_worst_counts(api: ScriptedApi, mulligan: Mulligan) -> None:
    """One after the other, each once; one that is not there does not keep the others."""
    over = event(4, "RUN_FINISHED", message="released", outcome=run_pb2.RUN_OUTCOME_RELEASED)

    def release(request: Any, context: grpc.ServicerContext) -> Iterator[provisioning_pb2.ReleaseMachineResponse]:
        if request.name == "gone":
            refuse(context, code_pb2.NOT_FOUND, "there is no machine gone")
        for update in (run_update(kind="RELEASE"), over, run_update("RELEASED", kind="RELEASE")):
            yield provisioning_pb2.ReleaseMachineResponse(update=update)

    api.handlers["ReleaseMachine"] = release
    done = mulligan("machine", "release", "web-1", "gone", "web-2", "web-1", "--project", "shop")
    assert done.returncode == ExitCode.NOT_FOUND
    assert done.stdout.count("is gone") == 2
    assert "error: there is no machine gone" in done.stderr
    asked = [(request.project, request.name) for method, request in api.asked if method == "ReleaseMachine"]
    assert asked == [("shop", "web-1"), ("shop", "gone"), ("shop", "web-2")]
    assert mulligan("machine", "release", "web-1", "web-2").returncode == ExitCode.OK
    assert mulligan("machine", "release").returncode == ExitCode.USAGE


def test_runs_are_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Newest first, as the API sends them."""
    api.handlers["ListRuns"] = lambda request, context: iter(
        [provisioning_pb2.ListRunsResponse(run=run_update("FAILED", reason="no room").run)]
    )
    table = mulligan("run", "list", "--machine", "web-1", "--outcome", "failed", "--limit", "5").stdout.splitlines()
    assert table[1].split() == [ID, "provision", "failed", "2026-09-21T14:13:20Z", "12.0", "s", "no", "room"]
    request = provisioning_pb2.ListRunsRequest(machine="web-1", outcome=run_pb2.RUN_OUTCOME_FAILED, limit=5)
    assert api.last("ListRuns") == request


def test_an_older_run_of_an_id_is_listed_as_run_show_takes_it(api: ScriptedApi, mulligan: Mulligan) -> None:
    """By its id alone the newer one would be shown."""
    newer, older = run_update().run, run_update("FAILED").run
    newer.run_id, older.run_id, older.superseded = "second", "first", True
    answers = [provisioning_pb2.ListRunsResponse(run=each) for each in (newer, older)]
    api.handlers["ListRuns"] = lambda request, context: iter(answers)
    _, first, second = mulligan("run", "list").stdout.splitlines()
    assert "--run-id" not in first
    assert second.startswith(f"{ID} --run-id first ")


def test_other_runs_of_the_machine_are_named(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Beside a run and beside the machine, as `run show` takes them, with how each ended; the shown one is not."""
    made, down, before, back = (run_update().run for _ in range(4))
    for each, kind, outcome in (
        (down, run_pb2.RUN_KIND_RELEASE, run_pb2.RUN_OUTCOME_OPEN),
        (before, run_pb2.RUN_KIND_RELEASE, run_pb2.RUN_OUTCOME_QUARANTINED),
        (back, run_pb2.RUN_KIND_RECLAIM, run_pb2.RUN_OUTCOME_RELEASED),
    ):
        each.kind, each.outcome, each.workflow_id = kind, outcome, "release:default:web-1"
    before.run_id, before.superseded, back.workflow_id, made.run_id = "a-run", True, "reclaim:c1", "the-run"
    response = provisioning_pb2.GetRunResponse(run=made, others=[down, before, back])
    api.handlers["GetRun"] = lambda request, context: response
    rows = [" ".join(line.split()) for line in mulligan("run", "show", ID).stdout.splitlines()]
    named = (
        "taken down by release:default:web-1, open",
        "taken down by release:default:web-1 --run-id a-run, quarantined",
        "reclaimed by reclaim:c1, released",
    )
    assert set(named) <= set(rows)
    found = machine_pb2.Machine(name="web-1", workflow_id=ID, run_id="the-run", state=machine_pb2.MACHINE_STATE_READY)
    answer = provisioning_pb2.GetMachineResponse(machine=found, runs=[down, before, back, made])
    api.handlers["GetMachine"] = lambda request, context: answer
    rows = [" ".join(line.split()) for line in mulligan("machine", "show", "web-1").stdout.splitlines()]
    assert set(named) <= set(rows)
    assert f"run {ID}" in rows
    assert not [row for row in rows if row.startswith("made by")]


def test_a_runs_story_is_told(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The run, its events in order, and what is in progress."""
    response = provisioning_pb2.GetRunResponse(
        run=run_update().run,
        events=[event(2, "ACTION_STARTED", "image", "prepare").event],
        progress=[run_pb2.RunProgress(step="image", action="prepare", attempt=2, last_failure="no route")],
    )
    api.handlers["GetRun"] = lambda request, context: response
    lines = [" ".join(line.split()) for line in mulligan("run", "show", ID).stdout.splitlines()]
    assert "2026-09-21T14:13:22Z image/prepare in progress" in lines
    assert lines[-1] == "now: image/prepare: attempt 2, last failure: no route"
    shown = json.loads(mulligan("run", "show", ID, "--output", "json").stdout)
    assert (shown["run"]["workflow_id"], len(shown["events"])) == (ID, 1)


def test_a_run_is_watched_from_a_cursor(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Only what is new is asked for."""
    api.handlers["WatchRun"] = watches([run_update("READY")])
    assert mulligan("run", "watch", ID, "--run-id", "a-run", "--from", "7").returncode == ExitCode.OK
    assert api.last("WatchRun") == provisioning_pb2.WatchRunRequest(workflow_id=ID, run_id="a-run", cursor="7")


def test_a_machine_that_is_up_is_not_cancelled_but_released(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Cancelling a run that ended ready is a conflict, and the command that is meant is named."""
    over = run_update("READY").run
    api.handlers["GetRun"] = lambda request, context: provisioning_pb2.GetRunResponse(run=over)
    api.handlers["CancelRun"] = lambda request, context: provisioning_pb2.CancelRunResponse(run=over)
    api.handlers["GetMachine"] = lambda request, context: provisioning_pb2.GetMachineResponse(machine=machine())
    done = mulligan("run", "cancel", ID)
    assert done.returncode == ExitCode.CONFLICT
    assert "next: mulligan machine release web-1" in done.stderr


def test_providers_are_added_and_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """What was found is shown; used and capacity are in the list."""
    api.handlers["AddProvider"] = lambda request, context: inventory_pb2.AddProviderResponse(provider=provider())
    api.handlers["ListProviders"] = lambda request, context: iter(
        [inventory_pb2.ListProvidersResponse(provider=provider(suspect_count=2))]
    )
    done = mulligan("provider", "add", "hyp-1", "qemu:///system", "--set", "accelerator=tcg", "--credential", "env:X")
    assert "looking at qemu:///system" in done.stderr
    assert "3 of 12 used (8 in all, 2 reserved, 200 % overcommit)" in done.stdout
    request = api.last("AddProvider")
    assert (dict(request.settings), request.credential) == ({"accelerator": "tcg"}, "env:X")
    assert "suspect (2)  3/12" in mulligan("provider", "list").stdout


def test_programs_find_nothing_but_json_on_standard_error(api: ScriptedApi, mulligan: Mulligan) -> None:
    """With `--output json` no progress is told there: nothing at all when it works, else one error."""
    api.handlers["AddProvider"] = lambda request, context: inventory_pb2.AddProviderResponse(provider=provider())
    add = ("provider", "add", "hyp-1", "qemu:///system", "--output", "json")
    done = mulligan(*add)
    assert json.loads(done.stdout)["name"] == "hyp-1"
    assert done.stderr == ""
    api.handlers["AddProvider"] = refusal("UNAVAILABLE", "hyp-1 does not answer", "UNREACHABLE")
    assert json.loads(mulligan(*add).stderr)["error"]["reason"] == "UNREACHABLE"


def test_a_provider_is_edited_as_it_was_read(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The generation that was read goes back with the edit, and what is not named is absent."""
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(provider=provider())
    api.handlers["UpdateProvider"] = lambda request, context: inventory_pb2.UpdateProviderResponse(provider=provider())
    edit = ("--disable", "--reserve", "vcpu=2", "--overcommit", "vcpu=400", "--set", "network=fast", "--clear-suspect")
    assert mulligan("provider", "set", "hyp-1", *edit, "--actor", "ann", "--reason", "noise").returncode == ExitCode.OK
    assert api.last("UpdateProvider") == inventory_pb2.UpdateProviderRequest(
        name="hyp-1",
        generation=7,
        enabled=False,
        reserved={"vcpu": 2},
        overcommit_percent={"vcpu": 400},
        settings={"network": "fast"},
        clear_suspect=True,
        actor="ann",
        reason="noise",
    )
    mulligan("provider", "set", "hyp-1", "--clear-quarantine")
    assert not api.last("UpdateProvider").HasField("enabled")


def test_a_lost_race_for_a_provider_is_told(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Somebody else's edit in between is a conflict."""
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(provider=provider())
    api.handlers["UpdateProvider"] = refusal("ABORTED", "hyp-1 was edited since", "CONFLICT", generation="8")
    done = mulligan("provider", "set", "hyp-1", "--enable")
    assert done.returncode == ExitCode.CONFLICT
    assert "hyp-1 was edited since" in done.stderr


@pytest.mark.parametrize(
    ("verdict", "code"),
    [("VERDICT_FITS", ExitCode.OK), ("VERDICT_NEVER", ExitCode.NO_ROOM), ("VERDICT_NOT_NOW", ExitCode.NO_ROOM)],
)
def test_a_claim_is_explained(api: ScriptedApi, mulligan: Mulligan, verdict: str, code: ExitCode) -> None:
    """The funnel is the data, and the verdict the exit code."""
    explanation = inventory_pb2.Explanation(
        verdict=inventory_pb2.Explanation.Verdict.Value(verdict),
        funnel=[inventory_pb2.Predicate(name="enabled", description="is in service", remaining=3, removed=1)],
        summary="three of four",
    )
    api.handlers["ExplainClaim"] = lambda request, context: inventory_pb2.ExplainClaimResponse(explanation=explanation)
    done = mulligan("claim", "explain", "--vcpu", "2", "--require", "accel.kvm")
    assert done.returncode == code
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["enabled", "is", "in", "service", "-1", "3"] in lines
    assert ["three", "of", "four"] in lines
    spec = api.last("ExplainClaim").spec
    assert (spec.resources.vcpu, list(spec.requires)) == (2, ["accel.kvm"])
    shown = json.loads(mulligan("claim", "explain", "--output", "json").stdout)
    assert shown["verdict"] == verdict


def test_a_claim_is_explained_as_a_machine_was_asked_for(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Its request is asked again, flags over it; a file beside it is refused."""
    asked = machine()
    asked.spec.resources.vcpu, asked.spec.resources.memory_mib = 7, 4096
    api.handlers["GetMachine"] = lambda request, context: provisioning_pb2.GetMachineResponse(machine=asked)
    fits = inventory_pb2.Explanation(verdict=inventory_pb2.Explanation.VERDICT_FITS)
    api.handlers["ExplainClaim"] = lambda request, context: inventory_pb2.ExplainClaimResponse(explanation=fits)
    api.handlers["ListClaims"] = lambda request, context: iter(())
    done = mulligan("claim", "explain", "--machine", "web-1", "--project", "shop", "--memory", "8G")
    assert done.returncode == ExitCode.OK
    assert "holds" not in done.stdout and "next:" not in done.stderr
    assert (api.last("GetMachine").name, api.last("GetMachine").project) == ("web-1", "shop")
    sizes = api.last("ExplainClaim").spec.resources
    assert (sizes.vcpu, sizes.memory_mib) == (7, 8192)
    refused = mulligan("claim", "explain", "--machine", "web-1", "--file", "web-1.yaml")
    assert refused.returncode == ExitCode.USAGE
    assert "give one of them" in refused.stderr


def test_a_machine_that_is_there_is_told_with_what_it_holds(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Before what another one would find; where that is no room, what helps is said."""
    api.handlers["GetMachine"] = lambda request, context: provisioning_pb2.GetMachineResponse(machine=machine())
    full = inventory_pb2.Explanation(verdict=inventory_pb2.Explanation.VERDICT_NOT_NOW, summary="no room")
    api.handlers["ExplainClaim"] = lambda request, context: inventory_pb2.ExplainClaimResponse(explanation=full)
    sizes = machine_pb2.Resources(vcpu=4, memory_mib=2048, disk_gib=20)
    claims = [
        inventory_pb2.Claim(machine="web-1", machine_id=of, provider=provider, resources=sizes)
        for of, provider in (("one-before", "hyp-9"), ("a-machine", "hyp-1"))
    ]
    api.handlers["ListClaims"] = lambda request, context: iter(
        [inventory_pb2.ListClaimsResponse(claim=claim) for claim in claims]
    )
    done = mulligan("claim", "explain", "--machine", "web-1")
    assert done.returncode == ExitCode.NO_ROOM
    held = "machine web-1 is ready, and holds 4 vcpu, 2048 MiB memory and 20 GiB disk of hyp-1"
    assert done.stdout.startswith(f"{held}; below is what another one like it would find\n")
    assert done.stderr == "next: mulligan claim list\n  or: mulligan provider list\n"


@pytest.mark.parametrize(
    ("status", "typed", "again"),
    [
        ("DEADLINE_EXCEEDED", "provider show hyp-1 --timeout 5s --api {api}", "provider show hyp-1 --api {api}"),
        ("ABORTED", "provider show hyp-1", "provider show hyp-1"),
    ],
)
def test_what_is_to_be_typed_again_can_be_pasted(
    api: ScriptedApi, mulligan: Mulligan, status: str, typed: str, again: str
) -> None:
    """It is the command itself, with a longer time where there was too little."""
    api.handlers["GetProvider"] = refusal(status, "not yet", "")
    done = mulligan(*typed.format(api=api.address).split())
    more = " --timeout 10m" if status == "DEADLINE_EXCEEDED" else ""
    assert done.stderr.endswith(f"next: mulligan {again.format(api=api.address)}{more}\n")


@pytest.mark.parametrize(
    ("state", "reason", "shown"),
    [
        ("FAILED", "cancelled by alice: not needed", "failed, its run was cancelled"),
        ("FAILED", "it did not boot", "failed"),
        ("READY", "", "ready"),
    ],
)
def test_a_machine_whose_run_was_cancelled_is_told_so(
    api: ScriptedApi, mulligan: Mulligan, state: str, reason: str, shown: str
) -> None:
    """It is gone as one whose run failed is, but by no fault."""
    found = machine()
    found.state, found.reason = machine_pb2.MachineState.Value(f"MACHINE_STATE_{state}"), reason
    api.handlers["GetMachine"] = lambda request, context: provisioning_pb2.GetMachineResponse(machine=found)
    told = [" ".join(line.split()) for line in mulligan("machine", "show", "web-1").stdout.splitlines()]
    assert f"state {shown}" in told


def test_claims_are_listed_with_what_mends_them(api: ScriptedApi, mulligan: Mulligan) -> None:
    """A quarantined claim names its command, uncut."""
    mend = "mulligan provider set hyp-1 --clear-quarantine, once virsh vol-delete has removed what is left of web-1"
    claim = inventory_pb2.Claim(machine="web-1", state=inventory_pb2.CLAIM_STATE_QUARANTINED, mend=mend)
    api.handlers["ListClaims"] = lambda request, context: iter([inventory_pb2.ListClaimsResponse(claim=claim)])
    shown = mulligan("claim", "list", "--state", "quarantined").stdout
    assert mend in shown
    assert api.last("ListClaims").state == inventory_pb2.CLAIM_STATE_QUARANTINED


def test_partitions_are_added_and_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Both answer with names."""
    api.handlers["AddPartition"] = lambda request, context: inventory_pb2.AddPartitionResponse(name=request.name)
    api.handlers["ListPartitions"] = lambda request, context: iter(
        [inventory_pb2.ListPartitionsResponse(name=name) for name in ("default", "west")]
    )
    assert json.loads(mulligan("partition", "add", "west", "--output", "json").stdout) == {"name": "west"}
    assert mulligan("partition", "list").stdout.split() == ["NAME", "default", "west"]


def test_a_reader_that_leaves_is_no_error(api: ScriptedApi, environment: dict[str, str]) -> None:
    """`mulligan machine list | head -1` ends without a traceback."""
    many = [provisioning_pb2.ListMachinesResponse(machine=machine()) for _ in range(5000)]
    api.handlers["ListMachines"] = lambda request, context: iter(many)
    command = f"{sys.executable} -m mulligan.api.cli machine list --output json | head -1"
    done = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, check=False, text=True, timeout=60
    )
    assert json.loads(done.stdout)["name"] == "web-1"
    assert done.stderr == ""
