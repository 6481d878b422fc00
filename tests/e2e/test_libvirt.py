"""Real virtual machines on this host's libvirt, made and released through the installed commands, and logged in to."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.deployment import documents
from tests.e2e.lab import NAME, Lab, running_lab
from tests.services.stack import until

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One for all of these tests."""
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


def test_registering_a_hypervisor_reads_what_it_has_and_proves_its_accelerator(lab: Lab) -> None:
    """The inventory is libvirt's own, and the accelerator is one with which a guest really ran."""
    (shown,) = lab.deployment.documents("provider", "show", "this-host")
    provider = shown.get("provider", shown)
    vcpu = next(row for row in provider["inventory"] if row["resource"] == "vcpu")
    assert int(vcpu["total"]) == lab.connection.getInfo()[2]
    assert provider["settings"]["accelerator"] in ("kvm", "tcg")
    assert f"accel.{provider['settings']['accelerator']}" in provider["capabilities"]


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_a_demo_machine_can_be_logged_in_to_and_leaves_nothing(lab: Lab, firmware: str) -> None:
    """It has the name and the key that were asked for; after release libvirt has nothing of it."""
    name = f"demo-{firmware}"
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2", "--firmware", firmware)
    told = lab.deployment.documents(*lab.provision(name, "demo", *size), seconds=300)
    machine = told[-1]["machine"]
    assert [e["level"] for e in machine["evidence"]][-1] == "VERIFY_LEVEL_SERVICE"
    assert lab.ssh(machine["login"], machine["addresses"][0], "hostname").strip() == name
    assert lab.left()
    lab.deployment.mulligan("machine", "release", name)
    assert lab.left() == []


def test_a_plan_knows_what_is_on_the_hypervisor_already(lab: Lab) -> None:
    """After a machine was made of the image, no byte is to be moved for the next one, and planning makes nothing."""
    flags = ("--image", "demo", "--verify", "guest", "--ssh-key", "none", "--disk", "2")
    (plan,) = lab.deployment.documents("machine", "plan", "planned", *flags)
    assert (plan["provider"], plan["lacks"], plan["destroys"]) == ("this-host", [], [])
    assert (int(plan["download_bytes"]), int(plan["place_bytes"])) == (0, 0)
    assert int(plan["cached_bytes"]) > 0
    assert plan["hash"]
    assert lab.left() == []


def progress(lab: Lab, run: str) -> list[dict[str, Any]]:
    """What an open run is at; nothing before it has begun."""
    shown = lab.deployment.run("run", "show", run, "--output", "json").stdout
    return [each for document in documents(shown) for each in document.get("progress", [])]


def test_kills_do_not_lose_a_real_boot(lab: Lab) -> None:
    """`kill -9` of worker, API server and Temporal, all during one boot: the run goes on and ends ready."""
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2")
    watcher = lab.deployment.background(*lab.provision("killed", "demo", *size))

    def is_booting() -> bool:
        return any(each.get("step") in ("boot", "verify") for each in progress(lab, "provision:default:killed"))

    until(is_booting, 60, "a run that boots")
    for victim in ("worker", "server", "temporal"):
        lab.deployment.kill_child(victim)
    out, err = watcher.communicate(timeout=240)
    assert watcher.returncode == 0, err
    machine = documents(out)[-1]["machine"]
    assert lab.ssh(machine["login"], machine["addresses"][0], "hostname").strip() == "killed"
    lab.deployment.mulligan("machine", "release", "killed")
    assert lab.left() == []


def test_a_cancelled_run_leaves_nothing_on_the_hypervisor(lab: Lab) -> None:
    """Cancelled while it boots: domain, volumes, seed and console are gone when the run has ended."""
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2")
    watcher = lab.deployment.background(*lab.provision("cancelled", "demo", *size))
    until(lambda: any(lab.is_ours(d) for d in lab.connection.listAllDomains()), 120, "a domain")
    lab.deployment.run("run", "cancel", "provision:default:cancelled")
    watcher.communicate(timeout=120)
    assert watcher.returncode == 7
    assert lab.left() == []


def hold_before_verify(lab: Lab, run: str, *start: str) -> None:
    """Start the run and hold it when its machine was switched on. It waits for room until the hold was taken, so that
    it is not taken too late."""
    lab.deployment.mulligan("provider", "set", "this-host", "--disable")
    assert lab.deployment.run(*start).returncode == 0
    lab.deployment.mulligan("run", "hold", run, "--before", "verify", "--reason", "to look at its screen")
    lab.deployment.mulligan("provider", "set", "this-host", "--enable")
    until(lambda: lab.deployment.documents("run", "show", run)[0]["run"].get("held", False), 120, "a held run")


def test_a_cancelled_run_is_made_again_held_and_resumed(lab: Lab) -> None:
    """Retried afresh, it is held before it is verified: the machine runs and is kept, and resumed it is proved."""
    run, size = "provision:default:steered", ("--vcpu", "1", "--memory", "512", "--disk", "2")
    asked = lab.provision("steered", "demo", "--wait-for-room", *size)
    assert lab.deployment.run(*asked, "--detach").returncode == 0
    until(lambda: any(lab.is_ours(d) for d in lab.connection.listAllDomains()), 120, "a domain")
    lab.deployment.mulligan("run", "cancel", run, "--reason", "not yet")
    assert lab.left() == []
    hold_before_verify(lab, run, "run", "retry", run, "--reason", "now", "--no-watch")
    assert [d.isActive() for d in lab.connection.listAllDomains() if lab.is_ours(d)] == [1]
    lab.deployment.mulligan("run", "resume", run, seconds=300)
    told = lab.deployment.documents("machine", "show", "steered")[0]
    machine = told.get("machine", told)
    assert lab.ssh(machine["login"], machine["addresses"][0], "hostname").strip() == "steered"
    lab.deployment.mulligan("machine", "release", "steered")
    assert lab.left() == []


