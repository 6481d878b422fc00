"""Suspects and removals through the API: who is blamed, what is refused for it, how it is put back."""

from __future__ import annotations

import itertools
from dataclasses import replace

import grpc

from mulligan.activities.drivers.simulated import snapshot
from mulligan.activities.inventory import Blame
from mulligan.activities.values import Image, MachineState
from mulligan.v1 import images_pb2, inventory_pb2, machine_pb2, provisioning_pb2
from tests.api.serving import Api, everything, first, info, refusal, spec, violations
from tests.workflows.stack import IMAGE, Stack, until

_numbers = itertools.count(1)
KIND_IMAGE, KIND_PROVIDER = inventory_pb2.SUSPECT_KIND_IMAGE, inventory_pb2.SUSPECT_KIND_PROVIDER


def own_image(stack: Stack, name: str) -> Image:
    """An image of its own for the calling test."""
    return stack.inventory.add_image(replace(IMAGE, name=name, digest="sha256:" + name.encode().hex().rjust(64, "0")))


def fail(stack: Stack, provider: str, image: Image) -> None:
    """Record that a run failed."""
    run = f"run-{next(_numbers)}"
    stack.inventory.record_failure(
        Blame(run, f"provision:default:{run}", run, provider, image.name, image.digest, "verify", "no console line")
    )


async def suspects(api: Api, kind: int = 0) -> dict[str, inventory_pb2.Suspect]:
    """What is listed, by name."""
    request = inventory_pb2.ListSuspectsRequest(kind=kind)  # type: ignore[arg-type]
    return {each.suspect.name: each.suspect for each in await everything(api.inventory.ListSuspects(request))}


async def test_an_image_that_is_quarantined_is_refused_until_it_is_cleared(api: Api, stack: Stack) -> None:
    """With the reason and the command; a run that is under way goes on and is joined; then it is as if nothing was."""
    bad = own_image(stack, "refused")
    project, hosts = await stack.hosts(3, personality="never-boots")
    wait = machine_pb2.Deadlines(verify_seconds=600)
    asked = spec(project, "under-way", image=bad.name, deadlines=wait)
    run = (await first(api.provision(asked, detach=True))).update.run
    for host in hosts:
        fail(stack, host.name, bad)
    error = await refusal(api.provision(spec(project, image=bad.name)))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "image 'refused' is quarantined: 3 runs failed with it" in (error.details() or "")
    assert info(error).metadata["remedy"] == "mulligan suspect clear image refused"
    plan = provisioning_pb2.PlanMachineRequest(spec=spec(project, image=bad.name))
    assert info(await refusal(api.provisioning.PlanMachine(plan))).metadata == info(error).metadata
    joined = await first(api.provision(asked, detach=True))
    assert (joined.joined, joined.update.run.run_id) == (True, run.run_id)
    shown = await api.images.GetImage(images_pb2.GetImageRequest(name=bad.name))
    assert shown.suspect.quarantined == stack.inventory.image_quarantine(bad.digest)
    listed = (await suspects(api, KIND_IMAGE))[bad.name]
    assert listed == shown.suspect
    assert (listed.failures, [each.provider for each in listed.evidence]) == (3, [h.name for h in reversed(hosts)])
    assert listed.evidence[0].at.seconds > 0
    cleared = await api.inventory.ClearSuspect(inventory_pb2.ClearSuspectRequest(kind=KIND_IMAGE, name=bad.name))
    assert cleared.suspect == inventory_pb2.Suspect(kind=KIND_IMAGE, name=bad.name)
    assert not cleared.also  # the image was to blame: nothing was held against its hosts
    assert bad.name not in await suspects(api)
    again = (await first(api.provision(spec(project, image=bad.name, deadlines=wait), detach=True))).update.run
    for each in (run, again):
        await stack.client.get_workflow_handle(each.workflow_id).cancel()
        await everything(api.watch(each.workflow_id))


