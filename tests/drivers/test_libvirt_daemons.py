"""Starting libvirt's daemons where another process starts them at the same moment."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from mulligan.activities.drivers.libvirt import daemons
from mulligan.activities.errors import HostNotReady


@pytest.fixture
def losing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host on which starting a daemon fails, as where one is being started already; gives where they listen."""
    for name in ("virtlogd", "libvirtd"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(daemons, "RUNTIME", tmp_path)
    return tmp_path


def test_who_starts_it_second_waits_for_the_first(losing: Path) -> None:
    """Of two that start a daemon at once one fails, and finds the other's."""
    servers = [socket.socket(socket.AF_UNIX) for _ in range(2)]

    def come_up() -> None:
        for server, name in zip(servers, ("virtlogd-sock", "libvirt-sock"), strict=True):
            server.bind(str(losing / name))
            server.listen()

    first = threading.Timer(0.2, come_up)
    first.start()
    assert daemons._start_processes() == []
    first.join()
    for server in servers:
        server.close()


def test_a_daemon_that_cannot_start_is_said(losing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that shows why."""
    monkeypatch.setattr(daemons, "OTHERS_SECONDS", 0.0)
    with pytest.raises(HostNotReady, match="virtlogd --verbose"):
        daemons._start_processes()
