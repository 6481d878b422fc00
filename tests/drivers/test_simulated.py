"""The simulated driver: the contract, its guest, and a state that outlives the processes that drive it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mulligan.activities import errors
from mulligan.activities.drivers.base import Addresses, Computers, Console, Disks, Power
from mulligan.activities.drivers.simulated import SimulatedDriver, journal, open_simulated, plant, snapshot, stop_guests
from mulligan.activities.values import Kind, Mark, PowerState
from tests.drivers import simulated_parts as parts
from tests.drivers.contract import DriverContract, MarkFactory, until
from tests.drivers.simulated_parts import booted, home_door, made, new_mark, opened, soon, target, unmade
from tests.services.temporal import free_port


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SimulatedDriver]:
    """A host without delays or faults, and its guests ended afterwards."""
    found = await opened(tmp_path)
    yield found
    await found.close()
    await stop_guests()


@pytest.fixture
def mark() -> MarkFactory:
    """Marks of one fresh machine, unless another is named; the fleet is gone with the test's folder."""
    own = new_mark().machine_id
    return lambda fence=1, machine_id=None: new_mark(fence, machine_id or own)


class TestContract(DriverContract):
    """The rules that hold for every driver."""

    banner = "login:"


def test_it_can_do_what_a_virtual_machine_needs(driver: SimulatedDriver) -> None:
    """It satisfies every capability's Protocol, and needs no image to be fetched."""
    assert all(isinstance(driver, protocol) for protocol in (Disks, Computers, Power, Console, Addresses))
    assert driver.moves_bytes is False


async def test_inspection_says_that_it_is_a_simulation(tmp_path: Path) -> None:
    """The inventory is the address's, the kind too, and nobody can take the host for a real one."""
    hypervisor = await (await opened(tmp_path, "vcpu=4&memory_mib=2048&disk_gib=10")).inspect(soon())
    assert [(row.resource, row.total) for row in hypervisor.inventory] == [
        ("vcpu", 4),
        ("memory_mib", 2048),
        ("disk_gib", 10),
    ]
    assert "simulated" in hypervisor.facts["simulation"]
    assert {"driver.simulated", "arch.x86_64", "firmware.uefi"} <= set(hypervisor.capabilities)
    server = await (await opened(tmp_path, "kind=bare-metal", host="h2")).inspect(soon())
    assert server.kind is Kind.BARE_METAL
    assert "boot.virtual-media" in server.capabilities


async def test_placing_a_base_reports_its_bytes(tmp_path: Path) -> None:
    """Progress rises from nothing to the image's whole size, though no file is read."""
    driver, seen = await open_simulated(target("speed=0.01"), tmp_path), []
    await driver.place_base(parts.BASE, lambda *step: seen.append(step), soon())
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[0][1] == 0
    assert seen[-1][1:] == (1 << 30, 1 << 30)


async def test_placing_gives_up_at_its_deadline_and_leaves_nothing(tmp_path: Path) -> None:
    """A base that could not be placed in time is not there, whole or in part."""
    driver = await open_simulated(target("speed=1"), tmp_path)
    with pytest.raises(errors.Unreachable):
        await driver.place_base(parts.BASE, lambda *_: None, soon(0.05))
    assert not await driver.has_base(parts.BASE.digest, soon())


async def test_a_boot_shows_over_time(tmp_path: Path) -> None:
    """The console grows line by line, and the address comes only after the login prompt."""
    driver, mark = await open_simulated(target("speed=0.2"), tmp_path), new_mark()
    await booted(driver, mark)
    early = await driver.console(mark, 0, soon())
    assert "firmware" in early.text
    assert "login:" not in early.text
    assert (await driver.addresses(mark, soon())).found == ()
    found = (await until(lambda: found_address(driver, mark)))[0]
    late = await driver.console(mark, early.next_offset, soon())
    assert late.text.endswith("demo-1 login: \r\n")
    assert found.at <= datetime.now(UTC)


async def found_address(driver: SimulatedDriver, mark: Mark) -> tuple[object, ...]:
    """The sightings so far."""
    return (await driver.addresses(mark, soon())).found


