"""Plans over gRPC: what a run would do, and that it does so, or says what changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc

from mulligan.activities.values import MachineState
from mulligan.v1 import inventory_pb2, machine_pb2, provisioning_pb2, run_pb2
from mulligan.workflows.runs import PLAN, provision_id
from tests.api.serving import Api, events, everything, info, refusal, spec, violations
from tests.workflows.stack import IMAGE, Stack, is_clean


async def plan_of(api: Api, project: str, name: str = "m", **values: Any) -> provisioning_pb2.Plan:
    """The plan of a request."""
    request = provisioning_pb2.PlanMachineRequest(spec=spec(project, name, **values))
    response: provisioning_pb2.PlanMachineResponse = await api.provisioning.PlanMachine(request)
    return response.plan


async def refused(api: Api, project: str, plan: provisioning_pb2.Plan, **values: Any) -> grpc.aio.AioRpcError:
    """The error with which the plan is refused."""
    return await refusal(api.provision(spec(project, **values), plan_hash=plan.hash))


async def test_a_plan_shows_all_that_a_run_would_do(api: Api, stack: Stack) -> None:
    """Provider and why, bytes, and each step with its deadline and its undo; nothing is claimed."""
    project, (host,) = await stack.hosts()
    plan = await plan_of(api, project, user_data="#cloud-config\npassword: canary-7e1\n")
    assert plan.provider == host.name
    assert "no other provider" in plan.why
    assert plan.explanation.verdict == inventory_pb2.Explanation.VERDICT_FITS
    assert (plan.image_digest, plan.place_bytes) == (IMAGE.digest, IMAGE.virtual_size_bytes)
    assert [step.step for step in plan.steps] == ["claim", "image", "boot", "verify"]
    assert [step.deadline_seconds for step in plan.steps] == [20, 7200, 30, 30]
    assert {step.step: [undo.action for undo in step.undo] for step in plan.steps} == {
        "claim": ["release-claim"],
        "image": ["remove-disks"],
        "boot": ["tear-down"],
        "verify": [],
    }
    assert "1 vcpu" in plan.steps[0].description
    assert "level address" in plan.steps[3].description
    assert plan.hash.startswith("plan-")
    assert plan.made_at.seconds
    assert "canary" not in str(plan)
    assert is_clean(stack, project)


async def test_a_plan_is_applied_by_its_hash(api: Api, stack: Stack) -> None:
    """The run makes the machine where the plan said, also when another provider would come first by now."""
    project, _ = await stack.hosts(2)
    plan = await plan_of(api, project)
    stack.inventory.mark_suspect(plan.provider, "so that the other one would be chosen")
    responses = await everything(api.provision(spec(project), plan_hash=plan.hash))
    made = stack.inventory.machine(project, "m")
    assert (made.state, made.provider) == (MachineState.READY, plan.provider)
    assert {event.provider for event in events(responses) if event.provider} == {plan.provider}


async def test_a_plan_of_the_same_has_the_same_hash(api: Api, stack: Stack) -> None:
    """So that two people can compare what they were told."""
    project, _ = await stack.hosts()
    assert (await plan_of(api, project)).hash == (await plan_of(api, project)).hash
    assert (await plan_of(api, project)).hash != (await plan_of(api, project, "other")).hash


async def test_nothing_fits(api: Api, stack: Stack) -> None:
    """The plan has no provider and no hash, the reason, and the steps all the same."""
    project, (host,) = await stack.hosts()
    plan = await plan_of(api, project, resources=machine_pb2.Resources(vcpu=900, memory_mib=512, disk_gib=2))
    assert (plan.provider, plan.hash) == ("", "")
    assert plan.explanation.verdict == inventory_pb2.Explanation.VERDICT_NEVER
    assert host.name in {miss.provider for miss in plan.explanation.near_misses}
    assert len(plan.steps) == 4


async def test_a_wrong_request_is_refused_as_it_would_be_by_a_run(api: Api, stack: Stack) -> None:
    """With its violations."""
    project, _ = await stack.hosts()
    error = await refusal(
        api.provisioning.PlanMachine(provisioning_pb2.PlanMachineRequest(spec=spec(project, "Not A Name")))
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "spec.name" in violations(error)


async def test_an_unknown_hash_is_not_found(api: Api, stack: Stack) -> None:
    """It says to plan again, and starts nothing."""
    project, _ = await stack.hosts()
    error = await refusal(api.provision(spec(project), plan_hash="plan-0000000000000000"))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "plan again" in str(error.details())
    assert is_clean(stack, project)


async def test_a_plan_of_another_request_is_refused(api: Api, stack: Stack) -> None:
    """With the fields that differ; nothing is started."""
    project, _ = await stack.hosts()
    plan = await plan_of(api, project)
    bigger = machine_pb2.Resources(vcpu=2, memory_mib=512, disk_gib=2)
    error = await refused(api, project, plan, resources=bigger, mulligans=3)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations(error)) == {"spec.resources.vcpu", "spec.mulligans"}
    assert is_clean(stack, project)


async def test_a_provider_that_was_taken_meanwhile(api: Api, stack: Stack) -> None:
    """The plan says what it has left, and starts nothing."""
    project, (host,) = await stack.hosts(vcpu="4")
    plan = await plan_of(api, project)
    await api.made(project, "first", resources=machine_pb2.Resources(vcpu=4, memory_mib=512, disk_gib=2))
    error = await refused(api, project, plan)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"provider {host.name} cannot be claimed any more: has 0 of its 4 vcpu free (asked: 1)" in str(
        error.details()
    )
    assert info(error).metadata["changed"] == "provider"
    assert len(stack.inventory.claims(project=project)) == 1


async def test_a_provider_that_was_changed_meanwhile(api: Api, stack: Stack) -> None:
    """Whatever the operator did there: the generation tells."""
    project, (host,) = await stack.hosts()
    plan = await plan_of(api, project)
    await stack.enrol_with(host, speed="0")
    error = await refused(api, project, plan)
    assert "its generation was 1, is 2" in str(error.details())
    assert info(error).metadata["changed"] == "generation"
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_provider_that_is_out_of_service_meanwhile(api: Api, stack: Stack) -> None:
    """The reason is the explanation's own; a run without the plan would take the other provider."""
    project, _ = await stack.hosts(2)
    plan = await plan_of(api, project)
    stack.inventory.quarantine_provider(plan.provider, "smoke")
    error = await refused(api, project, plan)
    assert f"provider {plan.provider} cannot be claimed any more: is quarantined" in str(error.details())


