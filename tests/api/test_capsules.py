"""ExportRun: one file with all that is known of a run, nothing of it secret, that replays without any server."""

from __future__ import annotations

import base64
import gzip
import time
import uuid
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.history.v1 import History, HistoryEvent, WorkflowExecutionStartedEventAttributes

from mulligan.activities.errors import InvalidRequest
from mulligan.activities.seal import Keyring
from mulligan.activities.values import Outcome
from mulligan.api import capsule_file
from mulligan.api.capsule_file import Capsule, history_of, unpack
from mulligan.api.config import Settings
from mulligan.api.redaction import redact, redact_text
from mulligan.api.replay import replay
from mulligan.api.temporal import connect
from mulligan.v1 import provisioning_pb2
from tests.api.serving import Api, everything, info, refusal, violations
from tests.capsules.record import CORPUS, texts
from tests.services.temporal import running_temporal
from tests.workflows.stack import IMAGE, Stack


async def exported(api: Api, workflow_id: str, run_id: str = "") -> bytes:
    """The capsule's bytes."""
    request = provisioning_pb2.ExportRunRequest(workflow_id=workflow_id, run_id=run_id)
    return b"".join(part.part for part in await everything(api.provisioning.ExportRun(request)))


async def test_a_capsule_has_all_that_is_known_of_a_run_and_replays(api: Api, stack: Stack) -> None:
    """Run, story, evidence, transcript, versions, bounds and history; today's code agrees with it."""
    project, _ = await stack.hosts()
    run = (await api.made(project))[0].update.run
    capsule = unpack(await exported(api, run.workflow_id, run.run_id), "it")
    assert (capsule.run.workflow_id, capsule.run.run_id) == (run.workflow_id, run.run_id)
    assert (capsule.run.kind, capsule.run.outcome) == ("provision", Outcome.READY)
    assert [event.action for event in capsule.events if event.message][-1] == ""
    assert {one.source for one in capsule.evidence} >= {"power", "dhcp-lease"}
    assert "1/boot/boot" in [said.action for said in capsule.transcript]
    assert set(capsule.versions) == {"mulligan", "temporalio", "python", "temporal-server"}
    assert all(capsule.versions.values())
    assert capsule.configuration["deadlines"]["boot_seconds"] == 30
    assert capsule.configuration["lease_seconds"] == 900
    history = history_of(capsule, "it")
    assert history is not None
    assert (await replay(history)).agrees


async def test_no_secret_leaves_with_a_capsule(api: Api, stack: Stack) -> None:
    """Neither plain, nor encoded, nor sealed, nor as a digest; also not what a call home is allowed by."""
    canary, vault = (f"canary-{uuid.uuid4().hex}" for _ in range(2))
    project, (host,) = await stack.hosts()
    await stack.enrol(replace(host, credential=f"vault:{vault}"))
    made = await api.made(project, user_data=f"#cloud-config\npassword: {canary}\n")
    run = made[0].update.run
    machine = stack.inventory.machine(project, "m")
    keyring = Keyring.load(stack.directory / "secret.key")
    assert canary in keyring.open(machine.request.user_data)
    data = await exported(api, run.workflow_id)
    capsule = unpack(data, "it")
    everywhere = "\n".join([gzip.decompress(data).decode(), *texts(capsule.history)])
    token = base64.urlsafe_b64encode(f'["provision:{project}:'.encode()).decode()[:16]
    secrets = (canary, vault, machine.request.user_data, machine.request.user_data_digest, "sealed:v1", token)
    encoded = [
        base64.b64encode(secret.encode()[shift:]).decode()[:24] for secret in (canary, vault) for shift in (0, 1, 2)
    ]
    found = [secret for secret in (*secrets, *encoded) if secret in everywhere]
    assert found == []
    assert '"user_data":"redacted"' in everywhere
    history = history_of(capsule, "it")
    assert history is not None
    verdict = await replay(history)
    assert verdict.agrees, verdict.why


