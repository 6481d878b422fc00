"""The seed, read back by another program than the one that wrote it."""

from __future__ import annotations

import subprocess
import time
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mulligan.activities.errors import InvalidRequest
from mulligan.activities.images.seed import build_seed, check_network_config, check_user_data
from mulligan.activities.values import MachineRequest, Mark, Resources

URL = "http://192.0.2.1:8421/v1/call-home"
KEYS = ("ssh-ed25519 AAAAC3Nz one@example", 'command="x: y" ssh-rsa AAAAB3Nz two')
REQUEST = MachineRequest("shop", "web-1", "debian", Resources(1, 512, 5), hostname="web-1.example.org", ssh_keys=KEYS)
MARK = Mark("shop", "web-1", "0190b2c4-0000-7000-8000-000000000001", "run-1", 7)


def seed(request: MachineRequest = REQUEST, user_data: str = "", url: str = URL) -> bytes:
    """A seed with what most tests have in common."""
    return build_seed(request, MARK, user_data=user_data, call_home_url=url, call_home_token="to.ken")


def read(path: Path, iso: bytes, name: str, names: str = "-R") -> str:
    """A file of the image as isoinfo reads it (`-R` Rock Ridge, `-J` Joliet); empty when it is not there."""
    path.write_bytes(iso)
    command = ["isoinfo", "-i", str(path), names, "-x", f"/{name}"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to put an image for isoinfo."""
    return tmp_path / "seed.iso"


def test_the_label_is_what_cloud_init_looks_for(path):
    """NoCloud finds its disk by the label."""
    path.write_bytes(seed())
    said = subprocess.run(["isoinfo", "-d", "-i", str(path)], capture_output=True, check=True).stdout.decode()
    assert "Volume id: cidata\n" in said
    assert "Joliet" in said
    assert "Rock Ridge" in said


@pytest.mark.parametrize("names", ["-R", "-J"])
def test_meta_data_names_the_machine_and_permits_the_call_home(path, names):
    """Instance, host name, keys, and where to call home, each on a line of its own."""
    text = read(path, seed(), "meta-data", names)
    assert yaml.safe_load(text) == {
        "instance-id": MARK.machine_id,
        "local-hostname": "web-1.example.org",
        "public-keys": list(KEYS),
        "mulligan_call_home_url": URL,
        "mulligan_call_home_token": "to.ken",
    }
    assert f"\nmulligan_call_home_url: {URL}\n" in text
    assert "\nmulligan_call_home_token: to.ken\n" in text


def test_default_user_data_sets_name_and_keys_and_no_passwords(path):
    """What a request without user data gets."""
    text = read(path, seed(), "user-data")
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == {
        "hostname": "web-1",
        "fqdn": "web-1.example.org",
        "ssh_authorized_keys": list(KEYS),
        "ssh_pwauth": False,
    }


def test_the_name_stands_in_for_a_host_name(path):
    """A machine is called what it is called."""
    bare = replace(REQUEST, hostname="", ssh_keys=())
    assert yaml.safe_load(read(path, seed(bare), "meta-data"))["local-hostname"] == "web-1"
    assert yaml.safe_load(read(path, seed(bare), "user-data")) == {"hostname": "web-1", "ssh_pwauth": False}


def test_own_user_data_is_handed_on_as_it_is(path):
    """Not a byte is changed; keys and host name hold through meta-data."""
    own = "#!/bin/sh\necho 'schön' > /etc/motd\n"
    iso = seed(user_data=own)
    assert read(path, iso, "user-data") == own
    assert yaml.safe_load(read(path, iso, "meta-data"))["public-keys"] == list(KEYS)


def test_network_config_is_only_there_when_asked_for(path):
    """Without one cloud-init asks DHCP."""
    config = "version: 2\nethernets:\n  all:\n    match: {name: 'e*'}\n    dhcp4: true\n"
    assert read(path, seed(replace(REQUEST, network_config=config)), "network-config") == config
    path.write_bytes(seed())
    listing = subprocess.run(["isoinfo", "-R", "-f", "-i", str(path)], capture_output=True, check=True).stdout
    assert listing.decode().split() == ["/meta-data", "/user-data", "/vendor-data"]


def test_without_an_address_nothing_calls_home(path):
    """Neither script nor settings, nor the token."""
    iso = seed(url="")
    assert "call_home" not in read(path, iso, "meta-data")
    assert b"to.ken" not in iso


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("echo hello", "must begin with"),
        ("#cloud-config\n- a\n", "must be a YAML mapping"),
        ("#cloud-config\na: [1,\nb: secret: x\n", "not valid YAML at line"),
        ("#!/bin/sh\n" + "x" * 65536, "may have 65536"),
        ("#cloud-config\nname: " + "ä" * 32768, "may have 65536"),
        ("#cloud-config\npassword: !!int secret", "at line 2, column 11"),
        ("#cloud-config\npassword: !!bool secret", "at line 2, column 11"),
        ("#cloud-config\npassword: !!float secret", "at line 2, column 11"),
        ("#cloud-config\npassword: !!timestamp secret", "at line 2, column 11"),
        ("#cloud-config\npassword: !secret x", "not valid YAML at line 2"),
        ("#cloud-config\npassword: !secret [x]", "a tag that cloud-init does not know at line 2"),
        ("#cloud-config\na: 2001-13-45", "cannot be read as what it claims to be at line 2, column 4"),
        ("#cloud-config\na: " + "9" * 5000, "cannot be read as what it claims to be"),
        ("#cloud-config\na: " + "1:" * 5000 + "1.5", "cannot be read as what it claims to be"),
        ("#cloud-config\na: *secret", "not valid YAML at line 2"),
        ("#cloud-config\na: \x01secret", "not valid YAML"),
        ("#cloud-config\na: " + "[" * 33 + "]" * 33, "nested more than 32 deep"),
    ],
)
def test_user_data_that_cannot_work_is_refused(text, found):
    """With the field's name, and without repeating what may be a secret."""
    with pytest.raises(InvalidRequest, match=found) as raised:
        seed(user_data=text)
    assert raised.value.violations[0][0] == "user_data"
    assert "secret" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "text", ["", "#cloud-config\n", "#cloud-config\npackages: [git]\n", "#!/usr/bin/env python3\n", "#include\nhttp://x/\n",
             "#cloud-config\n---\n", "#cloud-config\nbase: &base {a: 1}\nb: {<<: *base, c: 2001-12-14, d: !!str 1}\n",
             "MIME-Version: 1.0\nContent-Type: multipart/mixed\n\n", "## template: jinja\n#cloud-config\na: {{ b }}\n"]
)  # fmt: skip
def test_user_data_that_cloud_init_knows_is_accepted(text):
    """All its kinds."""
    check_user_data(text)


