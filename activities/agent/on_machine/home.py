"""The way to the boot server: patient where it is away, and final where it says that this boot has no business."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from .line import connected

Answer = TypeVar("Answer")

TIMEOUT_SECONDS = 20.0
PAUSE_SECONDS = 1.0
PASSING = frozenset({408, 425, 429})
"""Of the 400s those that say to come again. To ask again mends nothing of the others, as 416: what is served is shorter
than it was said to be. Another boot is told anew."""
TOO_LARGE = 413
TOLD, GRANTED, PART = 200, 204, 206
"""What the boot server answers: with JSON, to a wish that it grants, with the bytes that were asked for. Anything else
below 400 is not its answer, but a proxy's or somebody else's: no word from there counts, least of all as a permit."""


class Refused(Exception):
    """This boot has no business here: the token is used, expired or another's. Nothing destructive may follow."""


class TooLarge(Refused):
    """What was told is more than the boot server takes."""


class Away(Exception):
    """No answer, or one that says to come again."""


class Home:
    """The boot server's door for this boot. Every request names the boot, drawn at random."""

    def __init__(self, url: str, said: Callable[[str], None], card: str = "") -> None:
        """With a network card, all is asked by that one, whichever routes there are."""
        self._url = urlsplit(url)
        self._said = said
        self._card = card
        self.boot = str(uuid.uuid4())

    def configuration(self) -> dict[str, Any]:
        """What to do. Waits for as long as the boot server is away."""
        return self.patiently(lambda: self._json("GET", "configuration"))

    def report(self, report: dict[str, Any]) -> str:
        """Tell what is done; gives the order. Raises `Away`, `Refused`, and of those `TooLarge`."""
        return str(self._json("POST", "reports", report).get("order", "go-on"))

    def permit(self, disk: dict[str, Any], what: str) -> None:
        """Ask whether the disk may be changed for good; returns when it may. Raises `Refused`."""
        asked = {"disk": disk, "what": what}
        self.patiently(lambda: self._granted(asked))

    @contextmanager
    def bytes_from(self, name: str, start: int, end: int) -> Iterator[http.client.HTTPResponse]:
        """The bytes of `image` or `seed` from `start` up to `end`. Raises `Away` and `Refused`."""
        with self._asked("GET", name, None, {"Range": f"bytes={start}-{end - 1}"}, PART) as answer:
            yield answer

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Ask until there is an answer."""
        told = ""
        while True:
            try:
                return ask()
            except Away as away:
                if str(away) != told:
                    self._said(f"the boot server is away: {away}; asking again")
                    told = str(away)
                time.sleep(PAUSE_SECONDS)

    def _granted(self, asked: dict[str, Any]) -> None:
        with self._asked("POST", "permits", asked, {}, GRANTED):
            pass

    def _json(self, method: str, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._asked(method, name, body, {}, TOLD) as answer:
            try:
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Away(f"its answer was cut off: {error}") from error
        if not isinstance(said, dict):
            raise Refused(f"{name}: its answer is no JSON object; something else answers in the boot server's place")
        return said

    @contextmanager
    def _asked(
        self, method: str, name: str, body: dict[str, Any] | None, headers: dict[str, str], wanted: int
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer, which has this status. Raises `Away` and `Refused` for any other."""
        place = (self._url.hostname or "", self._url.port or 80)
        with closing(http.client.HTTPConnection(*place)) as line:
            try:
                line.sock = connected(place, self._card, TIMEOUT_SECONDS)
                encoded = json.dumps(body).encode() if body is not None else None
                sent = {"X-Mulligan-Boot": self.boot, "Content-Type": "application/json", **headers}
                line.request(method, f"{self._url.path}/{name}", encoded, sent)
                answer = line.getresponse()
                said = answer.read(300) if answer.status >= 400 else b""
                leads = answer.getheader("Location") or ""
            except (OSError, http.client.HTTPException) as error:
                raise Away(str(error) or type(error).__name__) from error
            if answer.status >= 400:
                raise _error(answer.status, f"{name}: {answer.status} {said.decode('utf-8', 'replace').strip()}")
            if answer.status != wanted:
                where = f" and leads to {leads[:200]}" if leads else ""
                raise Refused(f"{name}: it answered {answer.status}{where}, and not {wanted} as the boot server would")
            yield answer


def _error(status: int, why: str) -> Exception:
    if status >= 500 or status in PASSING:
        return Away(why)
    return TooLarge(why) if status == TOO_LARGE else Refused(why)