def test_a_mulligan_leaves_one_hypervisor_for_another(lab: Lab) -> None:
    """What was made on the first is gone before the second makes it; here both are the same host, by two names."""
    run, size = "provision:default:moved", ("--vcpu", "1", "--memory", "512", "--disk", "2")
    hold_before_verify(lab, run, *lab.provision("moved", "demo", "--wait-for-room", *size), "--detach")
    settings = ["--set", f"pool={NAME}", "--set", f"network={NAME}"]
    lab.deployment.mulligan("provider", "add", "the-other", "qemu:///system", *settings, seconds=180)
    lab.deployment.mulligan("run", "mulligan", run, "--reason", "its fan is loud", seconds=300)
    (shown,) = lab.deployment.documents("machine", "show", "moved")
    machine = shown.get("machine", shown)
    assert machine["provider"] == "the-other"
    assert len([d for d in lab.connection.listAllDomains() if lab.is_ours(d)]) == 1
    lab.deployment.mulligan("machine", "release", "moved")
    lab.deployment.mulligan("provider", "remove", "the-other", "--forget")
    assert lab.left() == []


def test_a_guest_that_could_not_do_what_was_asked_is_not_ready(lab: Lab, tmp_path: Path) -> None:
    """The demo image has no `runcmd`: the guest says so itself, the run fails with it, and no host is blamed."""
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\nruncmd: [touch /done]\n")
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2", "--user-data", str(user_data))
    done = lab.deployment.run(*lab.provision("unable", "demo", *size), seconds=300)
    assert done.returncode == 6
    assert "does not know these words of user-data: runcmd" in done.stderr
    (shown,) = lab.deployment.documents("provider", "show", "this-host")
    assert not shown.get("provider", shown).get("suspect_count", 0)
    assert lab.left() == []


def test_a_machine_that_goes_off_while_its_guest_is_awaited_is_not_waited_for(lab: Lab, tmp_path: Path) -> None:
    """Its guest is busy with a script of the user's when somebody destroys the domain: the run says so, and undoes."""
    run, user_data = "provision:default:gone", tmp_path / "user-data"
    user_data.write_text("#!/bin/sh\nsleep 3600\n")
    size = ("--vcpu", "1", "--memory", "512", "--disk", "2", "--user-data", str(user_data), "--mulligans", "0")
    watcher = lab.deployment.background(*lab.provision("gone", "demo", *size))

    def is_looked_at() -> bool:
        return any(
            "awaits the guest's call home; its power is on" in each.get("message", "") for each in progress(lab, run)
        )

    until(is_looked_at, 180, "a guest that is awaited")
    (domain,) = [each for each in lab.connection.listAllDomains() if lab.is_ours(each)]
    domain.destroy()
    _, err = watcher.communicate(timeout=180)
    assert watcher.returncode == 6, err
    assert "gone was switched on, but this-host says off; its console last said" in err
    assert lab.left() == []


def test_the_readmes_next_steps_work_as_written(lab: Lab) -> None:
    """Each line of that block, in order, on the machine that it describes."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    block = readme.split("## Next steps", 1)[1].split("```console\n", 1)[1].split("```", 1)[0]
    lines = [shlex.split(line) for line in block.splitlines()]
    assert len(lines) > 5
    expected = {"explain": 5}
    for program, *words in lines:
        assert program == "mulligan"
        if words != ["down"]:
            done = lab.deployment.run(*words, seconds=300)
            assert done.returncode == expected.get(words[1] if len(words) > 1 else "", 0), f"{words}: {done.stderr}"
    assert lab.left() == []


def test_a_full_debian_is_set_up_by_cloud_init(lab: Lab, tmp_path: Path) -> None:
    """Hostname, user and key are cloud-init's work, its own user data too; then it is released without a trace."""
    lab.deployment.mulligan("image", "build", "debian-12", seconds=600)
    user_data = tmp_path / "user-data"
    secret = f"canary-{uuid.uuid4().hex}"
    user_data.write_text(
        "#cloud-config\nusers:\n  - default\n  - name: carol\n    sudo: ALL=(ALL) NOPASSWD:ALL\n"
        f"    ssh_authorized_keys: ['{Path(f'{lab.key}.pub').read_text().strip()}']\n"
        f"write_files:\n  - path: /etc/motd\n    content: {secret}\n"
    )
    size = ("--vcpu", "2", "--memory", "1024", "--disk", "4", "--user-data", str(user_data))
    told = lab.deployment.documents(
        *lab.provision("full", "debian-12", *size, "--deadline", "verify=1500s"), seconds=1700
    )
    machine = told[-1]["machine"]
    address = machine["addresses"][0]
    assert machine["evidence"][-1]["level"] == "VERIFY_LEVEL_SERVICE"
    assert lab.ssh(machine["login"], address, "hostname").strip() == "full"
    assert lab.ssh("carol", address, "sudo", "cat", "/etc/motd").strip() == secret
    assert "12" in lab.ssh(machine["login"], address, "cat", "/etc/debian_version")
    assert secret not in lab.deployment.mulligan("run", "show", "provision:default:full", "--output", "json")
    kept = [p for p in lab.deployment.state_dir.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]
    assert kept == []
    lab.deployment.mulligan("machine", "release", "full", seconds=180)
    assert lab.left() == []
