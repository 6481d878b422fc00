"""What is told once a second while work goes on, and what is answered: an order, or that this boot must stop."""

from __future__ import annotations

import threading
import time
from typing import Any

from .home import Away, Home, Refused, TooLarge

SECONDS = 1.0
GO_ON = "go-on"
PRINT_PERCENT = 5
PRINT_SECONDS = 60.0


class Ordered(Exception):
    """The run says to reboot or to power off; the order is the message."""


class _Line:
    """What a person at the machine reads of one piece of work: a line when it begins, then every few percent, at most
    one a second and at least one a minute. Screens are narrow."""

    def __init__(self, phase: str, said: str) -> None:
        self._phase = phase
        self._began = self._when = time.monotonic()
        self._percent = 0
        print(f"{phase}: {said}", flush=True)

    def go_on(self, done: int, total: int) -> None:
        percent, now = 100 * done // total if total else 0, time.monotonic()
        further = percent >= self._percent + PRINT_PERCENT and now >= self._when + SECONDS
        if further or self._percent < percent == 100 or now >= self._when + PRINT_SECONDS:
            self._percent, self._when = percent, now
            how_far = f"{percent} % " if total else ""
            print(f"{self._phase}: {how_far}after {now - self._began:.0f} s", flush=True)


class Reporter:
    """A thread that reports. Work says where it is by `at`, which raises when the work must stop."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._report: dict[str, Any] = {"phase": "starting", "done": 0, "total": 0, "said": "the agent is up"}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stop: Exception | None = None
        self._line = _Line("starting", "the agent is up")
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def start(self) -> None:
        """Report from now on."""
        self._thread.start()

    def at(self, phase: str, said: str, done: int = 0, total: int = 0, **more: Any) -> None:
        """Where the work is: `done` of `total`. Raises `Refused` or `Ordered`: the work must stop."""
        with self._lock:
            new = (phase, said) != (self._report["phase"], self._report["said"]) or bool(more)
            self._report = {"phase": phase, "said": said, "done": done, "total": total, **more}
            if new:
                self._line = _Line(phase, said)
        self.check()

    def check(self) -> None:
        """Raise `Refused` or `Ordered` when the work must stop. What takes its time calls this every second."""
        with self._lock:
            self._line.go_on(self._report["done"], self._report["total"])
        if self._stop is not None:
            raise self._stop

    def told(self) -> None:
        """Tell once more, now, with what `at` said last. Raises as `at` does, and `Away`."""
        self._once()
        self.check()

    def wait_for_orders(self) -> None:
        """Report until told what to do, however long the boot server is away; raises `Ordered` or `Refused`."""
        self._ended.wait()
        self.check()

    def _tell(self) -> None:
        while self._stop is None:
            try:
                self._once()
            except Away as away:
                print(f"the boot server is away: {away}", flush=True)
            self._ended.wait(SECONDS)
        self._ended.set()

    def _once(self) -> None:
        with self._lock:
            report = dict(self._report)
        try:
            order = self._order(report)
        except Refused as refused:
            self._stop = refused
        else:
            if order != GO_ON:
                self._stop = Ordered(order)
        if self._stop is not None:
            self._ended.set()

    def _order(self, report: dict[str, Any]) -> str:
        try:
            return self._home.report(report)
        except TooLarge as large:
            print(f"the boot server takes no such report, {large}; it is told less", flush=True)
            return self._home.report(_less(report, large))


def _less(report: dict[str, Any], why: TooLarge) -> dict[str, Any]:
    """What is told in place of a report that is too large: of the hardware what tells the server from others. A result
    that nobody can look at is a failure."""
    if "hardware" in report:
        hardware = {name: value for name, value in report["hardware"].items() if not isinstance(value, list)}
        return {**report, "hardware": hardware}
    said = f"what was done cannot be told: it is more than the boot server takes ({why})"
    error = {"name": "REPORT_TOO_LARGE", "message": said}
    return {"phase": "failed", "said": said, "done": 0, "total": 0, "error": error}