async def test_what_opens_a_url_leaves_with_no_capsule(api: Api, stack: Stack) -> None:
    """A signed source's query, and a network configuration with its passwords; what is left replays."""
    canary = f"canary-{uuid.uuid4().hex}"
    project, _ = await stack.hosts()
    signed = replace(IMAGE, name=f"signed-{project}", source=f"https://images.example/d.qcow2?X-Signature={canary}&a=b")
    stack.inventory.add_image(signed)
    network = f"version: 2\nwifis: {{w0: {{access-points: {{x: {{password: {canary}}}}}}}}}\n"
    made = await api.made(project, image=signed.name, network_config=network)
    data = await exported(api, made[0].update.run.workflow_id)
    capsule = unpack(data, "it")
    everywhere = "\n".join([gzip.decompress(data).decode(), *texts(capsule.history)])
    assert canary not in everywhere
    assert "https://images.example/d.qcow2?redacted" in everywhere
    history = history_of(capsule, "it")
    assert history is not None
    assert (await replay(history)).agrees


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("GET http://h/p?token=x&y=z: 403", "GET http://h/p?redacted 403"),
        ('{"a":"https://u:pw@h/p?q=1#f","b":1}', '{"a":"https://redacted@h/p?redacted","b":1}'),
        ("qemu+ssh://me:pw@h/system?no_tty=1", "qemu+ssh://redacted@h/system?no_tty=1"),
        ("qemu+ssh://me@h/system", "qemu+ssh://me@h/system"),
        ("http://h:80/a what? user@h", "http://h:80/a what? user@h"),
    ],
)
def test_what_opens_a_url_is_found_in_any_text(text: str, left: str) -> None:
    """And what only names a place stays."""
    assert redact_text(text) == left


def test_redaction_reaches_wherever_a_payload_can_be() -> None:
    """In lists, in maps, in what is not JSON; what is no secret stays as it is."""
    keyring = Keyring(bytes(32))
    sealed, digest = keyring.seal("canary"), keyring.digest("canary")
    plain = Payload(metadata={"encoding": b"json/plain"}, data=b'{"name":"m","user_data":""}')
    hidden = [
        Payload(data=f'[{{"request":{{"user_data":"{sealed}","user_data_digest":"{digest}"}}}}]'.encode()),
        Payload(data=f"said: {sealed}".encode()),
        Payload(data=f'"{digest} and {sealed}"'.encode()),
    ]
    started = WorkflowExecutionStartedEventAttributes(input=Payloads(payloads=[*hidden, plain]))
    started.memo.fields["request"].CopyFrom(hidden[0])
    started.header.fields["more"].CopyFrom(hidden[1])
    history = History(events=[HistoryEvent(event_id=1, workflow_execution_started_event_attributes=started)])
    redact(history)
    after = history.SerializeToString()
    assert sealed.encode() not in after
    assert digest.encode() not in after
    assert history.events[0].workflow_execution_started_event_attributes.input.payloads[-1] == plain


async def test_an_open_run_can_be_exported_too(api: Api, stack: Stack) -> None:
    """What it did so far, which replays."""
    project, _ = await stack.hosts(personality="no-call-home")
    handle = await stack.start(stack.request(project))
    capsule = unpack(await exported(api, handle.id), "it")
    assert capsule.run.outcome is Outcome.OPEN
    history = history_of(capsule, "it")
    assert history is not None
    assert (await replay(history)).agrees
    await handle.cancel()


async def test_a_run_that_temporal_has_forgotten_leaves_its_story(api: Api, stack: Stack, tmp_path: Path) -> None:
    """The kept events and the evidence, and no history."""
    project, _ = await stack.hosts()
    run = (await api.made(project))[0].update.run
    before = unpack(await exported(api, run.workflow_id), "it")
    with running_temporal(tmp_path) as address:
        client = await connect(Settings(temporal=address, state_dir=tmp_path))
        async with Api(stack, client) as later:
            capsule = unpack(await exported(later, run.workflow_id), "it")
    assert capsule.history is None
    assert history_of(capsule, "it") is None
    assert capsule.events[:-1] == before.events[:-1]
    assert capsule.evidence == before.evidence
    assert capsule.configuration == before.configuration