async def test_the_same_seed_boots_in_the_same_time(tmp_path: Path) -> None:
    """Delays are drawn from the seed, the host and the machine, so that a run can be repeated."""
    times = []
    for folder in ("a", "b"):
        driver, mark = await open_simulated(target("speed=0.01"), tmp_path / folder), new_mark(machine_id="m-1")
        before = await powered_at(driver, mark)
        found = await until(lambda d=driver, m=mark: found_address(d, m))
        times.append(found[0].at.timestamp() - before)
    assert times[0] == pytest.approx(times[1], abs=1e-4)


async def powered_at(driver: SimulatedDriver, mark: Mark) -> float:
    """Boot the machine; when its power came on."""
    await booted(driver, mark)
    row = await driver._state.read(lambda db: db.execute("SELECT powered_at FROM machines").fetchone())
    return float(row[0])


async def test_the_guest_calls_home_with_its_token(driver: SimulatedDriver) -> None:
    """What its seed told it goes to the boot server, from the machine's own address, once."""
    mark = new_mark()
    async with home_door() as home:
        await booted(driver, mark, parts.seed(home.url, "secret"))
        await until(lambda: console_with(driver, mark, "called home"))
        (call,) = home.calls
    sighting = (await driver.addresses(mark, soon())).found[0]
    assert call["token"] == "Bearer secret"
    assert (call["hostname"], call["instance_id"], call["status"]) == ("demo-1", "i-1", "done")
    assert call["addresses"] == [sighting.address] == [call["peer"]]
    assert call["ssh_host_keys"][0].startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5")


async def console_with(driver: SimulatedDriver, mark: Mark, text: str) -> bool:
    """Whether the console has shown it."""
    return text in (await driver.console(mark, 0, soon())).text


async def test_a_guest_calls_again_until_somebody_answers(driver: SimulatedDriver) -> None:
    """A boot server that is down for a while loses no call."""
    mark = new_mark()
    async with home_door() as home:
        home.statuses = [503, 500]
        await booted(driver, mark, parts.seed(home.url, "t"))
        await until(lambda: console_with(driver, mark, "called home"))
    assert len(home.calls) == 3
    assert len({call["boot_id"] for call in home.calls}) == 1


async def test_a_refused_guest_says_so_on_its_console(driver: SimulatedDriver) -> None:
    """A call that was refused is not repeated."""
    mark = new_mark()
    async with home_door() as home:
        home.statuses = [403]
        await booted(driver, mark, parts.seed(home.url, "t"))
        await until(lambda: console_with(driver, mark, "refused with HTTP status 403"))
    assert len(home.calls) == 1


async def test_a_guest_serves_a_banner_until_it_is_off(tmp_path: Path) -> None:
    """With `service=on` an SSH client would find a server at the machine's address, and none after power off."""
    port = free_port()
    driver, mark = await opened(tmp_path, f"service=on&service_port={port}"), new_mark()
    await booted(driver, mark)
    address = (await driver.addresses(mark, soon())).found[0].address
    assert await until(lambda: banner(address, port)) == b"SSH-2.0-mulligan-simulated\r\n"
    await driver.power_off(mark, soon())

    async def silent() -> bool:
        return not await banner(address, port)

    await until(silent)


async def banner(address: str, port: int) -> bytes:
    """The first line of whoever listens there; empty when nobody does."""
    try:
        reader, writer = await asyncio.open_connection(address, port)
    except ConnectionError:
        return b""
    line = await reader.readline()
    writer.close()
    return line


async def test_a_foreign_object_is_never_touched(driver: SimulatedDriver, tmp_path: Path) -> None:
    """What someone put there by hand under our name is a conflict, for making and for removing."""
    mark = new_mark()
    await driver.place_base(parts.BASE, lambda *_: None, soon())
    plant(tmp_path, "f", "h1", f"mulligan-{mark.machine_id}-disk")
    before = snapshot(tmp_path, "f")
    with pytest.raises(errors.Conflict, match="nobody that Mulligan knows"):
        await driver.create_disks(mark, parts.BASE.digest, 20, parts.seed(), soon())
    with pytest.raises(errors.Conflict):
        await driver.remove_disks(mark, soon())
    assert snapshot(tmp_path, "f") == before


