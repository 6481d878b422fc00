"""The host of the real libvirt: what it is found to have, what it lacks, and how it is reached over the network."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import libvirt
import pytest

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.drivers.libvirt.daemons import ensure_daemons
from mulligan.activities.drivers.libvirt.driver import LibvirtDriver, open_libvirt
from mulligan.activities.drivers.registry import open_driver
from mulligan.activities.errors import HostNotReady, Unreachable
from mulligan.activities.values import PowerState, Target
from tests.drivers.contract import DriverContract, MarkFactory, soon, until
from tests.drivers.on_libvirt.host import NAME, SUBNET, dense_image, target


def test_running_daemons_are_left_alone(connection: libvirt.virConnect) -> None:
    """With libvirt up there is nothing to start."""
    assert ensure_daemons() == []


async def test_the_gateway_is_the_networks_own_address(driver: LibvirtDriver) -> None:
    """Guests reach the boot server where libvirt's bridge is."""
    assert await driver.gateway(soon()) == f"{SUBNET}.1"


async def test_auto_gives_an_accelerator_under_which_a_guest_was_seen_to_live(
    driver: LibvirtDriver, pool: libvirt.virStoragePool
) -> None:
    """Whatever the host offers, what is registered was proved, and the trial leaves nothing."""
    auto = await open_libvirt(target(accelerator="auto"), soon())
    before = set(pool.listVolumes())
    found = await auto.inspect(Deadline.after(120))
    await auto.close()
    chosen = found.settings["accelerator"]
    assert chosen in {"kvm", "tcg"}
    assert f"accel.{chosen}" in found.capabilities
    assert "a guest spoke" in found.facts[f"accelerator.{chosen}"]
    assert "firmware.bios" in found.capabilities
    assert set(pool.listVolumes()) == before


@pytest.mark.parametrize("setting", ["pool", "network"])
async def test_a_missing_pool_or_network_says_how_to_mend_it(
    pool: libvirt.virStoragePool, network: libvirt.virNetwork, setting: str
) -> None:
    """The host is not ready, and the remedy is a command."""
    lacking = await open_libvirt(target(**{setting: "mulligan-no-such"}), soon())
    with pytest.raises(HostNotReady) as caught:
        await lacking.inspect(soon())
    await lacking.close()
    assert caught.value.remedy.startswith("virsh")


SSH_TO_HERE = """\
#!/bin/sh
# An ssh client that is already where it shall go: drops options and host, and runs the command.
while [ "${1#-}" != "$1" ]; do
    case "$1" in --) shift; break ;; -[eplo]) shift ;; esac
    shift
done
shift
exec sh -c "$*"
"""


def put_first_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, client: str) -> None:
    """Let this script be the `ssh` that libvirt finds."""
    script = folder / "ssh"
    script.write_text(client)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("transport", ["unix", "ssh"])
async def test_a_machine_lives_through_a_remote_transport(
    pool: libvirt.virStoragePool,
    network: libvirt.virNetwork,
    tmp_path: Path,
    mark: MarkFactory,
    monkeypatch: pytest.MonkeyPatch,
    transport: str,
) -> None:
    """Upload, seed, definition, power, console and undo go through libvirt's remote protocol alone, with keepalive."""
    put_first_on_path(monkeypatch, tmp_path, SSH_TO_HERE)
    url = "qemu+unix:///system" if transport == "unix" else "qemu+ssh://localhost/system"
    opened: Any = await open_driver(Target(NAME, "default", url, target().settings), state_dir=tmp_path)
    suite, me = DriverContract(), mark()
    await suite.made(opened, dense_image(tmp_path), me)
    await opened.power_on(me, soon())
    assert "mulligan:" in await until(lambda: suite.console_with(opened, me, "mulligan:"))
    await suite.unmade(opened, me)
    assert await opened.remains(me.machine_id, soon()) == ()
    await opened.close()
    await opened.close()


def cut_the_line(pid: str) -> None:
    """Kill the transport's process and its descendants, leaves first."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        cut_the_line(child)
    with contextlib.suppress(ProcessLookupError):  # a shell ends with its child
        os.kill(int(pid), signal.SIGKILL)


async def test_a_connection_that_was_lost_is_opened_again(
    pool: libvirt.virStoragePool,
    network: libvirt.virNetwork,
    tmp_path: Path,
    mark: MarkFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cut line costs at most one call, which is transient; the next one works."""
    log = tmp_path / "pids"
    put_first_on_path(monkeypatch, tmp_path, SSH_TO_HERE.replace("exec", f"echo $$ >> {log}\nexec"))
    opened = await open_libvirt(Target(NAME, "default", "qemu+ssh://localhost/system", target().settings), soon())
    assert (await opened.power(mark(), soon())).state is PowerState.ABSENT
    cut_the_line(log.read_text().strip())
    with contextlib.suppress(Unreachable):
        await opened.power(mark(), soon())
    assert (await opened.power(mark(), soon())).state is PowerState.ABSENT
    assert len(log.read_text().split()) == 2
    await opened.close()