async def test_a_provider_shows_what_is_held_against_it(api: Api, stack: Stack) -> None:
    """And nothing once it is cleared."""
    good = own_image(stack, "sound")
    _, (host,) = await stack.hosts()
    request = inventory_pb2.GetProviderRequest(name=host.name)
    assert not (await api.inventory.GetProvider(request)).HasField("suspect")
    fail(stack, host.name, good)
    shown = await api.inventory.GetProvider(request)
    assert (shown.provider.suspect_count, shown.suspect.failures) == (1, 1)
    assert shown.suspect.verdict.startswith("not clear yet")
    assert host.name in await suspects(api, KIND_PROVIDER)
    assert host.name not in await suspects(api, KIND_IMAGE)
    cleared = inventory_pb2.ClearSuspectRequest(kind=KIND_PROVIDER, name=host.name, actor="ann@ops", reason="new fan")
    await api.inventory.ClearSuspect(cleared)
    assert (await api.inventory.GetProvider(request)).provider.suspect_count == 0


async def test_who_changed_what_by_hand_is_kept(api: Api, stack: Stack) -> None:
    """Who, when, why and what, newest first: of a clearing, and of an edit with the quarantine that it ends. What is
    refused leaves nothing."""
    good = own_image(stack, "blameless")
    _, (host,) = await stack.hosts()
    fail(stack, host.name, good)
    clear = inventory_pb2.ClearSuspectRequest(kind=KIND_PROVIDER, name=host.name, actor="ann@ops", reason="new fan")
    await api.inventory.ClearSuspect(clear)
    stack.inventory.quarantine_provider(host.name, "smells of smoke")
    generation = stack.inventory.provider(host.name).generation
    update = inventory_pb2.UpdateProviderRequest(name=host.name, generation=generation, actor="bob", enabled=False)
    update.settings["speed"] = "0.001"
    update.clear_quarantine = update.clear_dirty = True
    await api.inventory.UpdateProvider(update)
    error = await refusal(api.inventory.UpdateProvider(update))  # it was edited since
    assert error.code() is grpc.StatusCode.ABORTED
    error = await refusal(
        api.inventory.ClearSuspect(inventory_pb2.ClearSuspectRequest(kind=1, name="x", reason="y" * 501))
    )
    assert list(violations(error)) == ["reason"]
    listing = inventory_pb2.ListEditsRequest(kind=inventory_pb2.EDIT_KIND_PROVIDER, name=host.name)
    last, first_ = [each.edit for each in await everything(api.inventory.ListEdits(listing))]
    assert (first_.actor, first_.reason, first_.what) == (
        "ann@ops", "new fan", "1 failure(s) forgotten, for image blameless too",
    )  # fmt: skip
    assert (last.actor, last.reason) == ("bob", "")
    assert last.what == (
        "taken out of service; settings: speed; put back into service, which was quarantined: smells of smoke; "
        "its failures forgotten; taken as erased"
    )
    assert last.at.seconds >= first_.at.seconds > 0
    listing.limit = 1
    assert [each.edit for each in await everything(api.inventory.ListEdits(listing))] == [last]
    of_images = inventory_pb2.ListEditsRequest(kind=inventory_pb2.EDIT_KIND_IMAGE)
    assert host.name not in [each.edit.name for each in await everything(api.inventory.ListEdits(of_images))]


