"""One BMC as a worker sees it: one session, one thread and one lane, shared by all drivers that are open."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import sushy
from sushy import exceptions
from sushy.auth import BasicAuth

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.lane import Lane
from mulligan.activities.drivers.logins import LoginGate
from mulligan.activities.drivers.orders import UNSEEN, Orders
from mulligan.activities.drivers.redfish import absences, systems
from mulligan.activities.drivers.redfish.absences import Absences
from mulligan.activities.drivers.redfish.address import Address
from mulligan.activities.drivers.redfish.faults import speaking
from mulligan.activities.drivers.redfish.wire import Login, Wire, within
from mulligan.activities.errors import AccessDenied, Busy, MulliganError, NotFound, Unreachable
from mulligan.activities.threads import run_in

T = TypeVar("T")

LINGER_SECONDS = 20.0
"""A session outlives its last user this long, so that the steps of a run share it."""
UNBROKEN_SECONDS = 30.0
"""A BMC that is asked again within these did not restart meanwhile, which takes longer."""
_LOG_OUT_SECONDS = 5.0
_NO_SESSIONS = frozenset({404, 405, 501})
"""What a BMC answers that knows no sessions; it is then sent the password with each request."""


class Bmc:
    """The shared part of all drivers of one BMC."""

    def __init__(self, address: Address, credential: Credential, state_dir: Path, gate: LoginGate) -> None:
        self.host = address.host
        self._credential = credential
        self.lane = Lane(address.host.bmc, state_dir, self._log_out, LINGER_SECONDS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"redfish-{address.provider}")
        self._wire: Wire | None = None
        self._login: Login | None = None
        self._root: sushy.Sushy | None = None
        self._gate = gate
        self._held_back: MulliganError | None = None
        """Why a log-in was not sent that was due because a session had ended."""
        self._asks = ("", False)
        """What is being asked, and whether by who is patient."""
        self.seen: set[str] = set()
        """The systems that were found behind it."""
        self._absences = Absences()
        self._answered_at, self._unbroken = 0.0, UNSEEN
        """When it answered last, on the monotonic clock, and what stands for an unbroken row of answers."""
        self.orders = Orders(state_dir / "redfish", address.host.bmc)
        """What the power of each system, and each drive, was last asked to be, and which systems were left on."""

    async def call(
        self, provider: str, doing: str, deadline: Deadline, work: Callable[[sushy.Sushy], T], *, known: bool = False
    ) -> T:
        """Run `work` in the BMC's thread when it is its turn; sushy's errors come out as the domain's.

        `known` says that the system was there before.
        """
        what = f"{provider}: {doing}"
        async with self.lane.turn(what, deadline, lambda: self._may_ask(what, patient=known)):
            return await run_in(self._thread, lambda: self._work(provider, doing, deadline, work, known))

    @property
    def contact(self) -> str:
        """What stays the same only while the BMC did not restart: its session; where it has none, that it was asked all
        the time, as no restart is over within `UNBROKEN_SECONDS`."""
        return self._login.contact if self._login is not None else self._unbroken

    async def close(self) -> None:
        """End the session, after what is under way; safe to call twice."""
        await self.lane.close()
        self._thread.shutdown(wait=False)

    def _work(self, provider: str, doing: str, deadline: Deadline, work: Callable[[sushy.Sushy], T], known: bool) -> T:
        secret, self._asks = self._credential.password, (f"{provider}: {doing}", known)
        if time.monotonic() - self._answered_at > UNBROKEN_SECONDS:
            self._unbroken = secrets.token_hex(8)
        try:
            with speaking(doing, provider, self.host, self._patience, secret), within(deadline):
                if self._root is None:
                    self._root = self._log_in()
                done = work(self._root)
        except MulliganError as error:
            there = known or ("status" in error.metadata and bool(self.seen))  # a BMC that has systems has more
            missed = there and isinstance(error, NotFound)
            if not missed:
                self._absences.ended(provider, doing)
            self._look_at(error, patient=known)
            if isinstance(error, Unreachable):
                self._unbroken = secrets.token_hex(8)
                self.orders.silent()
            if missed:
                self._must_be_there(error, provider, doing, deadline)
            raise
        self._let_in()
        self._answered_at = time.monotonic()
        self._absences.ended(provider, doing)
        return done

    def _look_at(self, error: MulliganError, *, patient: bool) -> None:
        """A log-in that was refused, or whose answer was lost, is not repeated at once. Any other answer tells that the
        BMC lets this session in."""
        if error is self._held_back:
            self._forget_session()
        elif isinstance(error, AccessDenied) and error.metadata.get("status") == "401":
            self._forget_session()
            given = self._wire is not None and self._wire.has_session
            self._gate.refused(error, given=given, patient=patient)
        elif self._wire is not None and self._wire.login_was_lost:
            self._wire.login_was_lost = False
            self._forget_session()
            self._gate.lost()
        elif self._root is not None and not isinstance(error, Unreachable):
            self._let_in()

    def _let_in(self) -> None:
        """The BMC answered in this session; where it knows none, the password went with the question, and was taken."""
        if self._login is None:
            self._gate.entered()
        self._gate.passed()

    def _may_ask(self, what: str, *, patient: bool) -> None:
        """Raises what the gate raises, where the password would be sent: another session may have been refused."""
        if self._login is None:
            self._gate.check(what, patient=patient)

    def _may_log_in(self) -> None:
        """The same, where a session has ended while something is asked."""
        what, patient = self._asks
        try:
            self._gate.check(what, patient=patient)
        except MulliganError as error:
            self._held_back = error
            raise

    def _must_be_there(self, error: MulliganError, provider: str, doing: str, deadline: Deadline) -> None:
        """Raises `Busy` until the BMC, while it has systems, has said for long enough that it has not this."""
        root, none = self._root, True
        if root is not None:
            with within(deadline), contextlib.suppress(exceptions.SushyError, MulliganError):
                none = systems.lists_none(root)
        if not self._absences.believed(provider, doing, starting=none):
            raise Busy(
                f"{error.message}; it was there before, and BMCs that restart answer so: it is asked again, and "
                f"believed once it has answered so for {absences.BELIEVED_SECONDS / 60:.0f} minutes",
                after_seconds=systems.ABSENT_SECONDS,
                **error.metadata,
            ) from error

    def _forget_session(self) -> None:
        """What is asked next begins with a log-in."""
        login, self._login, self._root = self._login, None, None
        if login is not None:
            _end(login)

    def _log_in(self) -> sushy.Sushy:
        """A session. A refused password is tried once only: accounts are locked after a few."""
        self._wire = Wire(self.host)
        login = Login(self._credential, self._may_log_in, self._gate.entered)
        try:
            root = sushy.Sushy(self.host.url, auth=login, connector=self._wire)
            self._login = login
        except (exceptions.HTTPError, exceptions.MissingAttributeError) as error:
            known = isinstance(error, exceptions.HTTPError) and not isinstance(error, exceptions.MissingXAuthToken)
            if known and error.status_code not in _NO_SESSIONS:
                raise
            basic = BasicAuth(self._credential.username, self._credential.password)
            root = sushy.Sushy(self.host.url, auth=basic, connector=self._wire)
        root._auth = None  # its destructor would speak to the BMC, whenever it is collected
        return root

    async def _log_out(self) -> None:
        login, self._login, self._root = self._login, None, None
        if login is not None:
            with contextlib.suppress(RuntimeError):  # the thread was ended by an earlier close
                await run_in(self._thread, lambda: _end(login))

    def _patience(self) -> float:
        return self._wire.retry_after_seconds if self._wire is not None else 0.0


def _end(login: Login) -> None:
    """End the session. A BMC that is gone has none, and one that does not answer lets it expire."""
    with within(Deadline.after(_LOG_OUT_SECONDS)), contextlib.suppress(Exception):  # a worker may end by it
        login.close()