@pytest.mark.parametrize("merged", ["{{<<: [{}]}}", "[{}]"])
def test_a_few_bytes_that_stand_for_very_much_are_refused_at_once(merged):
    """Aliases of aliases of aliases: by merge keys or as they are, each level multiplies the last one."""
    levels = [f"l{n}: &l{n} " + merged.format(", ".join([f"*l{n - 1}"] * 9)) for n in range(1, 12)]
    with pytest.raises(InvalidRequest, match="more than 64 aliases"):
        check_user_data("#cloud-config\nl0: &l0 {a: 1}\n" + "\n".join(levels))


def test_many_aliases_of_aliases_within_the_limit_cost_nothing():
    """What is allowed is not multiplied out either: this would be 8 ** 8 mappings."""
    levels = [f"l{n}: &l{n} {{<<: [{', '.join([f'*l{n - 1}'] * 8)}]}}" for n in range(1, 9)]
    begun = time.process_time()
    check_user_data("#cloud-config\nl0: &l0 {a: 1}\n" + "\n".join(levels))
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "text",
    [
        "- a",
        "version: 3",
        "version: '2'",
        "network: 2",
        "version: !!int x",
        "a: [",
        "x",
        "network: {config: disabled}",
        "[" * 5000,
    ],
)
def test_a_network_config_that_cannot_work_is_refused(text):
    """Anything but a mapping of version 1 or 2."""
    with pytest.raises(InvalidRequest, match="network_config"):
        check_network_config(text)


@pytest.mark.parametrize("text", ["", "version: 1\nconfig: []\n", "network:\n  version: 2\n"])
def test_a_network_config_of_either_version_is_accepted(text):
    """With or without the outer word `network`."""
    check_network_config(text)