async def test_what_cannot_be_a_run_is_refused(api: Api) -> None:
    """An unknown run is not found, a wrong id is named."""
    unknown = provisioning_pb2.ExportRunRequest(workflow_id="provision:default:nothing")
    assert (await refusal(api.provisioning.ExportRun(unknown))).code() is grpc.StatusCode.NOT_FOUND
    error = await refusal(api.provisioning.ExportRun(provisioning_pb2.ExportRunRequest()))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "workflow_id" in violations(error)
    assert info(error).reason == "INVALID_REQUEST"


READY = (CORPUS / "simulated-ready.capsule").read_bytes()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is no capsule"),
        (b"hello", "is no capsule"),
        (b'{"format": "x"}', "is no capsule"),
        (gzip.compress(b"hello"), "is no capsule"),
        (READY[: len(READY) // 2], "is cut off"),
        (READY[:200] + b"\0" * 8 + READY[208:], "is damaged"),
        (gzip.decompress(READY)[:-5], "is damaged"),
        (gzip.decompress(READY).replace(b'"version": 1', b'"version": 2'), "has version 2 of the format"),
        (gzip.decompress(READY).replace(b'"outcome"', b'"income"'), "is damaged: "),
    ],
    ids=["empty", "text", "json", "gzip", "half", "zeros", "shortened", "newer", "renamed"],
)
def test_what_is_no_whole_capsule_is_told(data: bytes, says: str) -> None:
    """Each by what is wrong with it, naming the file."""
    with pytest.raises(InvalidRequest, match=r"the\.capsule") as refused:
        unpack(data, "the.capsule")
    assert says in refused.value.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda events: [], "no beginning"),
        (lambda events: events[1:], "no beginning"),
        (lambda events: events[:5] + events[6:], "events are missing"),
        (lambda events: events[:-1], "no end"),
        (lambda events: [*events[:-1], {"eventId": events[-1]["eventId"]}], "is empty"),
        (lambda events: [*events[:-1], {"eventTime": "never"}], "ParseError"),
        (lambda events: "nothing", "damaged"),
    ],
)
def test_a_history_that_no_server_wrote_is_told(change: object, says: str) -> None:
    """Temporal's core trusts its server: what is damaged must not get that far."""
    capsule = unpack(READY, "it")
    assert capsule.history is not None
    broken: Capsule = replace(capsule, history={"events": change(capsule.history["events"])})  # type: ignore[operator]
    with pytest.raises(InvalidRequest) as refused:
        history_of(broken, "the.capsule")
    assert says in refused.value.message


def test_a_bomb_of_many_small_parts_is_not_built() -> None:
    """Few bytes of JSON that would be gigabytes of memory."""
    bomb = b'{"format":"mulligan-capsule","history":{"a":[' + b"{}," * (capsule_file.MOST_PARTS // 2 + 1) + b"1]}}"
    with pytest.raises(InvalidRequest, match="8,000,000 parts"):
        unpack(gzip.compress(bomb, 1), "it")


def test_redaction_of_a_long_text_is_quick() -> None:
    """A history's payloads are long runs of letters, in which nothing may be looked for again from each one."""
    began = time.monotonic()
    redact_text("a" * 2_000_000)
    assert time.monotonic() - began < 10


def test_a_bomb_is_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it says of itself, no more than the limit is taken into memory."""
    monkeypatch.setattr(capsule_file, "MOST_EXPANDED", 2**20)
    with pytest.raises(InvalidRequest, match="expands to more than 1 MiB"):
        unpack(gzip.compress(bytes(2**22)), "the.capsule")