async def test_a_whole_server_holds_one_machine(tmp_path: Path) -> None:
    """On bare metal a later machine meets a conflict, an earlier one a newer fence, and the undo of either is safe."""
    driver = await opened(tmp_path, "kind=bare-metal")
    first, second, late = new_mark(5), new_mark(6), new_mark(4)
    await booted(driver, first)
    with pytest.raises(errors.Conflict):
        await driver.define(second, parts.SHAPE, soon())
    with pytest.raises(errors.StaleFence):
        await driver.define(late, parts.SHAPE, soon())
    await unmade(driver, late)
    assert (await driver.power(first, soon())).state is PowerState.ON
    await unmade(driver, first)
    await booted(driver, second)


async def test_order_is_kept(driver: SimulatedDriver) -> None:
    """Disks and definition of a running machine cannot be pulled away, and nothing boots without them."""
    mark = new_mark()
    with pytest.raises(errors.NotFound, match="define it first"):
        await driver.power_on(mark, soon())
    await driver.define(mark, parts.SHAPE, soon())
    with pytest.raises(errors.Conflict, match="create its disks first"):
        await driver.power_on(mark, soon())
    with pytest.raises(errors.NotFound, match="place it first"):
        await driver.create_disks(mark, parts.BASE.digest, 20, parts.seed(), soon())
    await booted(driver, mark)
    for pull in (driver.remove_disks, driver.undefine):
        with pytest.raises(errors.Conflict, match="power it off first"):
            await pull(mark, soon())


async def test_the_journal_tells_acting_from_repeating(driver: SimulatedDriver, tmp_path: Path) -> None:
    """Each changing call is written down in order, and only the first of its kind has changed anything."""
    mark = new_mark(7)
    for _ in range(2):
        await booted(driver, mark)
    for _ in range(2):
        await unmade(driver, mark)
    entries = [entry for entry in journal(tmp_path, "f") if entry.machine_id]
    assert [entry.verb for entry in entries if entry.changed] == [
        "create_disks",
        "define",
        "power_on",
        "power_off",
        "undefine",
        "remove_disks",
    ]
    assert {(entry.fence, entry.outcome, entry.pid) for entry in entries} == {(7, "OK", os.getpid())}
    assert snapshot(tmp_path, "f").clean


async def test_a_deadline_that_has_passed_changes_nothing(driver: SimulatedDriver, tmp_path: Path) -> None:
    """A call that comes too late is refused before it acts."""
    with pytest.raises(errors.Unreachable, match="no answer within the time"):
        await driver.define(new_mark(), parts.SHAPE, soon(0))
    assert snapshot(tmp_path, "f").clean


async def test_processes_share_a_fleet(driver: SimulatedDriver, tmp_path: Path) -> None:
    """What one process makes, another sees, and both may act at once without losing either's work."""
    script = "\n".join(
        (
            "import asyncio, sys; from pathlib import Path",
            "from tests.drivers.simulated_parts import booted, new_mark, opened",
            "async def main():",
            "    driver = await opened(Path(sys.argv[1]))",
            "    for number in range(25): await booted(driver, new_mark(machine_id=f'{sys.argv[2]}-{number}'))",
            "asyncio.run(main())",
        )
    )
    children = [await child(script, str(tmp_path), name) for name in ("a", "b")]
    assert [await process.wait() for process in children] == [0, 0]
    found = snapshot(tmp_path, "f")
    assert (len(found.powered_on), len(found.objects)) == (50, 150)
    assert (await driver.power(new_mark(machine_id="b-24"), soon())).state is PowerState.ON


async def child(script: str, *arguments: str) -> asyncio.subprocess.Process:
    """A Python process of its own, which finds this repository's tests."""
    command = (sys.executable, "-c", script, *arguments)
    return await asyncio.create_subprocess_exec(*command, cwd=Path(__file__).parents[2])


