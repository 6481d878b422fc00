"""A BMC that speaks Redfish over HTTP or HTTPS, and lies on demand. It writes down every request, and what it did."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.drivers.bmc.machine import ROOT, Lies, Machine

USER, PASSWORD = "mulligan", "canary-7c1f-secret"
SESSIONS = f"{ROOT}/SessionService/Sessions"


@dataclass(frozen=True)
class Sent:
    """One request, as it arrived."""

    method: str
    path: str
    body: dict[str, Any]
    acted: bool
    """Whether the machine did it."""
    already: bool = False
    """Whether the machine was so before, by whomever: a change that changes nothing."""
    at: float = 0.0
    """When it arrived, on the monotonic clock."""
    answer: int = 0
    """The status of its answer; 0 when none was given, or none that makes sense."""

    @property
    def asks(self) -> str:
        """What is asked for; empty when it only looks."""
        verb = self.path.rpartition("/")[2]
        return "" if self.method == "GET" or self.path.startswith(SESSIONS) else f"{verb} {json.dumps(self.body)}"

    @property
    def parts(self) -> frozenset[str]:
        """What is asked for or looked at; a system's own document tells of its power and of its override."""
        if "/VirtualMedia/" in self.path:
            return frozenset({"media"})
        if self.asks:
            return frozenset({"power" if "ResetType" in self.body else "override"})
        if re.fullmatch(f"{ROOT}/Systems/[^/]+/SD", self.path) or self.path.endswith(
            ("/Attributes", "/iDRAC.Embedded.1")
        ):
            return frozenset({"override"})
        return frozenset({"power", "override"}) if re.fullmatch(f"{ROOT}/Systems/[^/]+", self.path) else frozenset()

    @property
    def refused(self) -> bool:
        """Whether the BMC said that it did not do it."""
        return self.answer >= 400

    @property
    def answered(self) -> bool:
        """Whether it was answered, and in a way that makes sense."""
        return 200 <= self.answer < 300


