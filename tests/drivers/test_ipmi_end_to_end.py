"""A server behind a simulated BMC, registered as an operator does it; and its password, which is nowhere afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import pytest

from mulligan.api.cli.exit_codes import ExitCode
from tests.drivers.ipmi_parts import PASSWORD, SIZES, Sim, ipmi_sim
from tests.services.stack import Stack, until

WRONG = "canary-wrong-9b1c"
GIVEN = [word for name, value in SIZES.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sim]:
    """The server's BMC."""
    with ipmi_sim(tmp_path_factory.mktemp("sim") / "bmc") as running:
        yield running


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose operator has written down two credentials, one of them wrong."""
    with Stack(tmp_path_factory.mktemp("ipmi")) as running:
        running.state_dir.mkdir(mode=0o700)
        credentials = running.state_dir / "credentials.yaml"
        credentials.touch(0o600)
        entries = {"rack": PASSWORD, "stale": WRONG}
        credentials.write_text(
            "".join(f'{name}:\n  username: mulligan\n  password: "{word}"\n' for name, word in entries.items())
        )
        running.up()
        yield running


def speakers(among: Iterable[psutil.Process] | None = None) -> list[psutil.Process]:
    """Those of this test's own processes that speak with a BMC; other suites run beside it. A zombie speaks no more."""
    own = psutil.Process().children(recursive=True) if among is None else among
    return [process for process in own if _holds(process, b"drivers.ipmi.child", "cmdline")]


def _holds(process: psutil.Process, words: bytes, where: str) -> bool:
    with contextlib.suppress(OSError):
        return words in Path(f"/proc/{process.pid}/{where}").read_bytes()
    return False


def test_a_server_is_registered_and_its_password_is_nowhere(stack: Stack, sim: Sim) -> None:
    """By URL, reference and size. No command line, environment, file, history or log has the password."""
    url = f"ipmi://127.0.0.1:{sim.port}"
    unsized = stack.run("provider", "add", "srv-1", url, "--credential", "rack")
    assert unsized.returncode == ExitCode.USAGE, unsized.stderr
    assert "--set vcpu=NUMBER" in unsized.stderr
    denied = stack.run("provider", "add", "srv-1", url, "--credential", "stale", *GIVEN)
    assert denied.returncode == ExitCode.DENIED, denied.stderr
    assert "the password is wrong" in denied.stderr
    added = stack.run("provider", "add", "srv-1", url, "--credential", "rack", *GIVEN)
    assert added.returncode == ExitCode.OK, added.stderr
    everyone = list(psutil.process_iter())
    assert speakers()
    assert not [p for p in everyone for w in ("cmdline", "environ") if _holds(p, b"canary-", w)]
    shown = stack.run("provider", "show", "srv-1").stdout
    assert [word for word in ("Contoso", "SN-4711-A", "driver.ipmi", " server", " rack") if word not in shown] == []
    assert "boot.disk" not in shown
    story = stack.run("run", "show", "enrol:srv-1").stdout
    told = unsized.stderr + denied.stderr + added.stdout + added.stderr + shown + story + stack.said
    assert "canary-" not in told
    assert _files_with(stack.state_dir, (PASSWORD, WRONG)) == ["credentials.yaml"]


def test_no_machine_is_made_where_no_image_can_be_put(stack: Stack, sim: Sim, tmp_path: Path) -> None:
    """Without the MACs of its cards it cannot boot the agent: it is refused by the name of what it lacks."""
    disk = stack.state_dir / "images" / "disk.raw"
    disk.parent.mkdir(exist_ok=True)
    disk.write_bytes(b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (2 << 20))
    assert stack.run("image", "add", "demo", str(disk)).returncode == ExitCode.OK
    url = f"ipmi://127.0.0.1:{sim.port}"
    assert stack.run("provider", "add", "srv-1", url, "--credential", "rack", *GIVEN).returncode == ExitCode.OK
    asked = ("m", "--image", "demo", "--ssh-key", "none", "--provider", "srv-1")
    for verb in ("plan", "provision"):
        refused = stack.run("machine", verb, *asked)
        assert refused.returncode != ExitCode.OK
        assert "boot.disk" in refused.stdout + refused.stderr
    assert sim.changes == []


def test_the_worker_takes_its_processes_along(stack: Stack, sim: Sim) -> None:
    """A process that still holds a session when the stack is stopped ends with it."""
    url = f"ipmi://127.0.0.1:{sim.port}"
    assert stack.run("provider", "add", "srv-2", url, "--credential", "rack", *GIVEN).returncode == ExitCode.OK
    mine = speakers()
    assert stack.stop() is not None
    until(lambda: not speakers(mine), 20, "the end of the last process that speaks with a BMC")


def _files_with(folder: Path, words: tuple[str, ...]) -> list[str]:
    """The files below the folder that hold any of the words, in UTF-8."""
    found = []
    for path in sorted(folder.rglob("*")):
        with contextlib.suppress(OSError):
            data = path.read_bytes() if path.is_file() else b""
            if any(word.encode() in data for word in words):
                found.append(str(path.relative_to(folder)))
    return found
