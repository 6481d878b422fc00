"""Which seed a live machine's cloud-init takes while a disk of its server has an older one: by cloud-init's own code.

The disk is played, as what a mount of it would give; the seed comes by HTTP, and the command line is the machine's.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mulligan.activities.errors import Unsupported
from mulligan.activities.images.build.packages import Archive, unpack
from mulligan.activities.images.seed import seed_files
from mulligan.activities.live import NO_DISKS, command_line
from mulligan.activities.values import Image, ImageFormat, MachineRequest, Mark, Resources

PACKAGES = ("cloud-init", "python3-configobj", "python3-six", "python3-jsonpatch", "python3-json-pointer")
REQUEST = MachineRequest("shop", "web-1", "live", Resources(1, 512, 0), ssh_keys=("ssh-ed25519 AAAA-ours",))
MARK = Mark("shop", "web-1", "m-1", "run-1", 1)
FORMER = {
    "meta-data": "{instance-id: former, local-hostname: former, public-keys: [ssh-ed25519 AAAA-former]}",
    "user-data": "#cloud-config\nssh_authorized_keys: [ssh-ed25519 AAAA-former]\n",
    "network-config": "{version: 2, ethernets: {eth0: {addresses: [10.66.6.6/24]}}}",
}
PROGRAM = """\
import json, sys
from cloudinit import helpers, stages, util
from cloudinit.sources import DataSourceNoCloud as nocloud
line, former, folder = json.loads(sys.stdin.read())
util.get_cmdline = lambda: line
nocloud.dmi.read_dmi_data = lambda key: ""
stages.CLOUD_CONFIG = folder + "/cloud.cfg"
open(stages.CLOUD_CONFIG, "w").write("datasource: {NoCloud: {fs_label: cidata}}")
nocloud.DataSourceNoCloud._get_devices = lambda self, label: ["/dev/sdb2"]
util.mount_cb = lambda *given, **more: former
paths = helpers.Paths({"cloud_dir": folder, "run_dir": folder})
found = nocloud.DataSourceNoCloudNet(stages.fetch_base_config(), None, paths)
assert found._get_data()
print(json.dumps({
    "id": found.get_instance_id(), "name": found.metadata["local-hostname"], "keys": found.get_public_ssh_keys(),
    "network": found.network_config, "user": found.userdata_raw.decode(),
}))
"""


@pytest.fixture(scope="module")
def cloud_init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Debian's cloud-init, unpacked."""
    folder = tmp_path_factory.mktemp("cloud-init")
    archive = Archive(folder / "apt", "bookworm")
    archive.refresh()
    unpack(archive.fetch(PACKAGES, lambda _: None), folder)
    return folder / "usr/lib/python3/dist-packages"


@pytest.fixture
def seed_url(tmp_path: Path) -> Iterator[str]:
    """The machine's own seed."""
    files = seed_files(REQUEST, MARK, user_data="", call_home_url="http://h/v1/call-home", call_home_token="t")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def found(cloud_init: Path, line: str, folder: Path) -> dict[str, Any]:
    """What cloud-init makes of the machine, with a former tenant's seed on a disk."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([line, FORMER, str(folder)]),
        env={**os.environ, "PYTHONPATH": str(cloud_init)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def line_of(seed_url: str, arguments: str = "console=ttyS0") -> str:
    """As the kernel is started."""
    image = Image("live", "file:///vmlinuz", "", ImageFormat.KERNEL, kernel_arguments=arguments)
    return command_line(image, seed_url, MARK.machine_id, REQUEST.name)


def test_nothing_of_an_older_seed_on_a_disk_reaches_a_live_machine(
    cloud_init: Path, seed_url: str, tmp_path: Path
) -> None:
    """Neither who it is, nor whose keys are let in, nor the network of whoever had the server before."""
    said = found(cloud_init, line_of(seed_url), tmp_path)
    assert (said["id"], said["name"], said["keys"]) == ("m-1", "web-1", ["ssh-ed25519 AAAA-ours"])
    assert said["network"] is None
    assert "AAAA-ours" in said["user"] and "AAAA-former" not in said["user"]


def test_cloud_config_among_the_images_own_arguments_stays(cloud_init: Path, seed_url: str, tmp_path: Path) -> None:
    """Both are read as one."""
    said = found(cloud_init, line_of(seed_url, "cc:timezone:%20UTC end_cc quiet"), tmp_path)
    assert (said["id"], said["keys"], said["network"]) == ("m-1", ["ssh-ed25519 AAAA-ours"], None)


def test_without_that_word_the_disk_is_merged_in(cloud_init: Path, seed_url: str, tmp_path: Path) -> None:
    """Why it is there: who the machine is would be told right, and whose keys are let in would not."""
    said = found(cloud_init, line_of(seed_url).replace(NO_DISKS, ""), tmp_path)
    assert (said["id"], said["name"]) == ("m-1", "web-1")
    assert "ssh-ed25519 AAAA-former" in said["keys"]
    assert said["network"] is not None


def test_the_word_is_one_that_no_boot_loader_acts_on() -> None:
    """GRUB expands what looks like a pattern, and iPXE and the kernel split at spaces."""
    assert not set(NO_DISKS) & set(" '\"\\${}[]*?|&;#")


@pytest.mark.parametrize("arguments", ["ifname=eth0:aa:bb:cc:dd:ee:ff", "cc:timezone:%20UTC", "x=cc:y end_cc"])
def test_settings_by_accident_are_refused(arguments: str) -> None:
    """They would swallow the word that keeps the disks out."""
    with pytest.raises(Unsupported, match="write hexadecimal digits before a colon in upper case"):
        line_of("http://192.0.2.1/", arguments)


@pytest.mark.parametrize("host", ["[fd00:cc::1]:7421", "boot.acc:7421"])
def test_an_address_begins_no_settings(host: str) -> None:
    """The case of a host's name counts for nothing."""
    line = line_of(f"http://{host}/v1/seed/token/", "ifname=eth0:AA:BB:CC:dd:ee:ff")
    assert line.count("cc:") == 1 and f"s=http://{host.upper()}/v1/seed/token/;" in line
