"""What is told once a second while work goes on, and what is answered: an order, or that this boot must stop."""

from __future__ import annotations

import threading
from typing import Any

from .home import Away, Home, Refused

SECONDS = 1.0
GO_ON = "go-on"


class Ordered(Exception):
    """The run says to reboot or to power off; the order is the message."""


class Reporter:
    """A thread that reports. Work says where it is by `at`, which raises when the work must stop."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._report: dict[str, Any] = {"phase": "starting", "done": 0, "total": 0, "said": "the agent is up"}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stop: Exception | None = None
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def start(self) -> None:
        """Report from now on."""
        self._thread.start()

    def at(self, phase: str, said: str, done: int = 0, total: int = 0, **more: Any) -> None:
        """Where the work is. A new phase is printed too. Raises `Refused` or `Ordered`: the work must stop."""
        with self._lock:
            if phase != self._report["phase"] or more:
                print(f"{phase}: {said}", flush=True)
            self._report = {"phase": phase, "said": said, "done": done, "total": total, **more}
        self.check()

    def check(self) -> None:
        """Raise `Refused` or `Ordered` when the work must stop."""
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
            order = self._home.report(report)
        except Refused as refused:
            self._stop = refused
        else:
            if order != GO_ON:
                self._stop = Ordered(order)
        if self._stop is not None:
            self._ended.set()