async def test_a_killed_process_loses_no_call_home(tmp_path: Path) -> None:
    """The process that powered the machine on is killed while it boots: whoever opens the host next makes the call."""
    script = "\n".join(
        (
            "import asyncio, sys; from pathlib import Path",
            "from tests.drivers.simulated_parts import *",
            "async def main():",
            "    driver = await open_simulated(target('speed=0.1'), Path(sys.argv[1]))",
            "    await booted(driver, new_mark(machine_id='m-1'), seed(sys.argv[2], 'secret'))",
            "    await asyncio.Event().wait()",
            "asyncio.run(main())",
        )
    )
    async with home_door() as home:
        process = await child(script, str(tmp_path), home.url)

        async def on() -> bool:
            return bool(snapshot(tmp_path, "f").powered_on)

        await until(on)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        assert home.calls == []
        driver = await open_simulated(target("speed=0.1"), tmp_path)
        mark = new_mark(machine_id="m-1")
        await until(lambda: console_with(driver, mark, "called home"))
    assert [call["token"] for call in home.calls] == ["Bearer secret"]


async def test_a_process_killed_inside_a_verb_leaves_it_to_the_next(tmp_path: Path) -> None:
    """Killed between asking and acting: nothing is half made, and the same verbs again finish the work."""
    script = "\n".join(
        (
            "import asyncio, sys; from pathlib import Path",
            "from tests.drivers.simulated_parts import *",
            "async def main():",
            "    driver = await opened(Path(sys.argv[1]), 'hold=define:1:60')",
            "    await booted(driver, new_mark(machine_id='m-1'))",
            "asyncio.run(main())",
        )
    )
    process = await child(script, str(tmp_path))

    async def inside() -> bool:
        return any((entry.verb, entry.outcome) == ("define", "BEGUN") for entry in journal(tmp_path, "f"))

    await until(inside)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert {each.kind for each in snapshot(tmp_path, "f").objects} == {"disk", "seed"}
    driver, mark = await opened(tmp_path, "hold=define:1:60"), new_mark(machine_id="m-1")
    await booted(driver, mark)
    acted = [entry.verb for entry in journal(tmp_path, "f") if entry.changed and entry.machine_id]
    assert acted == ["create_disks", "define", "power_on"]
    await unmade(driver, mark)
    assert snapshot(tmp_path, "f").clean


async def test_a_replaced_file_is_noticed(driver: SimulatedDriver, tmp_path: Path) -> None:
    """When the state directory was wiped, the old connection says so, and opening again starts a new fleet."""
    mark = new_mark()
    await made(driver, mark)
    wipe(tmp_path)
    again = await opened(tmp_path)
    assert await again.remains(mark.machine_id, soon()) == ()
    with pytest.raises(errors.Unreachable, match="open the host again"):
        await driver.power(mark, soon())


def wipe(folder: Path) -> None:
    """Remove a fleet's files while they are in use."""
    for file in folder.glob("simulated-f*"):
        file.unlink()


async def test_many_lives_at_once_leave_nothing(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Two hundred machines live and go on one host, eight at a time; the time of one life is kept in the report."""
    marks, running = [new_mark(fence) for fence in range(1, 201)], asyncio.Semaphore(8)

    async def life(mark: Mark) -> None:
        async with running:
            driver = await opened(tmp_path)
            await booted(driver, mark)
            assert (await driver.power(mark, soon())).state is PowerState.ON
            await unmade(driver, mark)

    begun = time.perf_counter()
    await asyncio.gather(*map(life, marks))
    record_property("milliseconds_per_life", round((time.perf_counter() - begun) / len(marks) * 1000, 3))
    assert snapshot(tmp_path, "f").clean
    acted = [entry for entry in journal(tmp_path, "f") if entry.machine_id and entry.changed]
    assert len(acted) == 6 * len(marks)


async def test_a_state_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    """A file where the directory should be is an error that names it, not a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.HostNotReady, match="file"):
        await opened(tmp_path / "file")
