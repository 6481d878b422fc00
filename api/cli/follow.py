"""Following a run to its end: shows its stream, resumes it when the API server goes away, detaches on Ctrl-C, or when
the time allowed for watching is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import click
import grpc

from mulligan.api.cli.client import Session
from mulligan.api.cli.display import Display, display_for
from mulligan.api.cli.errors import CliError, of_rpc, status_of, tell_next
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.interrupts import Interrupted, Interrupts
from mulligan.api.cli.typed import again
from mulligan.api.cli.view import RunView
from mulligan.v1 import provisioning_pb2, run_pb2

Updates = Iterator[run_pb2.RunUpdate]
Opener = Callable[[float | None], Updates]
"""Opens a stream that may last so many seconds (None: to its end)."""

RECONNECT_SECONDS = 300.0
"""How long an API server may be away before its watcher gives up; the run goes on all the while."""

LONGEST_WAIT = 5.0
"""Seconds between two tries to reach it."""

_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})


class TimeIsOver(Exception):
    """The time allowed for watching was over before the run was."""


class Follower:
    """One run's stream, which outlives the API server that it comes from."""

    def __init__(
        self,
        session: Session,
        view: RunView,
        display: Display,
        interrupts: Interrupts | None = None,
        *,
        patience: float = RECONNECT_SECONDS,
    ) -> None:
        self._session = session
        self._view = view
        self._display = display
        self._interrupts = interrupts or Interrupts()
        self._patience = patience
        self._ends = time.monotonic() + session.timeout if session.timeout is not None else None
        self._seen: set[str] = set()
        self._pause = 0.2
        self._lost_at: float | None = None

    def updates(self, opened: Opener) -> Updates:
        """Every update, each event once. Raises TimeIsOver when the time allowed for watching is over,
        Interrupted on Ctrl-C."""
        stream: Opener = opened
        while True:
            try:
                for update in self._interrupts.read(stream(self._left())):
                    self._lost_at = None
                    if not self._is_known(update):
                        yield update
                if self._view.ended:
                    return
                self._wait("the stream ended before the run did")
            except grpc.RpcError as error:
                self._wait_after(error)
            stream = self._resumed if self._view.run is not None else opened

    def _resumed(self, timeout: float | None) -> Updates:
        view = self._view
        request = provisioning_pb2.WatchRunRequest(
            workflow_id=view.workflow_id, run_id=view.run.run_id if view.run else "", cursor=view.cursor
        )
        return (response.update for response in self._session.provisioning.WatchRun(request, timeout=timeout))

    def _is_known(self, update: run_pb2.RunUpdate) -> bool:
        kind = update.WhichOneof("update")
        if kind == "run":
            return update.run == self._view.run
        if kind != "event":
            return False
        self._pause = 0.2
        known = update.event.cursor in self._seen
        self._seen.add(update.event.cursor)
        return known

    def _wait_after(self, error: grpc.RpcError) -> None:
        status = status_of(error)
        known = of_rpc(error, api=self._session.api)
        if status is grpc.StatusCode.DEADLINE_EXCEEDED and self._left() is not None and self._view.run is not None:
            raise TimeIsOver
        if self._view.run is None and known.reason == "BUSY":
            self._ask_again_after(known)
            return
        if self._view.run is None or not (status in _AWAY or known.reason == "LAGGARD"):
            raise known
        self._wait(known.message)

    def _ask_again_after(self, known: CliError) -> None:
        """Let some time pass, because the API asks for it; raises what it said when there was enough."""
        now, left = time.monotonic(), self._left()
        if self._lost_at is None:
            self._lost_at = now
            self._display.say(f"{known.message}; asking again")
        if now - self._lost_at > self._patience or (left is not None and left <= self._pause):
            raise known
        self._pass()

    def _wait(self, why: str) -> None:
        """Let some time pass before the next try; raises CliError when there were enough."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._display.say(f"connection lost ({why}); the run goes on, reconnecting")
        if now - self._lost_at > self._patience:
            raise CliError(
                f"the API at {self._session.api} was away for {self._patience:.0f} s; the run goes on: {why}",
                ExitCode.UNAVAILABLE,
                next_commands=("mulligan doctor", f"mulligan run watch {self._view.workflow_id}"),
            )
        left = self._left()
        if left is not None and left <= self._pause:
            raise TimeIsOver
        self._pass()

    def _pass(self) -> None:
        self._interrupts.wait(self._pause)
        self._pause = min(LONGEST_WAIT, self._pause * 2)

    def _left(self) -> float | None:
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())


def follow(session: Session, view: RunView, opened: Opener, *, until_held: bool = False) -> ExitCode | None:
    """Show the run's updates until it ends (or is held, where asked for): None; when watching stops before, TIMED_OUT
    where `--timeout` ended it, else DETACHED."""
    try:
        with Interrupts() as interrupts, display_for(view, as_json=session.as_json) as display:
            for update in Follower(session, view, display, interrupts).updates(opened):
                view.feed(update)
                display.update(update)
                if until_held and view.held is not None:
                    break
    except TimeIsOver:
        _say_detached(view, f"stopped watching after {session.timeout} s, as --timeout says")
        return ExitCode.TIMED_OUT
    except (KeyboardInterrupt, Interrupted):
        _say_detached(view, "stopped watching")
        return ExitCode.DETACHED
    return None


def _say_detached(view: RunView, what: str) -> None:
    if view.workflow_id:
        click.echo(f"\n{what}; the run goes on", err=True)
        commands = [f"mulligan run watch {view.workflow_id}"]
        if view.run is not None and view.run.kind == run_pb2.RUN_KIND_PROVISION:  # no other run can be cancelled
            commands.append(f"mulligan run cancel {view.workflow_id}")
        tell_next(commands)
    else:
        click.echo("\nstopped before the API named the run; it may have begun", err=True)
        tell_next(("mulligan run list", again()))  # it joins the run
