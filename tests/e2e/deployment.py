"""A deployment as a user has it: the installed commands, the embedded stack, its own state directory and ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from mulligan.activities.inventory import Inventory
from mulligan.v1 import images_pb2, images_pb2_grpc
from tests.services.temporal import free_port

MULLIGAN = str(Path(sys.executable).with_name("mulligan"))


class Deployment:
    """The embedded stack of one state directory, and the command line pointed at it."""

    def __init__(self, directory: Path, boot_listen: str = "") -> None:
        self.directory = directory
        self.api = f"127.0.0.1:{free_port()}"
        self.env = {
            **os.environ,
            "MULLIGAN_STATE_DIR": str(directory),
            "MULLIGAN_API": self.api,
            "MULLIGAN_TEMPORAL": f"127.0.0.1:{free_port()}",
            "MULLIGAN_TEMPORAL_UI": f"127.0.0.1:{free_port()}",
            "MULLIGAN_BOOT_LISTEN": boot_listen or f"127.0.0.1:{free_port()}",
            "HOME": str(directory),
            "NO_COLOR": "1",
        }

    def start(self, *options: str) -> None:
        """`mulligan up --detach`."""
        self.mulligan("up", "--detach", *options, within=120)

    def stop(self) -> None:
        """`mulligan down`."""
        self.mulligan("down", within=60)

    def run(self, *words: str, within: float = 120) -> subprocess.CompletedProcess[str]:
        """Run `mulligan WORDS`, whatever its exit code."""
        command = [MULLIGAN, *words]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=within, check=False)

    def mulligan(self, *words: str, within: float = 120) -> str:
        """Run `mulligan WORDS`, which must succeed; its standard output."""
        done = self.run(*words, within=within)
        assert done.returncode == 0, f"mulligan {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *words: str, within: float = 120) -> list[dict[str, Any]]:
        """The JSON documents that `mulligan WORDS --output json` prints, which must succeed."""
        return documents(self.mulligan(*words, "--output", "json", within=within))

    def background(self, *words: str) -> subprocess.Popen[str]:
        """Start `mulligan WORDS` and leave it running."""
        pipe = subprocess.PIPE
        return subprocess.Popen([MULLIGAN, *words], env=self.env, stdout=pipe, stderr=pipe, text=True)

    def pid(self, child: str) -> int:
        """The process id of `temporal`, `server` or `worker`."""
        state = json.loads((self.directory / "up.json").read_text())
        pid: int = state["children"][child]
        return pid

    def kill(self, child: str) -> None:
        """`kill -9` a process of the stack, and wait until the supervisor has started another and the API answers."""
        killed = self.pid(child)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: self.pid(child) != killed)
        wait_for(lambda: self.run("run", "list").returncode == 0)

    def inventory(self) -> Inventory:
        """The database, looked at from behind."""
        return Inventory.open(f"sqlite:///{self.directory / 'mulligan.sqlite'}")

    def add_simulated_image(self, name: str = "sim") -> None:
        """Register an image that simulated hosts take without moving a byte."""
        image = images_pb2.Image(
            name=name,
            source="simulated:demo",
            digest=f"sha256:{'0' * 64}",
            format=images_pb2.IMAGE_FORMAT_RAW,
            login="demo",
        )
        with grpc.insecure_channel(self.api) as channel:
            images_pb2_grpc.ImagesServiceStub(channel).AddImage(images_pb2.AddImageRequest(image=image), timeout=30)


def documents(text: str) -> list[dict[str, Any]]:
    """Every JSON document in a text, one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        document, at = decoder.raw_decode(text, at)
        found.append(document)
    return found


def wait_for(condition: Callable[[], object], within: float = 60) -> None:
    """Wait for a condition, looking ten times a second."""
    give_up = time.monotonic() + within
    while not condition():
        assert time.monotonic() < give_up, "the condition did not come true in time"
        time.sleep(0.1)


def command(*words: str, within: float = 60) -> str:
    """Run a command of the system, which must succeed; its standard output."""
    return checked(words, within)


def checked(words: Sequence[str], within: float) -> str:
    """Run a command, and show what it said when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=within, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