async def test_an_image_that_is_another_meanwhile(api: Api, stack: Stack) -> None:
    """The name is the same, the bytes are not."""
    project, _ = await stack.hosts()
    image = replace(IMAGE, name=f"image-{project}")
    stack.inventory.add_image(image)
    plan = await plan_of(api, project, image=image.name)
    stack.inventory.remove_image(image.name)
    stack.inventory.add_image(replace(image, digest="sha256:" + "1" * 64))
    error = await refused(api, project, plan, image=image.name)
    assert f"image {image.name} is another: sha256:111" in str(error.details())
    assert info(error).metadata["changed"] == "image"


async def test_bytes_that_need_not_be_moved_any_more(api: Api, stack: Stack) -> None:
    """Also a change for the better is one: the plan is not what would be done."""
    project, (host,) = await stack.hosts()
    plan = await plan_of(api, project)
    await api.made(project, "first")
    error = await refused(api, project, plan)
    assert f"0 MiB are to be put on {host.name}, not 1024 MiB" in str(error.details())
    assert info(error).metadata["changed"] == "place_bytes"
    again = await plan_of(api, project)
    await everything(api.provision(spec(project), plan_hash=again.hash))
    assert stack.inventory.machine(project, "m").provider == host.name


async def test_a_provider_that_does_not_answer_meanwhile(api: Api, stack: Stack) -> None:
    """Every change is said, not only the first."""
    project, (host,) = await stack.hosts()
    plan = await plan_of(api, project)
    await stack.enrol_with(host, fail="has_base:*:AccessDenied")
    error = await refused(api, project, plan)
    assert info(error).metadata["changed"] == "generation,lacks"
    assert f"{host.name} could not be looked at" in str(error.details())


