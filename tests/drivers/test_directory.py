"""The drivers' directory has one identity, whoever asks; and how workers say it where the others see it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mulligan.activities.drivers.directory import (
    ID_FILE,
    Neighbour,
    identify,
    locks_are_local,
    me,
    neighbour_of,
    polls_as,
    strangers,
)
from mulligan.activities.errors import HostNotReady

ASK = """
import sys
from pathlib import Path
from mulligan.activities.drivers.directory import identify
sys.stdin.readline()
print(identify(Path(sys.argv[1])))
"""


def test_workers_that_begin_at_once_find_one_identity(tmp_path: Path) -> None:
    """Whoever comes first draws it; it stays."""
    command = [sys.executable, "-c", ASK, str(tmp_path / "drivers")]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for each in workers:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    found = {each.communicate(timeout=60)[0].strip() for each in workers}
    assert found == {identify(tmp_path / "drivers")}


def test_a_copy_is_another_directory(tmp_path: Path) -> None:
    """Also one that was made with everything in it, as an operator makes it who sets up a second worker."""
    mine = identify(tmp_path / "mine")
    shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    assert identify(tmp_path / "copy") != mine
    assert identify(tmp_path / "mine") == mine


@pytest.mark.parametrize("damage", ["", "0123", "../../etc/passwd"], ids=["empty", "cut-off", "strange"])
def test_a_damaged_identity_is_drawn_anew(tmp_path: Path, damage: str) -> None:
    """A power cut may leave a file with nothing in it."""
    (tmp_path / ID_FILE).write_text(damage)
    found = identify(tmp_path)
    assert found == identify(tmp_path)
    assert len(found.partition("-")[0]) == 12


def test_a_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    """What was asked, what was found, what to do."""
    (tmp_path / "drivers").write_text("a file")
    with pytest.raises(HostNotReady, match="drivers is to be written and locked by this worker, and is not"):
        identify(tmp_path / "drivers")


def test_a_worker_says_its_directory_where_it_polls() -> None:
    """What it says is read back; who says nothing, or something else, is a stranger."""
    mine = me("0123456789ab-1f")
    assert neighbour_of(polls_as(mine)) == mine
    silent, other = neighbour_of("7@host-b"), Neighbour("8@host-c", "ba9876543210-2e")
    assert strangers(mine.directory, [mine, silent, other, other]) == (silent, other)
    assert str(silent) == "7@host-b (directory unknown)"
    assert silent.host == "host-b"


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:50 / /srv/mulligan\\040state rw,relatime shared:2 - nfs4 nas:/state rw,vers=4.2,{options},addr=10.0.0.9
31 22 0:51 / /srv/other rw,relatime - nfs nas:/other rw,vers=3,nolock,local_lock=all,addr=10.0.0.9
"""


@pytest.mark.parametrize(
    ("options", "local"),
    [("local_lock=none", False), ("local_lock=flock", True), ("local_lock=all", True), ("nolock", True)],
    ids=["none", "flock", "all", "nolock"],
)
def test_locks_that_stay_on_this_host_are_found_by_the_mount(tmp_path: Path, options: str, local: bool) -> None:
    """By the mount that holds the directory, not by any other."""
    (tmp_path / "mounts").write_text(MOUNTS.format(options=options))
    assert locks_are_local(Path("/srv/mulligan state/drivers"), tmp_path / "mounts") is local
    assert not locks_are_local(Path("/var/lib/mulligan/drivers"), tmp_path / "mounts")


def test_locks_of_this_hosts_own_disks_are_seen() -> None:
    """By what the system says of its mounts."""
    assert not locks_are_local(Path("/"))
