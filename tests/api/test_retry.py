"""A machine whose run ended badly is made afresh: the same request, a new run of the same id."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from pydantic import TypeAdapter

from mulligan.api.config import Settings
from mulligan.api.search import register
from mulligan.api.temporal import connect
from mulligan.v1 import machine_pb2, run_pb2
from mulligan.v1 import provisioning_pb2 as pb
from mulligan.workflows.runs import ProvisionIn
from tests.api.serving import Api, events, everything, first, info, refusal, spec
from tests.services.temporal import running_temporal
from tests.workflows.stack import Stack, is_clean

USER_DATA = "#cloud-config\nhostname: kept\n"


async def failed(api: Api, stack: Stack, **settings: str) -> tuple[str, str]:
    """(project, run) of a machine whose first boot its only host refused; the next one goes well."""
    project, _ = await stack.hosts(**({"fail": "define:1:Unsupported"} | settings))
    made = await api.made(project, mulligans=0, user_data=USER_DATA)
    assert made[-2].update.run.outcome == run_pb2.RUN_OUTCOME_FAILED
    return project, made[0].update.run.workflow_id


def retry(api: Api, workflow_id: str, reason: str = "the host was mended") -> grpc.aio.UnaryUnaryCall:
    """Ask for it afresh."""
    return api.provisioning.RetryRun(pb.RetryRunRequest(workflow_id=workflow_id, actor="alice", reason=reason))


async def test_a_failed_run_is_made_afresh(api: Api, stack: Stack) -> None:
    """The new run has the id, the request and the sealed user data of the old one, and says who asked, and why."""
    project, workflow_id = await failed(api, stack)
    run = (await retry(api, workflow_id)).run
    assert run.workflow_id == workflow_id
    assert run.outcome == run_pb2.RUN_OUTCOME_OPEN
    stream = await everything(api.watch(workflow_id))
    assert stream[-2].update.run.run_id == run.run_id
    assert stream[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY
    assert events(stream)[0].message == "run started, retried by alice: the host was mended"
    assert stack.inventory.machine(project, "m").request.user_data_digest
    old, new = stack.inventory.runs(project=project)[::-1]
    assert (old.run_id != new.run_id, old.machine_id != new.machine_id) == (True, True)
    again = await everything(api.provision(spec(project, mulligans=0, user_data=USER_DATA)))
    assert again[0].joined, "the same request is still the same"


async def test_what_temporal_forgot_is_made_afresh_from_the_database(api: Api, stack: Stack, tmp_path: Path) -> None:
    """The machine's record keeps the request, with its user data sealed, and the image."""
    project, workflow_id = await failed(api, stack)
    asked = stack.inventory.machine(project, "m")
    with running_temporal(tmp_path) as address:
        client = await connect(Settings(temporal=address, state_dir=tmp_path))
        await register(client)
        async with Api(stack, client) as later:
            run = (await retry(later, workflow_id)).run
            assert run.outcome == run_pb2.RUN_OUTCOME_OPEN
            handle = client.get_workflow_handle(workflow_id, run_id=run.run_id)
            begun = await anext(handle.fetch_history_events())
    (payload,) = begun.workflow_execution_started_event_attributes.input.payloads
    given = TypeAdapter(ProvisionIn).validate_json(payload.data)
    assert (given.request, given.image) == (asked.request, asked.image)
    assert given.request.user_data
    assert given.machine_id != asked.id


async def test_a_cancelled_run_is_made_afresh_once(api: Api, stack: Stack) -> None:
    """Of two who ask at once, one may be told that it is open; there is one new run."""
    project, _ = await stack.hosts(hold="define:1:1")
    workflow_id = (await first(api.provision(spec(project), detach=True))).update.run.workflow_id
    await api.provisioning.CancelRun(pb.CancelRunRequest(workflow_id=workflow_id))
    await everything(api.watch(workflow_id))
    answers = await asyncio.gather(retry(api, workflow_id), retry(api, workflow_id), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert [each.code() for each in refused] in ([], [grpc.StatusCode.FAILED_PRECONDITION])
    begun = {each.run.run_id for each in answers if isinstance(each, pb.RetryRunResponse)}
    assert len(begun) == 1
    assert (await everything(api.watch(workflow_id)))[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY


async def test_what_is_open_or_ready_or_takes_down_is_not_retried(api: Api, stack: Stack) -> None:
    """FAILED_PRECONDITION names the command that is meant."""
    project, _ = await stack.hosts(hold="define:1:2")
    workflow_id = (await first(api.provision(spec(project), detach=True))).update.run.workflow_id
    error = await refusal(retry(api, workflow_id))
    assert (error.code(), info(error).reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONFLICT")
    assert info(error).metadata["remedy"] == f"mulligan run watch {workflow_id}"
    await everything(api.watch(workflow_id))
    error = await refusal(retry(api, workflow_id))
    assert info(error).metadata["remedy"] == f"mulligan machine show m --project {project}"
    await everything(api.release(project))
    error = await refusal(retry(api, f"release:{project}:m"))
    assert info(error).metadata["remedy"] == f"mulligan machine release m --project {project}"
    assert (await refusal(retry(api, f"provision:{project}-other:m"))).code() is grpc.StatusCode.NOT_FOUND


async def test_what_is_quarantined_is_mended_first(api: Api, stack: Stack) -> None:
    """Then the run can be made afresh."""
    project, (host,) = await stack.hosts(personality="stuck-undo,cloud-init-failed")
    guest = machine_pb2.VERIFY_LEVEL_GUEST
    deadlines = machine_pb2.Deadlines(claim_seconds=60, boot_seconds=60, verify_seconds=60, undo_seconds=2)
    made = await api.made(project, verify=guest, deadlines=deadlines, mulligans=0)
    assert made[-2].update.run.outcome == run_pb2.RUN_OUTCOME_QUARANTINED
    error = await refusal(retry(api, f"provision:{project}:m"))
    mend = f"mulligan machine release m --project {project}"
    assert (error.code(), info(error).metadata["remedy"]) == (grpc.StatusCode.FAILED_PRECONDITION, mend)
    assert events(made)[-1].suggestions[0] == mend
    asked_anew = await refusal(api.provision(spec(project)))
    assert info(asked_anew).metadata["remedy"] == mend
    assert f"take it down with `{mend}`" in str(asked_anew.details())
    await stack.enrol_with(host, personality="")
    await everything(api.release(project))
    assert is_clean(stack, project)
    await retry(api, f"provision:{project}:m")
    stream = await everything(api.watch(f"provision:{project}:m"))
    assert stream[-2].update.run.outcome == run_pb2.RUN_OUTCOME_READY
