"""Ctrl-C while a stream is watched is heard between two updates, wherever the main thread is when it is pressed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from mulligan.api.cli.interrupts import Interrupted, Interrupts


@pytest.fixture(autouse=True)
def foreground() -> Iterator[None]:
    """As in a shell's foreground job: Ctrl-C is Python's own to handle."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "it was not given back"
    signal.signal(signal.SIGINT, before)


def press() -> None:
    """Press Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def test_a_stream_is_read_to_its_end() -> None:
    """Everything, in order; and its error, where it ends with one."""

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("it broke")

    with Interrupts() as interrupts:
        assert list(interrupts.read([1, 2, 3])) == [1, 2, 3]
        read = interrupts.read(broken())
        assert next(read) == 1
        with pytest.raises(OSError, match="it broke"):
            next(read)


def test_a_key_is_heard_while_nothing_comes() -> None:
    """The stream is silent; whoever reads it is told at once, in its own thread, and the stream's thread never is."""
    silent = threading.Event()

    def stream() -> Iterator[int]:
        yield 1
        silent.wait(60)

    with Interrupts() as interrupts:
        read = interrupts.read(stream())
        assert next(read) == 1
        threading.Timer(0.05, press).start()
        with pytest.raises(Interrupted):
            next(read)
    silent.set()


def test_a_key_is_heard_before_what_is_still_to_be_shown() -> None:
    """Also when it was pressed between two streams."""
    with Interrupts() as interrupts:
        read = interrupts.read(range(1000))
        assert next(read) == 0
        press()
        with pytest.raises(Interrupted):
            next(read)
        with pytest.raises(Interrupted):
            next(interrupts.read([1]))
        with pytest.raises(Interrupted):
            interrupts.wait(60)


def test_a_key_ends_a_pause() -> None:
    """Which otherwise lasts as long as it shall."""
    with Interrupts() as interrupts:
        interrupts.wait(0.01)
        threading.Timer(0.05, press).start()
        with pytest.raises(Interrupted):
            interrupts.wait(60)


def test_a_second_key_ends_what_does_not_listen() -> None:
    """So that nothing of ours can keep a terminal."""
    with Interrupts(), pytest.raises(KeyboardInterrupt):
        press()
        press()


def test_what_ignores_the_key_goes_on_ignoring_it() -> None:
    """A shell's background jobs do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        press()
        assert list(interrupts.read([1])) == [1]
    signal.signal(signal.SIGINT, signal.default_int_handler)