async def test_what_cannot_be_cleared_or_listed_is_said(api: Api, stack: Stack) -> None:
    """What is wrong with the request, or that there is none of that name."""
    clear = api.inventory.ClearSuspect
    error = await refusal(clear(inventory_pb2.ClearSuspectRequest(name="x")))
    assert violations(error) == {"kind": "must be a provider or an image"}
    for kind in (KIND_IMAGE, KIND_PROVIDER):
        error = await refusal(clear(inventory_pb2.ClearSuspectRequest(kind=kind, name="Not a name")))
        assert list(violations(error)) == ["name"]
        error = await refusal(clear(inventory_pb2.ClearSuspectRequest(kind=kind, name="nobody-knows-it")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
    error = await refusal(api.inventory.ListSuspects(inventory_pb2.ListSuspectsRequest(kind=99)))  # type: ignore[arg-type]
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_provider_is_removed(api: Api, stack: Stack) -> None:
    """Not while a machine holds something of it; then with what was kept there, and its machines' records stay."""
    project, (host,) = await stack.hosts()
    await api.made(project)
    remove = inventory_pb2.RemoveProviderRequest(name=host.name)
    error = await refusal(api.inventory.RemoveProvider(remove))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert info(error).metadata["machines"] == f"{project}/m"
    assert (await api.inventory.GetProvider(inventory_pb2.GetProviderRequest(name=host.name))).provider.enabled
    await everything(api.release(project))
    assert list((await api.inventory.RemoveProvider(remove)).removed) == [IMAGE.digest]
    assert snapshot(stack.site.drivers_dir, project).bases == ()
    assert (await refusal(api.inventory.RemoveProvider(remove))).code() is grpc.StatusCode.NOT_FOUND
    released = stack.inventory.machine(project, "m")
    assert (released.state, released.provider) == (MachineState.RELEASED, host.name)
    assert (await everything(api.release(project)))[-1].update.machine.id == released.id


async def test_a_provider_that_does_not_answer_stays_until_it_is_forgotten(api: Api, stack: Stack) -> None:
    """Disabled meanwhile; the refusal says how to go on. Forgetting asks nothing of it."""
    _, (host,) = await stack.hosts(fail="remove_bases:*:Unreachable")
    error = await refusal(api.inventory.RemoveProvider(inventory_pb2.RemoveProviderRequest(name=host.name)))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert f"Provider {host.name} stays, disabled" in (error.details() or "")
    assert info(error).metadata["remedy"] == f"mulligan provider remove {host.name} --forget"
    assert not stack.inventory.provider(host.name).enabled
    forget = inventory_pb2.RemoveProviderRequest(name=host.name, forget=True, actor="alice", reason="burnt")
    await api.inventory.RemoveProvider(forget)
    assert host.name not in [each.name for each in stack.inventory.providers()]
    asked = inventory_pb2.ListEditsRequest(kind=inventory_pb2.EDIT_KIND_PROVIDER, name=host.name)
    edits = [response.edit for response in await everything(api.inventory.ListEdits(asked))]
    assert [(edit.actor, edit.reason, edit.what.partition(";")[0]) for edit in edits] == [
        ("alice", "burnt", "forgotten"),
        ("unknown", "", "removal asked for"),
    ]
    error = await refusal(
        api.inventory.RemoveProvider(inventory_pb2.RemoveProviderRequest(name="x", reason="y" * 501, actor="a\nb"))
    )
    assert list(violations(error)) == ["reason", "actor"]


async def test_an_image_that_is_forgotten_leaves_the_providers(api: Api, stack: Stack) -> None:
    """Unless another name means the same bytes."""
    gone = own_image(stack, "to-be-forgotten")
    stack.inventory.add_image(replace(gone, name="same-bytes"))
    project, (host,) = await stack.hosts()
    await api.made(project, image=gone.name)
    await everything(api.release(project))
    await api.images.RemoveImage(images_pb2.RemoveImageRequest(name=gone.name))
    assert (host.name, gone.digest) in snapshot(stack.site.drivers_dir, project).bases
    by = {"actor": "ann@ops", "reason": "out of date"}
    await api.images.RemoveImage(images_pb2.RemoveImageRequest(name="same-bytes", **by))
    asked = inventory_pb2.ListEditsRequest(kind=inventory_pb2.EDIT_KIND_IMAGE, name="same-bytes")
    (told,) = [each.edit for each in await everything(api.inventory.ListEdits(asked))]
    assert (told.actor, told.reason, told.what.partition(";")[0]) == (*by.values(), "removed from the registry")

    async def has_left() -> bool:
        return snapshot(stack.site.drivers_dir, project).bases == ()

    await until(has_left)
