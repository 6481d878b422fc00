"""Ctrl-C while a stream is watched: a word among what is read, not an exception that may be raised anywhere.

Python raises KeyboardInterrupt between any two steps of the main thread. In the few microseconds in which that thread
takes or gives back one of gRPC's locks, the lock stays taken, and closing the channel then waits for ever. So streams
are read by a thread of their own, the main thread waits for a queue only, and Ctrl-C puts a word into that queue.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """Ctrl-C was pressed."""


class _End:
    """How a stream ended: with an error, or politely."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


class Interrupts:
    """Hears Ctrl-C for as long as the block runs. Pressed again before the first was heard, it is KeyboardInterrupt."""

    def __init__(self) -> None:
        self._asked = False
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._before: Any = None

    def __enter__(self) -> Self:
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is not ours to hear
            self._before = signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _pressed(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._queue.put(Interrupted())  # a SimpleQueue may be put into at any point, also within its own `get`

    def check(self) -> None:
        """Raise Interrupted when Ctrl-C was pressed."""
        if self._asked:
            raise Interrupted

    def read(self, stream: Iterable[T]) -> Iterator[T]:
        """Everything of the stream, to its end or error. Raises Interrupted as soon as Ctrl-C is pressed."""
        items: SimpleQueue[Any] = SimpleQueue()
        self._queue = items
        self.check()
        threading.Thread(target=_pump, args=(stream, items), daemon=True).start()
        while True:
            item = items.get()
            self.check()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def wait(self, seconds: float) -> None:
        """Let time pass. Raises Interrupted as soon as Ctrl-C is pressed."""
        words = self._queue = SimpleQueue()
        self.check()
        with contextlib.suppress(Empty):
            raise words.get(timeout=seconds)


def _pump(stream: Iterable[T], items: SimpleQueue[Any]) -> None:
    try:
        for item in stream:
            items.put(item)
    except Exception as error:  # noqa: BLE001 - this thread's boundary: whoever reads the queue raises it
        items.put(_End(error))
    else:
        items.put(_End(None))