async def test_a_plan_whose_machine_is_there_already_is_as_good_as_none(api: Api, stack: Stack) -> None:
    """Asking twice with the same plan finds the machine; a forgotten plan does not stand in the way either."""
    project, _ = await stack.hosts()
    plan = await plan_of(api, project)
    await everything(api.provision(spec(project), plan_hash=plan.hash))
    for plan_hash in (plan.hash, "plan-0000000000000000"):
        again = await everything(api.provision(spec(project), plan_hash=plan_hash))
        assert again[0].joined
        assert again[-1].update.machine.provider == plan.provider


async def test_a_plan_whose_run_is_under_way_joins_it(api: Api, stack: Stack) -> None:
    """Although that run took the room that the plan counted on."""
    project, _ = await stack.hosts(vcpu="1", personality="no-call-home")
    values = {"verify": machine_pb2.VERIFY_LEVEL_GUEST}
    plan = await plan_of(api, project, **values)
    first = api.provision(spec(project, **values), plan_hash=plan.hash)
    async for response in first:
        if response.update.event.action == "claim" and response.update.event.attempts:
            break
    joined = await everything(api.provision(spec(project, **values), plan_hash=plan.hash, detach=True))
    assert joined[0].joined
    await stack.client.get_workflow_handle(provision_id(project, "m")).cancel()
    assert any(event.kind == run_pb2.RUN_EVENT_KIND_CANCEL_REQUESTED for event in events(await everything(first)))


async def test_planning_is_no_run(api: Api, stack: Stack) -> None:
    """It is in Temporal, for who looks there, and in no list of runs."""
    project, _ = await stack.hosts()
    await plan_of(api, project)
    listed = await everything(api.provisioning.ListRuns(provisioning_pb2.ListRunsRequest()))
    assert not [one for one in listed if one.run.workflow_id.startswith("plan:")]
    assert [run.id async for run in stack.client.list_workflows(f"WorkflowType = '{PLAN}'", limit=1)]


async def test_the_explanation_asks_for_what_the_level_needs(api: Api, stack: Stack) -> None:
    """As a claim does, with an image and without one."""
    project, _ = await stack.hosts()
    for level, needed in ((machine_pb2.VERIFY_LEVEL_POWER, False), (machine_pb2.VERIFY_LEVEL_CONSOLE, True)):
        for image in ("", "demo"):
            asked = inventory_pb2.ExplainClaimRequest(spec=spec(project, image=image, verify=level))
            funnel = (await api.inventory.ExplainClaim(asked)).explanation.funnel
            assert ("requires.console.serial" in {stage.name for stage in funnel}) is needed


async def test_a_plan_for_a_machine_that_is_there_says_so(api: Api, stack: Stack) -> None:
    """The same request would join it, and another one would be refused: so is its plan."""
    project, _ = await stack.hosts(vcpu="1")
    await everything(api.provision(spec(project)))
    plan = await plan_of(api, project)
    assert plan.why == (
        f"machine m is there already, ready, made by {provision_id(project, 'm')}, and would be given as it is; "
        "anew: no provider fits now"
    )
    assert plan.there == provision_id(project, "m")
    request = provisioning_pb2.PlanMachineRequest(spec=spec(project, mulligans=3))
    error = await refusal(api.provisioning.PlanMachine(request))
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert "differs in mulligans" in str(error.details())
    assert info(error).metadata["remedy"] == f"mulligan machine show m --project {project}"


async def test_a_provider_that_lacks_several_things_meanwhile_is_told_among_many(api: Api, stack: Stack) -> None:
    """However many others fail less than it: what it lacks is said, and not that they were not planned for."""
    project, hosts = await stack.hosts(7, vcpu="4", memory_mib="4096")
    plan = await plan_of(api, project)
    host = next(host for host in hosts if host.name == plan.provider)
    whole = machine_pb2.Resources(vcpu=4, memory_mib=4096, disk_gib=2)
    await api.made(project, "first", resources=whole, provider=host.name)
    generation = stack.inventory.provider(host.name).generation
    stack.inventory.edit_provider(host.name, generation=generation, enabled=False)
    details = str((await refused(api, project, plan)).details())
    told = "is disabled, has 0 of its 4 vcpu free (asked: 1), has 0 of its 4096"
    assert f"{host.name} cannot be claimed any more: {told}" in details
