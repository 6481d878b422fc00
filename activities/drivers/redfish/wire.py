"""HTTP to one BMC: reads with patience, changes sent exactly once, each within the caller's deadline.

sushy repeats requests by itself, changes too: against a BMC that acts and then drops the connection one reset became
ten. This connector takes that away, and repeats only reads, and only when an answer got lost.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from requests.exceptions import ConnectTimeout, ReadTimeout, SSLError
from sushy import exceptions
from sushy.auth import SessionAuth
from sushy.connector import Connector
from urllib3.exceptions import NewConnectionError

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.redfish.address import Host
from mulligan.activities.drivers.redfish.transport import TooLong, Transport
from mulligan.activities.errors import HostNotReady

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
READ_TRIES = 3
READ_PAUSE_SECONDS = 0.3

logging.getLogger("sushy").setLevel(logging.CRITICAL + 1)  # errors are raised, and said once, without what BMCs echo

_INFO = "@Message.ExtendedInfo"
_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextlib.contextmanager
def within(deadline: Deadline) -> Iterator[None]:
    """Every request in the block gives up by then."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


class Redirected(exceptions.SushyError):  # type: ignore[misc]  # sushy has no types
    """The BMC answered that what was asked for is elsewhere; nothing is sent there."""


class Wire(Connector):  # type: ignore[misc]  # sushy has no types
    """The connection that all resources of one BMC share."""

    def __init__(self, host: Host) -> None:
        verify: bool | str = host.verify and not host.fingerprint
        if verify and host.ca:
            if not Path(host.ca).is_file():
                raise HostNotReady(
                    f"{host.url}: the setting `ca` names {host.ca}, which is no file on this worker; put it there",
                    remedy=f"ls -l {host.ca}",
                )
            verify = host.ca
        super().__init__(host.url, verify=verify, server_side_retries=1, response_callback=self._look)
        self._session.trust_env = False  # neither a proxy nor a .netrc comes between a worker and its BMCs
        transport = Transport(_left, host.fingerprint)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, transport)
        self.last: requests.Response | None = None
        """The newest answer."""
        self.login_was_lost = False
        """Whether a session was asked for and no answer came: the BMC may have one that nobody knows."""
        self.has_session = False
        """Whether the newest log-in was given one."""

    def check_retry_on_exception(self, exception_msg: Any) -> bool:
        """Never: a change that was refused as too early is tried again by the workflow, which can be seen."""
        return False

    def _op(self, method: str, path: str = "", **kwargs: Any) -> requests.Response:
        kwargs |= {"server_side_retries_left": 0, "allow_redirects": False}
        path = urlunsplit(urlsplit(path)._replace(scheme="", netloc=""))  # to this BMC, whatever a document says
        answer = self._tried(method, path, **kwargs)
        if method == "GET" and (other := _but_for_a_slash(answer)):
            answer = self._tried(method, other, **kwargs)
        if 300 <= answer.status_code < 400:
            where = answer.headers.get("Location", "")
            raise Redirected(f"it sent {method} {path} elsewhere ({where}), with status {answer.status_code}")
        return answer

    def _tried(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Reads are repeated where the answer got lost."""
        for left in reversed(range(READ_TRIES if method == "GET" else 1)):
            try:
                answer: requests.Response = super()._op(method, path, **kwargs | {"timeout": _timeout(method, path)})
            except exceptions.ConnectionError as error:
                if not left or not _was_lost(error):
                    raise
                time.sleep(READ_PAUSE_SECONDS)
                continue
            return answer
        raise AssertionError("the last try returns or raises")

    def log_out(self, session: str) -> None:
        """End a session; one that is gone already, or a BMC that is, is all the same."""
        with contextlib.suppress(exceptions.SushyError, ValueError):  # where it is is the BMC's word
            self._op("DELETE", session, allow_reauth=False)

    def _look(self, answer: requests.Response) -> None:
        """Before sushy reads it."""
        self.last = answer
        if answer.status_code >= 400:
            _make_readable(answer)

    @property
    def retry_after_seconds(self) -> float:
        """What the newest answer asked for, where it asked for patience; at most ten minutes."""
        text = self.last.headers.get("Retry-After", "") if self.last is not None else ""
        return min(600.0, float(text)) if text.isdecimal() else 0.0


class Login(SessionAuth):  # type: ignore[misc]  # sushy has no types
    """A session, that is always ended before another one is begun: BMCs have few.

    What `may_log_in` raises is raised in the place of each log-in; `entered` is called after each that was taken.
    """

    def __init__(self, credential: Credential, may_log_in: Callable[[], None], entered: Callable[[], None]) -> None:
        super().__init__(credential.username, credential.password)
        self._may_log_in = may_log_in
        self._entered = entered

    contact = ""
    """Drawn anew with each session."""

    def _do_authenticate(self) -> None:
        """Begin a session. Raises `MissingAttributeError` where the BMC tells of none, instead of guessing its path."""
        document = self._root_resource.json
        if not (document.get("Links") or {}).get("Sessions") and not document.get("SessionService"):
            raise exceptions.MissingAttributeError(attribute="SessionService", resource=self._root_resource.path)
        wire = self._connector
        wire.login_was_lost = wire.has_session = False
        self._may_log_in()
        try:
            super()._do_authenticate()
        except exceptions.ConnectionError as error:
            wire.login_was_lost = _was_sent(error)
            raise
        wire.has_session = True
        self.contact = secrets.token_hex(8)
        self._entered()

    def refresh_session(self) -> None:
        """End the one that the BMC refuses, and begin another; what is forbidden stays so with a new one."""
        refused = self._connector.last
        if refused is not None and refused.status_code == requests.codes.forbidden:
            raise exceptions.AccessError(refused.request.method, refused.url, refused)
        self.close()
        self._do_authenticate()

    def close(self) -> None:
        """End the session; safe to call twice."""
        if (session := self.get_session_resource_id()) is not None:
            self._connector.log_out(session)
        if self._connector is not None:
            self.reset_session_attrs()


def _make_readable(answer: requests.Response) -> None:
    """Give a refusal's body the form that sushy takes for granted before it says which status it is: a 401 is seen
    as one whatever comes with it. Of another form a text is kept as the reason."""
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        answer._content = b""
        return
    said = body.get("error", {}) if isinstance(body, dict) else body
    error = said if isinstance(said, dict) else {"message": said} if isinstance(said, str) and said else {}
    info = error.get(_INFO) or []
    entries = [each for each in (info if isinstance(info, list) else [info]) if isinstance(each, dict)]
    if error is not said or (info and entries not in (info, [info])):
        answer._content, answer.encoding = json.dumps({"error": {**error, _INFO: entries}}).encode(), "utf-8"


def _timeout(method: str, path: str) -> tuple[float, float]:
    """Seconds to connect, and to wait for the next byte of an answer."""
    if (deadline := _deadline.get()) is not None:
        deadline.check(f"{method} {path}")
    left = _left()
    return min(CONNECT_SECONDS, left), min(READ_SECONDS, left)


def _left() -> float:
    """Seconds until a request must have its whole answer."""
    deadline = _deadline.get()
    return CONNECT_SECONDS + READ_SECONDS if deadline is None else max(0.05, deadline.remaining)  # requests takes no 0


def _but_for_a_slash(answer: requests.Response) -> str:
    """Where it sends to, if that is the same but for a slash at its end (iLO 4, Lenovo); empty for anything else."""
    if not 300 <= answer.status_code < 400:
        return ""
    here, there = urlsplit(answer.url), urlsplit(urljoin(answer.url, answer.headers.get("Location", "")))
    same = there.hostname == here.hostname and there.path.rstrip("/") == here.path.rstrip("/")
    return urlunsplit(there._replace(scheme="", netloc="")) if same and there.path != here.path else ""


def _was_sent(error: exceptions.ConnectionError) -> bool:
    """Whether the request may have arrived."""
    return _was_lost(error) or isinstance(error.__context__, ReadTimeout)


def _was_lost(error: exceptions.ConnectionError) -> bool:
    """Whether a connection came about and an answer did not arrive, at once: then asking again may well help."""
    cause = error.__context__
    if cause is None or isinstance(cause, ConnectTimeout | ReadTimeout | SSLError | TooLong):
        return False
    inner = cause.args[0] if cause.args else None
    return not isinstance(getattr(inner, "reason", None), NewConnectionError)
