"""Suspects on the command line: listed with their verdict, shown with their evidence, put back; providers removed."""

from __future__ import annotations

import json
import time

from google.protobuf.timestamp_pb2 import Timestamp

from mulligan.api.cli.exit_codes import ExitCode
from mulligan.v1 import images_pb2, inventory_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ScriptedApi, refusal
from tests.cli.test_commands import provider

CLEAR = "mulligan suspect clear image bad"


def suspect(kind: str = "IMAGE", name: str = "bad", failures: int = 7) -> inventory_pb2.Suspect:
    """Something that failed on several hosts."""
    return inventory_pb2.Suspect(
        kind=inventory_pb2.SuspectKind.Value(f"SUSPECT_KIND_{kind}"),
        name=name,
        failures=failures,
        quarantined=f"3 runs failed with it. When the cause is mended: `{CLEAR}`",
        verdict="it is to blame: it failed on h1, h2 and h3",
        evidence=[
            inventory_pb2.Blame(
                workflow_id=f"provision:default:web-{number}",
                run_id=f"run-{number}",
                step="verify",
                reason="no console line",
                provider=f"h{number}",
                image="bad",
                at=Timestamp(seconds=int(time.time()) - 120),
            )
            for number in range(1, failures + 1)
        ],
    )


def test_suspects_are_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """With who is blamed, and why; the filter reaches the API."""
    api.handlers["ListSuspects"] = lambda request, context: iter(
        [inventory_pb2.ListSuspectsResponse(suspect=suspect())]
    )
    listed = mulligan("suspect", "list")
    head, row = listed.stdout.splitlines()
    assert listed.stderr == f"next: mulligan image show bad\n  or: {CLEAR}\n"
    assert head.split() == ["KIND", "NAME", "FAILURES", "STATE", "LAST", "RUNS", "VERDICT"]
    assert row.split()[:5] == ["image", "bad", "7", "quarantined", "2m"]
    assert "it is to blame: it failed on h1, h2 and h3" in row
    shown = mulligan("suspect", "list", "--kind", "image", "--output", "json")
    assert json.loads(shown.stdout)["evidence"][0]["provider"] == "h1"
    assert api.last("ListSuspects").kind == inventory_pb2.SUSPECT_KIND_IMAGE


def test_the_runs_that_failed_are_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The newest, as `run show` takes it, and how many more; a failure without a run names none."""

    def runs_of(*workflow_ids: str) -> str:
        found = suspect(failures=len(workflow_ids))
        for one, workflow_id in zip(found.evidence, workflow_ids, strict=True):
            one.workflow_id = workflow_id
        api.handlers["ListSuspects"] = lambda request, context: iter(
            [inventory_pb2.ListSuspectsResponse(suspect=found)]
        )
        row = mulligan("suspect", "list").stdout.splitlines()[1]
        return row.split("2m", 1)[1].split("it is to blame")[0].strip()

    web = [f"provision:default:web-{number}" for number in range(1, 5)]
    assert runs_of(*web) == f"{web[0]} --run-id run-1 and 3 more"
    assert runs_of(web[0]) == f"{web[0]} --run-id run-1"
    assert runs_of("") == "-"


def test_a_suspect_is_cleared(api: ScriptedApi, mulligan: Mulligan) -> None:
    """By its kind and name, as the reason of its quarantine says."""
    api.handlers["ClearSuspect"] = lambda request, context: inventory_pb2.ClearSuspectResponse()
    done = mulligan(*CLEAR.split()[1:])
    assert (done.returncode, done.stdout) == (ExitCode.OK, "nothing is held against image bad any more\n")
    assert (api.last("ClearSuspect").name, api.last("ClearSuspect").reason) == ("bad", "")
    assert "@" in api.last("ClearSuspect").actor
    also = inventory_pb2.ClearSuspectResponse(also=[suspect("PROVIDER", "n1"), suspect("PROVIDER", "n2")])
    api.handlers["ClearSuspect"] = lambda request, context: also
    assert mulligan(*CLEAR.split()[1:]).stdout.splitlines()[1] == (
        "its failures were held against provider n1, provider n2 too, and are no more"
    )
    mulligan("suspect", "clear", "image", "bad", "--reason", "rebuilt", "--actor", "ann")
    assert (api.last("ClearSuspect").actor, api.last("ClearSuspect").reason) == ("ann", "rebuilt")
    api.handlers["ClearSuspect"] = refusal("NOT_FOUND", "no image 'bd': did you mean bad?", "NOT_FOUND", nearest="bad")
    done = mulligan("suspect", "clear", "image", "bd")
    assert done.returncode == ExitCode.NOT_FOUND
    assert "did you mean bad" in done.stderr
    assert mulligan("suspect", "clear", "machine", "bad").returncode == ExitCode.USAGE


def test_what_is_held_against_an_image_or_a_provider_is_shown_with_it(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The newest failures, with run, step and place; and nothing where there is nothing."""
    image = images_pb2.Image(name="bad", digest="sha256:0")
    api.handlers["GetImage"] = lambda request, context: images_pb2.GetImageResponse(image=image, suspect=suspect())
    shown = mulligan("image", "show", "bad").stdout
    assert f"`{CLEAR}`" in shown
    assert "7 failure(s): it is to blame" in shown
    assert "2m ago, provision:default:web-1 --run-id run-1: verify on h1 with bad: no console line" in shown
    assert "and 2 more" in shown
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(
        provider=provider(), suspect=suspect("PROVIDER", "hyp-1", 1)
    )
    assert "1 failure(s)" in mulligan("provider", "show", "hyp-1").stdout
    told = json.loads(mulligan("provider", "show", "hyp-1", "--output", "json").stdout)
    assert (told["name"], told["suspect"]["failures"]) == ("hyp-1", 1)
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(provider=provider())
    assert "failure" not in mulligan("provider", "show", "hyp-1").stdout
    assert json.loads(mulligan("provider", "show", "hyp-1", "--output", "json").stdout)["suspect"] is None


