"""A boot server that follows the protocol of the deploy agent, and misbehaves when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class BootServer:
    """What it serves, what it was told, and how it misbehaves."""

    configuration: dict[str, Any]
    files: Mapping[str, bytes] = field(default_factory=dict)
    cut_after: int = 0
    """End every answer of a file after so many bytes."""
    hold_after: int = 0
    """Send so many bytes of a file, and no more before an order was told."""
    heard_after: int = 0
    """Send so many bytes of a file, then wait for the next report, and so on."""
    meanwhile: Callable[[], object] = lambda: None
    """Done before a file is gone on with."""
    away: int = 0
    """Answer the next so many requests with `away_status`."""
    away_status: int = 503
    refuse: str = ""
    """Answer requests that end so with `refuse_status`."""
    refuse_status: int = 410
    leads: str = ""
    """Where that answer leads, if anywhere."""
    most: int = 0
    """Answer reports of more bytes with 413."""
    order: str = "power-off"
    """What is ordered once the agent waits or has failed."""
    order_early: str = ""
    """What is ordered while it writes."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    permits: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    boots: set[str] = field(default_factory=set)
    sent: int = 0
    """Bytes of files that were asked for."""
    _ordered: threading.Event = field(default_factory=threading.Event)
    _heard: threading.Condition = field(default_factory=threading.Condition)

    def __enter__(self) -> BootServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self, b"")

            def do_POST(self) -> None:
                outer.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What the agent is booted with."""
        return f"http://127.0.0.1:{self._server.server_port}/v1/agent/token"

    @property
    def last(self) -> dict[str, Any]:
        """The last report."""
        return self.reports[-1]

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        """One request."""
        name = request.path.rpartition("/")[2]
        if request.path == "/healthz":
            return _send(request, 200, b"ok\n")
        self.boots.add(request.headers["X-Mulligan-Boot"])
        self.asked.append(f"{name} {request.headers.get('Range', '')}".strip())
        if self.refuse and name == self.refuse:
            body = b"" if self.refuse_status in (204, 302) else b"this job is over\n"
            return _send(request, self.refuse_status, body, self.leads)
        if self.away:
            self.away -= 1
            return _send(request, self.away_status, b"come again\n")
        if name == "configuration":
            return _send(request, 200, json.dumps(self.configuration).encode())
        if name == "permits":
            self.permits.append(json.loads(body))
            return _send(request, 204, b"")
        if name == "reports" and 0 < self.most < len(body):
            return _send(request, 413, b"too large\n")
        if name == "reports":
            with self._heard:
                self.reports.append(json.loads(body))
                self._heard.notify_all()
            order = self._order()
            _send(request, 200, json.dumps({"order": order}).encode())
            return self._ordered.set() if order != "go-on" else None
        return self._file(request, self.files[name])

    def _order(self) -> str:
        if self.last["phase"] in ("waiting", "failed"):
            return self.order
        return self.order_early if self.permits and self.order_early else "go-on"

    def _file(self, request: BaseHTTPRequestHandler, whole: bytes) -> None:
        first, _, last = request.headers["Range"].removeprefix("bytes=").partition("-")
        rest = whole[int(first) : int(last) + 1]
        if not rest:
            _send(request, 416, b"")
            return
        if int(first):
            self.meanwhile()
        request.send_response(206)
        request.send_header("Content-Length", str(len(rest)))
        request.end_headers()
        self.sent += len(rest)
        if self.hold_after and len(rest) > self.hold_after:
            request.wfile.write(rest[: self.hold_after])
            assert self._ordered.wait(60)
        elif self.heard_after and len(rest) > self.heard_after:
            self._spoon(request, rest)
        else:
            request.wfile.write(rest[: self.cut_after] if self.cut_after else rest)

    def _spoon(self, request: BaseHTTPRequestHandler, rest: bytes) -> None:
        for at in range(0, len(rest), self.heard_after):
            request.wfile.write(rest[at : at + self.heard_after])
            with self._heard:
                before = len(self.reports)
                assert self._heard.wait_for(lambda before=before: len(self.reports) > before, 60)


def _send(request: BaseHTTPRequestHandler, status: int, body: bytes, leads: str = "") -> None:
    request.send_response(status)
    if leads:
        request.send_header("Location", leads)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
