"""`mulligan top` as a process on a pseudo-terminal: it draws, leaves when told to, and gives the terminal back."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mulligan.api.cli.exit_codes import ExitCode
from tests.cli.conftest import BINARY, Mulligan
from tests.cli.fleet import Fleet, booting
from tests.cli.screen import Screen
from tests.cli.scripted import ScriptedApi
from tests.cli.terminal import CTRL_C


@pytest.fixture
def screen(environment: dict[str, str], api: ScriptedApi, tmp_path: Path) -> Iterator[Screen]:
    """The screen, with a run on it."""
    booting(Fleet(api), "web-1")
    with Screen(environment, tmp_path) as shown:
        shown.wait_for("boot runs")
        yield shown


@pytest.mark.parametrize(("key", "code"), [(b"q", ExitCode.OK), (CTRL_C, ExitCode.DETACHED)])
def test_a_key_leaves_and_gives_the_terminal_back(screen: Screen, key: bytes, code: ExitCode) -> None:
    """With the exit code of one who left, or who stopped watching."""
    screen.press(key)
    assert screen.finish() == code
    screen.assert_given_back()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_the_terminal_back(screen: Screen, number: signal.Signals) -> None:
    """Whoever ends it finds a terminal that works."""
    screen.process.send_signal(number)
    assert screen.finish() == ExitCode.DETACHED
    screen.assert_given_back()


def test_nothing_but_the_screen_writes_to_the_terminal(screen: Screen, api: ScriptedApi) -> None:
    """gRPC logs to standard error when a server says goodbye; here it would be drawn across the tables."""
    api.stop()
    screen.wait_for("disconnected, reconnecting")
    screen.press(b"q")
    assert screen.finish() == ExitCode.OK
    assert "chttp2" not in screen.shown


def test_without_a_terminal_it_says_so(mulligan: Mulligan, environment: dict[str, str], api: ScriptedApi) -> None:
    """And names the commands that need none; so does a terminal that cannot draw, and a wish for JSON."""
    done = mulligan("top")
    assert done.returncode == ExitCode.USAGE
    assert "needs a terminal" in done.stderr
    assert "next: mulligan run list" in done.stderr
    assert done.stdout == ""
    as_json = mulligan("top", "--output", "json")
    assert as_json.returncode == ExitCode.USAGE
    assert "mulligan run list --outcome open --output json" in as_json.stderr
    assert api.asked == []


def test_a_terminal_that_cannot_draw_is_none(environment: dict[str, str], tmp_path: Path) -> None:
    """TERM=dumb has no full screen."""
    with Screen({**environment, "TERM": "dumb"}, tmp_path) as screen:
        assert screen.finish() == ExitCode.USAGE
        assert "needs a terminal" in screen.shown


def test_an_api_that_is_not_there_is_waited_for(environment: dict[str, str], api: ScriptedApi, tmp_path: Path) -> None:
    """It may be started before the API is, and shows runs once there is one."""
    api.stop()
    with Screen(environment, tmp_path) as screen:
        screen.wait_for("disconnected, reconnecting")
        booting(Fleet(api), "web-1")
        api.start()
        screen.wait_for("boot runs")
        screen.press(b"q")
        assert screen.finish() == ExitCode.OK


def test_other_commands_do_not_import_what_draws(environment: dict[str, str], tmp_path: Path) -> None:
    """Help, and every other command, stay as quick as they were."""
    code = (
        "import sys; from mulligan.api.cli.main import run; run(['top', '--help']); "
        "sys.exit('textual' in sys.modules or 'temporalio' in sys.modules)"
    )
    done = subprocess.run([BINARY.with_name("python"), "-c", code], env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0