def test_a_provider_is_removed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """What was kept there is told; --forget asks nothing of it; who holds it is in the refusal."""
    removed = inventory_pb2.RemoveProviderResponse(removed=["base-1", "base-2"])
    api.handlers["RemoveProvider"] = lambda request, context: removed
    assert mulligan("provider", "remove", "hyp-1").stdout == "provider hyp-1 is forgotten; 2 image base(s) removed\n"
    assert not api.last("RemoveProvider").forget
    assert json.loads(mulligan("provider", "remove", "hyp-1", "--output", "json").stdout)["removed"][0] == "base-1"
    by = ("--reason", "burnt", "--actor", "alice")
    assert "stays there" in mulligan("provider", "remove", "hyp-1", "--forget", *by).stdout
    asked = api.last("RemoveProvider")
    assert (asked.forget, asked.reason, asked.actor) == (True, "burnt", "alice")
    api.handlers["RemoveProvider"] = refusal("FAILED_PRECONDITION", "1 machine(s) hold something: web-1", "CONFLICT")
    done = mulligan("provider", "remove", "hyp-1")
    assert done.returncode == ExitCode.CONFLICT
    assert "web-1" in done.stderr


def test_what_was_changed_by_hand_is_listed(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Who, what and why; beside its provider too."""
    edit = inventory_pb2.Edit(
        kind=inventory_pb2.EDIT_KIND_PROVIDER, name="hyp-1", what="taken as erased", actor="ann", reason="by DBAN"
    )
    api.handlers["ListEdits"] = lambda request, context: iter([inventory_pb2.ListEditsResponse(edit=edit)])
    row = mulligan("edit", "list", "--kind", "provider", "--name", "hyp-1", "--limit", "7").stdout.splitlines()[1]
    assert row.split()[-6:] == ["ann", "taken", "as", "erased", "by", "DBAN"]
    asked = api.last("ListEdits")
    assert (asked.kind, asked.name, asked.limit) == (inventory_pb2.EDIT_KIND_PROVIDER, "hyp-1", 7)
    api.handlers["GetProvider"] = lambda request, context: inventory_pb2.GetProviderResponse(provider=provider())
    assert "by ann: taken as erased (by DBAN)" in mulligan("provider", "show", "hyp-1").stdout


def test_a_machine_that_was_forgotten_is_listed_with_its_project(api: ScriptedApi, mulligan: Mulligan) -> None:
    """A kind of its own, asked for by project; in JSON by the contract's name."""
    edit = inventory_pb2.Edit(
        kind=inventory_pb2.EDIT_KIND_MACHINE,
        name="web-1",
        project="shop",
        what="forgotten",
        actor="ann",
        reason="burnt",
    )
    api.handlers["ListEdits"] = lambda request, context: iter([inventory_pb2.ListEditsResponse(edit=edit)])
    asking = ("edit", "list", "--kind", "machine", "--project", "shop")
    assert mulligan(*asking).stdout.splitlines()[1].split()[-6:] == [
        *("machine", "web-1", "shop", "ann", "forgotten", "burnt")
    ]
    asked = api.last("ListEdits")
    assert (asked.kind, asked.name, asked.project) == (inventory_pb2.EDIT_KIND_MACHINE, "", "shop")
    (told,) = map(json.loads, mulligan(*asking, "--output", "json").stdout.splitlines())
    assert (told["kind"], told["project"]) == ("EDIT_KIND_MACHINE", "shop")


def test_who_had_claims_repaired_is_told(api: ScriptedApi, mulligan: Mulligan) -> None:
    """With why, where they say so."""
    api.handlers["AuditClaims"] = lambda request, context: iter([])
    assert mulligan("claim", "audit", "--repair", "--reason", "a crash", "--actor", "ann").returncode == ExitCode.OK
    asked = api.last("AuditClaims")
    assert (asked.repair, asked.reason, asked.actor) == (True, "a crash", "ann")
