"""A BMC in a process of its own that speaks IPMI 2.0, and tells one lie at some steps; a server's chassis in memory.

    python -m tests.metal.ipmi_bmc

Everything it needs comes as one line of JSON on its input: password, lie, steps, folder. In the folder it keeps two
files: the last line of `state` is what the machine really is, and the port; `log` has a line for each request to the
chassis. What happens beside the BMC comes as further lines: `off`, `worked`, `release`, `heal`. It ends when its input
does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pyghmi.ipmi.bmc import Bmc
from pyghmi.ipmi.private import serversession

from tests.drivers.ipmi_server import USER
from tests.metal.ipmi_steps import EVER
from tests.metal.steps import Course

BUSY, NOT_NOW, DENIED = 0xC0, 0xD5, 0xD4
CODES = {"busy": BUSY, "not-now": NOT_NOW, "forbidden": DENIED}
POST_SECONDS, LATE_SECONDS = 2.0, 6.5


class LyingBmc(Bmc):  # type: ignore[misc]  # pyghmi has no types
    """Behind pyghmi's own server, which virtualbmc is made of too."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.lie, self.steps, self.folder = said["lie"], list(said["steps"]), Path(said["folder"])
        self.on, self.flags, self.switched = True, (0, 0), 0
        self.course = Course()
        self.lasts, self.heard = said["lasts"], 0
        self.swallow = self.refuse = self.cut = self.short = self.forget = 0
        self.code = BUSY
        self.lose = self.post_next = self.late_next = False
        self.post_until = self.told_at = 0.0
        self.told_on = True
        self.muted: set[int] = set()
        self.lock = threading.RLock()
        super().__init__({USER: said["password"]}, port=0, address="127.0.0.1")
        self.port = self.serversocket.getsockname()[1]
        self.keep()

    def keep(self) -> None:
        """Say what is so, for the server that plays its part."""
        now = {"on": self.on, "selector": self.flags[1] if self.flags[0] else 0, "switched": self.switched}
        beside = {"post": self.post_until, "steps": self.steps, "heard": self.heard, "port": self.port}
        with (self.folder / "state").open("a") as state:
            state.write(json.dumps(now | beside) + "\n")

    def hear(self, said: dict[str, Any]) -> None:
        """Something that happens beside the BMC."""
        with self.lock:
            if said.get("off"):
                self.on = False
            if said.get("worked"):
                self.course.worked = True
            if said.get("release"):
                self.course.releases()
            if said.get("heal"):
                self.swallow = self.refuse = self.cut = self.short = self.forget = 0
                self.told_at, self.lose, self.late_next = 0.0, False, False
            self.heard += 1
            self.keep()

    def handle_raw_request(self, request: Any, session: Any) -> None:
        with self.lock:
            self._handle(request, session)

    def _handle(self, request: Any, session: Any) -> Any:
        asked, data = (request["netfn"], request["command"]), bytes(request["data"])
        kind = _kind(asked, data)
        step = self.course.step(kind, at_server=asked == (0, 1))
        if step in self.steps:
            self.steps.remove(step)
            self._tell(id(session), change=bool(kind))
            self.keep()
        if id(session) in self.muted:
            return self._note(kind, asked)
        if self.swallow and asked[0] == 0:
            self.swallow -= 1
            return self._note(kind, asked)
        if self.refuse and (kind or self.lie == "busy") and asked[0] == 0:
            self.refuse -= 1
            return self._refuse(kind, asked, session, self.code)
        if kind and time.time() < self.post_until and self.on:
            return self._refuse(kind, asked, session, NOT_NOW)
        if kind:
            return self._change(kind, data, session)
        if self.short and asked[0] == 0:
            self.short -= 1
            self._note(kind, asked)
            return session.send_ipmi_response(data=[])
        if asked in {(0, 1), (0, 9)}:
            self._note(kind, asked, answered=not self.cut)
            return session.send_ipmi_response(data=self._status() if asked == (0, 1) else self._options())
        return super().handle_raw_request(request, session)

    def _status(self) -> list[int]:
        if time.monotonic() >= self.told_at:
            self.told_on = self.on
        return [int(self.told_on), 0, 0]

    def _options(self) -> list[int]:
        return [1, 5, self.flags[0], self.flags[1] << 2, 0, 0, 0]

    def _change(self, kind: str, data: bytes, session: Any) -> None:
        was = (self.on, self.flags)
        wanted = (self.on, (data[1], data[2] >> 2)) if kind in {"override", "clear"} else (kind == "on", self.flags)
        forgotten = bool(self.forget) and kind in {"override", "clear"}
        if forgotten:
            self.forget -= 1
        else:
            self.on, self.flags = wanted
            self._switched(kind)
        lost = self.lie in {"acts-then-drops", "half-open"} and self.lose
        self._note(kind, (0, 2), acted=not forgotten, already=was == wanted, answered=not lost and not self.cut)
        self.keep()
        if lost and self.lie == "half-open":
            self.muted.add(id(session))
        if lost:
            self.lose = self.lasts
            return
        session.send_ipmi_response()

    def _switched(self, kind: str) -> None:
        if kind not in {"on", "off"}:
            return
        self.switched += 1
        if self.late_next:
            self.late_next, self.told_at = False, time.monotonic() + (EVER if self.lasts else LATE_SECONDS)
        if kind == "on" and self.post_next:
            self.post_next, self.post_until = False, time.time() + POST_SECONDS
        if kind == "on" and self.lie == "override-lost-at-power-on" and self.lose:
            self.lose, self.flags = False, (0, 0)

    def _tell(self, session: int, *, change: bool) -> None:
        often = EVER if self.lasts else 2
        match self.lie:
            case "acts-then-drops" | "half-open" | "override-lost-at-power-on":
                self.lose, self.swallow = change, 0 if change else 1
            case "never-hears":
                self.swallow = 1
            case "dead":
                self.swallow = EVER
            case "session-expired":
                self.muted.add(session)
            case "busy" | "not-now" | "forbidden":
                self.refuse, self.code = EVER if self.lasts else 1, CODES[self.lie]
            case "slow-post":
                self.post_next = True
            case "power-late":
                self.late_next = True
            case "override-forgotten":
                self.forget = EVER if self.lasts else 1
            case "truncated" | "garbage":
                self.cut = often
            case "short":
                self.short = 1

    def _refuse(self, kind: str, asked: tuple[int, int], session: Any, code: int) -> None:
        self._note(kind, asked, refused=True)
        session.send_ipmi_response(code=code)

    def _note(self, kind: str, asked: tuple[int, int], **said: bool) -> None:
        power = kind in {"on", "off"} or asked == (0, 1)
        if kind or asked in {(0, 1), (0, 9)}:
            line = {"asks": kind, "part": "power" if power else "override", "at": time.monotonic(), **said}
            with (self.folder / "log").open("a") as log:
                log.write(json.dumps(line) + "\n")