class LyingBmc:
    """The BMC: its machines, its sessions, its lies, and the log of what it was asked."""

    def __init__(self, *machines: Machine) -> None:
        self.machines = machines or (Machine("1"),)
        self.lies = Lies()
        self.log: list[Sent] = []
        self.sessions: dict[str, str] = {}
        """Path of each session that is open, by its token."""
        self.lost: set[str] = set()
        """Tokens of sessions that it told nobody of."""
        self.opened = 0
        self.refused_logins = 0
        self.plot: Callable[[str, str, dict[str, Any]], None] = lambda *_: None
        """Hears of each request for a machine (method, path, body) before it is answered, and may change the lies."""
        self.lock = threading.RLock()
        self.ending = threading.Event()
        self.url = ""

    @property
    def machine(self) -> Machine:
        """The first machine."""
        return self.machines[0]

    def changes(self) -> list[Sent]:
        """Every request that asked for a change of a machine, oldest first."""
        with self.lock:
            return [each for each in self.log if each.method != "GET" and not each.path.startswith(SESSIONS)]

    def acts(self) -> list[str]:
        """The last word of the path of each request that changed a machine."""
        return [each.path.rpartition("/")[2] for each in self.changes() if each.acted]

    def expire_sessions(self) -> None:
        """Forget all sessions, as a BMC does that restarts."""
        with self.lock:
            self.sessions.clear()

    @contextmanager
    def listening(self, tls: ssl.SSLContext | None = None) -> Iterator[LyingBmc]:
        """Serve on a free port of the loopback address."""
        bmc = self

        class Handler(_Handler):
            owner = bmc

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that gives up is no error
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        self.url = f"redfish{'' if tls else '+http'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One request: who asks, what is asked, which lie is told, what is answered."""

    owner: LyingBmc

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the log is `LyingBmc.log`."""

    def do_GET(self) -> None:
        self._handle({})

    def do_POST(self) -> None:
        self._handle(self._body())

    def do_PATCH(self) -> None:
        self._handle(self._body())

    def do_DELETE(self) -> None:
        self._handle({})

    def _body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def _handle(self, body: dict[str, Any]) -> None:
        with self.owner.lock:
            answer = self._answer(body)
        answer()

    def _answer(self, body: dict[str, Any]) -> Any:
        """Decide, under the lock, and give what then answers without it."""
        path = self.path.split("?")[0].rstrip("/")
        bmc, lies = self.owner, self.owner.lies
        ends = self.path.endswith("/")
        if self.command == "GET" and {"needed": not ends, "refused": ends, "never right": True}.get(lies.slash, False):
            return self._reply(308, headers={"Location": self.path.rstrip("/") if ends else f"{self.path}/"})
        if path == ROOT and self.command == "GET":
            return self._reply(200, _root())
        if path == SESSIONS and self.command == "POST":
            return self._log_in(body)
        if not path.startswith(SESSIONS):
            bmc.plot(self.command, path, body)
        if not self._known() or lies.refuses_session:
            lies.refuses_session = max(0, lies.refuses_session - 1)
            bmc.refused_logins += "Authorization" in self.headers
            self._note(path, body, answer=401)
            return self._refuse(401, "Base.1.0.NoValidSession", "log in")
        if path.startswith(SESSIONS) and lies.keeps_sessions:
            return self._refuse(401, "Base.1.0.NoValidSession", "log in")
        if path.startswith(SESSIONS):
            bmc.sessions = {token: each for token, each in bmc.sessions.items() if each != path}
            return self._reply(204)
        if time.monotonic() < lies.absent_until or (lies.lacks and path.endswith(lies.lacks)):
            return self._absent(path, body)
        if lies.silent:
            lies.silent -= 1
            self._note(path, body)
            return lambda: bmc.ending.wait(30)
        if lies.redirects_to:
            return self._reply(307, headers={"Location": lies.redirects_to})
        return self._read(path) if self.command == "GET" else self._change(path, body)

    def _absent(self, path: str, body: dict[str, Any]) -> Any:
        """As a BMC that restarts: it does not know its systems yet."""
        if path == f"{ROOT}/Systems":
            return self._reply(200, {"Name": "Systems", "Members": []})
        self._note(path, body, answer=404)
        return self._refuse(404, "Base.1.0.ResourceMissingAtURI", "no such thing yet")

    def _read(self, path: str) -> Any:
        bmc, lies = self.owner, self.owner.lies
        if lies.drops_reads:
            lies.drops_reads -= 1
            self._note(path, {})
            return self._drop
        if lies.busy_reads:
            lies.busy_reads -= 1
            self._note(path, {}, answer=503)
            return self._refuse(503, "Base.1.0.ServiceTemporarilyUnavailable", "later")
        self._note(path, {}, answer=0 if lies.garbage and path != f"{ROOT}/Systems" else 200)
        if path == f"{ROOT}/Systems":
            return self._reply(200, {"Name": "Systems", "Members": [{"@odata.id": each.path} for each in bmc.machines]})
        machine = next((each for each in bmc.machines if path in each.documents()), None)
        if machine is None:
            return self._refuse(404, "Base.1.0.ResourceMissingAtURI", "no such thing")
        if lies.garbage:
            return self._raw(lies.garbage.pop(0))
        if path == machine.path:
            if lies.late_power and machine.shown_power != machine.power:
                lies.late_power -= 1
            elif time.monotonic() >= machine.told_at:
                machine.shown_power = machine.power
        etag = '"never"' if lies.wrong_etag else machine.etag
        document = machine.documents()[path]
        if path == machine.drive and machine.image and lies.late_media:
            lies.late_media -= 1
            document["Image"] = None
        allowed = {"Allow": "GET, PATCH"} if "/VirtualMedia/" in path and not machine.inserts_by_action else {}
        return self._reply(200, document, {"ETag": etag, **allowed})

    def _change(self, path: str, body: dict[str, Any]) -> Any:
        bmc, lies = self.owner, self.owner.lies
        machine = next(each for each in bmc.machines if path.startswith(each.changed_below))
        match = self.headers.get("If-Match")
        refusal: tuple[int, str, str] | None = None
        if lies.loses_changes:
            lies.loses_changes -= 1
            self._note(path, body)
            return self._drop
        if lies.forbids:
            refusal = (403, "Base.1.0.InsufficientPrivilege", "not for you")
        elif lies.busy:
            lies.busy -= 1
            refusal = (lies.busy_status, "Base.1.0.GeneralError", lies.busy_text)
        elif machine.in_post:
            refusal = (400, "Base.1.0.GeneralError", "the system is in POST")
        elif lies.refuses_continuous and "Continuous" in body.get("Boot", {}).values():
            refusal = (400, "Base.1.0.PropertyValueNotInList", "the value Continuous is not in the list")
        elif path == machine.proxy:
            refusal = (400, "Base.1.6.PropertyNotWritable", "the property Image is read only")
        elif machine.fixed_mode and "BootSourceOverrideMode" in body.get("Boot", {}):
            refusal = (400, "Base.1.8.PropertyNotWritable", "the property BootSourceOverrideMode is read only")
        elif self.command == "PATCH" and lies.needs_etag and match is None:
            refusal = (428, "Base.1.0.PreconditionRequired", "If-Match is needed")
        elif self.command == "PATCH" and match not in (None, machine.etag):
            refusal = (412, "Base.1.0.PreconditionFailed", "it was changed")
        if refusal is not None:
            self._note(path, body, already=machine.would_stay(path, body), answer=refusal[0])
            return self._refuse(*refusal)
        return self._act(machine, path, body)

    def _act(self, machine: Machine, path: str, body: dict[str, Any]) -> Any:
        lies = self.owner.lies
        eject = path.endswith("EjectMedia") or (path == machine.drive and not body.get("Image"))
        override = self.command == "PATCH" and path != machine.drive
        already = machine.would_stay(path, body)
        if eject and lies.ignores_ejects:
            lies.ignores_ejects -= 1
            acted = False
        elif "InsertMedia" in path and lies.ignores_inserts:
            lies.ignores_inserts -= 1
            acted = False
        elif override and lies.forgets_override:
            lies.forgets_override -= 1
            acted = False
        else:
            acted = not (eject and lies.sticky_media)
        if acted:
            machine.act(path, body)
            if "ResetType" in body:
                self._switched(machine, body)
        lost = bool(lies.slow or lies.drops_changes)
        answer = 0 if lost else 504 if lies.fails_acting else 204
        self._note(path, body, acted=acted, already=already, answer=answer)
        if lies.slow:
            lies.slow -= 1
            return lambda: self.owner.ending.wait(30)
        if lies.drops_changes:
            lies.drops_changes -= 1
            return self._drop
        if lies.fails_acting:
            lies.fails_acting -= 1
            return self._refuse(504, "Base.1.0.GeneralError", "the gateway gave up waiting")
        return self._reply(204)

    def _switched(self, machine: Machine, body: dict[str, Any]) -> None:
        """What is switched on tests itself; some forget by then what they were told to boot."""
        lies, now = self.owner.lies, time.monotonic()
        machine.told_at, lies.late_power_seconds = now + lies.late_power_seconds, 0.0
        if body["ResetType"] != "On":
            return
        machine.post_until = now + lies.post_seconds
        if lies.loses_override:
            lies.loses_override -= 1
            machine.target, machine.enabled = "None", "Disabled"

    def _log_in(self, body: dict[str, Any]) -> Any:
        bmc = self.owner
        if bmc.lies.no_sessions:
            return self._refuse(404, "Base.1.0.ResourceMissingAtURI", "no sessions here")
        if bmc.lies.refuses_sessions:
            return self._refuse(bmc.lies.refuses_sessions, "Base.1.0.GeneralError", "no session")
        if (body.get("UserName"), body.get("Password")) != (USER, PASSWORD):
            bmc.refused_logins += 1
            return self._refuse(401, "Base.1.0.NoValidSession", f"wrong password {body.get('Password')}")
        if bmc.lies.refuses_logins:
            bmc.lies.refuses_logins -= 1
            bmc.refused_logins += 1
            return self._refuse(401, "Base.1.0.NoValidSession", "not now")
        bmc.opened += 1
        token, path = f"token-{bmc.opened}", f"{SESSIONS}/{bmc.opened}"
        bmc.sessions[token] = path
        if bmc.lies.drops_logins:
            bmc.lies.drops_logins -= 1
            bmc.lost.add(token)
            return self._drop
        location = f"http://192.0.2.1{path}" if bmc.lies.foreign_links else path
        return self._reply(201, {"Id": str(bmc.opened)}, {"X-Auth-Token": token, "Location": location})

    def _known(self) -> bool:
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        allowed = self.owner.lies.no_sessions and self.headers.get("Authorization") == basic
        return allowed or self.headers.get("X-Auth-Token") in self.owner.sessions

    def _note(
        self, path: str, body: dict[str, Any], *, acted: bool = False, already: bool = False, answer: int = 0
    ) -> None:
        self.owner.log.append(Sent(self.command, path, body, acted, already, time.monotonic(), answer))

    def _refuse(self, status: int, code: str, text: str) -> Any:
        if self.owner.lies.echoes and self._known():
            text += f" (you are {USER} with {PASSWORD})"
        after = {"Retry-After": self.owner.lies.retry_after} if self.owner.lies.retry_after else {}
        if self.owner.lies.body:
            return self._raw(self.owner.lies.body, status, after)
        info = [{"MessageId": code, "Message": text, "Severity": "Warning"}]
        error = self.owner.lies.error or {"code": code, "message": text, "@Message.ExtendedInfo": info}
        return self._reply(status, {"error": error}, after)

    def _reply(self, status: int, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None) -> Any:
        return self._raw(json.dumps(body).encode() if body is not None else b"", status, headers)

    def _raw(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Any:
        def send() -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        return send

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


def _root() -> dict[str, Any]:
    return {
        "@odata.id": f"{ROOT}/", "Id": "RootService", "Name": "Root", "RedfishVersion": "1.6.0",
        "Systems": {"@odata.id": f"{ROOT}/Systems"}, "Managers": {"@odata.id": f"{ROOT}/Managers"},
        "SessionService": {"@odata.id": f"{ROOT}/SessionService"}, "Links": {"Sessions": {"@odata.id": SESSIONS}},
    }  # fmt: skip
