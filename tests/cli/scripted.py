"""An API in the test's process: the contract's services over real gRPC, with scripted answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from mulligan.v1 import (
    images_pb2_grpc,
    inventory_pb2_grpc,
    machine_pb2,
    provisioning_pb2,
    provisioning_pb2_grpc,
    run_pb2,
)

Handler = Callable[[Any, grpc.ServicerContext], Any]
ID = "provision:default:web-1"
STARTED = 1_790_000_000


class ScriptedApi:
    """Answers each method by the handler of that name; `asked` keeps what was asked. Stop and start it as you like."""

    def __init__(self) -> None:
        self.handlers: dict[str, Handler] = {"ListEdits": lambda request, context: iter(())}
        """By method. That nothing was changed by hand is answered unless a test says otherwise."""
        self.asked: list[tuple[str, Message]] = []
        self.port = 0
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen, on the same port as before."""
        server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
        for service in (
            provisioning_pb2_grpc.ProvisioningService,
            inventory_pb2_grpc.InventoryService,
            images_pb2_grpc.ImagesService,
        ):
            name = service.__name__
            module = (
                {"P": provisioning_pb2_grpc, "I": inventory_pb2_grpc}[name[0]] if name[1] != "m" else images_pb2_grpc
            )
            servicer = getattr(module, f"{name}Servicer")()
            for method in [each for each in dir(servicer) if each[0].isupper()]:
                setattr(servicer, method, self._answer(method, streams=_streams(method)))
            getattr(module, f"add_{name}Servicer_to_server")(servicer, server)
        self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        server.start()
        self._server = server

    def stop(self) -> None:
        """Go away at once, as a server that is killed does."""
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def last(self, method: str) -> Any:
        """What was asked of this method last."""
        return [request for name, request in self.asked if name == method][-1]

    def _answer(self, method: str, *, streams: bool) -> Handler:
        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            self.asked.append((method, request))
            return self.handlers[method](request, context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            self.asked.append((method, request))
            yield from self.handlers[method](request, context)

        return stream if streams else unary


def _streams(method: str) -> bool:
    return method.startswith("List") or method in ("ProvisionMachine", "WatchRun", "ReleaseMachine", "ExportRun")


def refuse(context: grpc.ServicerContext, code: int, message: str, *details: Message) -> None:
    """End the call with a rich status."""
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed = PackedAny()
        packed.Pack(detail)
        status.details.append(packed)
    context.abort_with_status(rpc_status.to_status(status))


def refusal(code: str, message: str, reason: str, *details: Message, **metadata: str) -> Handler:
    """A handler that always ends the call so. It suits single answers and streams."""

    def handler(request: Any, context: grpc.ServicerContext) -> Any:
        info = error_details_pb2.ErrorInfo(reason=reason, domain="mulligan", metadata=metadata)
        refuse(context, code_pb2.Code.Value(code), message, info, *details)

    return handler


def run_update(outcome: str = "OPEN", kind: str = "PROVISION", reason: str = "") -> run_pb2.RunUpdate:
    """The run itself."""
    run = run_pb2.Run(
        workflow_id=ID if kind == "PROVISION" else "release:default:web-1",
        run_id="a-run",
        kind=run_pb2.RunKind.Value(f"RUN_KIND_{kind}"),
        project="default",
        machine="web-1",
        machine_id="a-machine",
        outcome=run_pb2.RunOutcome.Value(f"RUN_OUTCOME_{outcome}"),
        reason=reason,
    )
    run.started_at.seconds = STARTED
    if outcome != "OPEN":
        run.ended_at.seconds = STARTED + 12
    return run_pb2.RunUpdate(run=run)


def event(
    cursor: int, kind: str, step: str = "", action: str = "", message: str = "", **more: Any
) -> run_pb2.RunUpdate:
    """A durable event, so many seconds after the run began as its cursor says."""
    told = run_pb2.RunEvent(
        cursor=str(cursor),
        kind=run_pb2.RunEventKind.Value(f"RUN_EVENT_KIND_{kind}"),
        step=step,
        action=action,
        message=message,
        **{"try": 1, **more},
    )
    told.at.seconds = STARTED + cursor
    return run_pb2.RunUpdate(event=told)


def evidence() -> machine_pb2.Evidence:
    """An address that was seen."""
    seen = machine_pb2.Evidence(
        level=machine_pb2.VERIFY_LEVEL_ADDRESS, source="dhcp-lease", observed="leased 192.0.2.10 to 52:54:00:00:00:01"
    )
    seen.at.seconds = STARTED + 10
    return seen


def machine() -> machine_pb2.Machine:
    """A machine that is up."""
    return machine_pb2.Machine(
        id="a-machine",
        project="default",
        name="web-1",
        state=machine_pb2.MACHINE_STATE_READY,
        partition="default",
        provider="hyp-1",
        workflow_id=ID,
        addresses=["192.0.2.10"],
        login="demo",
        spec=machine_pb2.MachineSpec(ssh_keys=["ssh-ed25519 AAAA"]),
        evidence=[evidence()],
    )


def story() -> list[run_pb2.RunUpdate]:
    """All that a run tells that went well."""
    ready = run_pb2.RUN_OUTCOME_READY
    return [
        run_update(),
        event(1, "RUN_STARTED", message="run started"),
        event(2, "ACTION_STARTED", "claim", "claim"),
        event(3, "ACTION_FINISHED", "claim", "claim", "claimed hyp-1", provider="hyp-1", attempts=1),
        event(4, "ACTION_STARTED", "image", "prepare"),
        run_pb2.RunUpdate(
            progress=run_pb2.RunProgress(
                step="image",
                action="prepare",
                attempt=1,
                message="fetching",
                done=64 << 20,
                total=256 << 20,
                **{"try": 1},
            )
        ),
        event(5, "ACTION_FINISHED", "image", "prepare", "image is there", provider="hyp-1", attempts=1),
        event(6, "ACTION_STARTED", "boot", "power-on", provider="hyp-1"),
        event(7, "ACTION_FINISHED", "boot", "power-on", "power is on", provider="hyp-1", attempts=1),
        event(8, "ACTION_STARTED", "verify", "address", provider="hyp-1"),
        event(
            9,
            "ACTION_FINISHED",
            "verify",
            "address",
            "address seen",
            provider="hyp-1",
            attempts=1,
            evidence=[evidence()],
        ),
        event(10, "RUN_FINISHED", message="web-1 is up", provider="hyp-1", outcome=ready),
        run_pb2.RunUpdate(machine=machine()),
        run_update("READY"),
    ]


def provisions(updates: list[run_pb2.RunUpdate], *, joined: bool = False) -> Handler:
    """A handler that streams these updates as ProvisionMachine does."""

    def handler(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for number, update in enumerate(updates[:1] if request.detach else updates):
            yield provisioning_pb2.ProvisionMachineResponse(update=update, joined=joined and number == 0)

    return handler


def releases(updates: list[run_pb2.RunUpdate]) -> Handler:
    """A handler that streams these updates as ReleaseMachine does."""

    def handler(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for number, update in enumerate(updates):
            yield provisioning_pb2.ReleaseMachineResponse(update=update, joined=number == 0)

    return handler


def watches(updates: list[run_pb2.RunUpdate]) -> Handler:
    """A handler that streams these updates as WatchRun does: the run, then what is after the cursor."""

    def handler(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for update in updates:
            if update.HasField("event") and request.cursor and int(update.event.cursor) <= int(request.cursor):
                continue
            yield provisioning_pb2.WatchRunResponse(update=update)

    return handler


def stays_open(updates: list[run_pb2.RunUpdate], told: threading.Event) -> Handler:
    """A handler that streams these updates, sets `told`, and then is silent until its caller or server goes away."""

    def handler(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        gone = threading.Event()
        context.add_callback(gone.set)
        for update in updates:
            yield provisioning_pb2.ProvisionMachineResponse(update=update)
        told.set()
        gone.wait(60)

    return handler