def _kind(asked: tuple[int, int], data: bytes) -> str:
    """Which of the changes a request asks for; empty when it looks, or prepares one."""
    if asked == (0, 2):
        return "on" if data[0] == 1 else "off"
    if asked == (0, 8) and data[0] == 5:
        return "override" if data[1] & 0x80 else "clear"
    return ""


def _noise(packet: bytes, left: int) -> bytes:
    """By turns no IPMI at all, and a packet with one bit that is wrong."""
    return b"HTTP/1.0 400 Bad Request" if left % 2 else bytes([*packet[:-20], packet[-20] ^ 1, *packet[-19:]])


def main() -> None:
    """Serve until the input ends."""
    served = LyingBmc(json.loads(sys.stdin.readline()))
    plain = serversession.ipmisession._io_sendto

    def send(socket: Any, packet: Any, address: Any) -> None:
        """Spoil an answer where that is the lie; only within a session, whose packets are encrypted."""
        if served.cut and packet[4] == 6 and packet[5] & 0x80:
            served.cut -= 1
            packet = packet[: len(packet) // 2] if served.lie == "truncated" else _noise(packet, served.cut)
        plain(socket, packet, address)

    serversession.ipmisession._io_sendto = send

    def listen() -> None:
        for line in sys.stdin:
            served.hear(json.loads(line))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    served.listen(timeout=0.05)  # pyghmi's server may not notice a packet before it looks again


if __name__ == "__main__":
    main()
