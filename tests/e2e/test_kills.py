"""`kill -9` of each process while runs are in each of their steps: all of them end ready, and watchers miss nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest

from mulligan.activities.drivers.simulated import journal, snapshot
from tests.e2e.deployment import Deployment, documents
from tests.services.stack import until

FLEET = "kills"
STEPS = {
    "claim": "",
    "image": "hold=place_base:1:15",
    "boot": "hold=define:1:15",
    "verify": "hold=addresses:1:15",
}
"""For each step, what keeps a run in it long enough to be caught there."""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One embedded stack for all kills."""
    with Deployment(tmp_path_factory.mktemp("kills")) as running:
        running.up()
        running.add_simulated_image()
        yield running


def drivers(deployment: Deployment) -> Path:
    """Where the simulated fleet is kept."""
    return deployment.state_dir / "drivers"


def provision(*words: str) -> list[str]:
    """The command that asks for a machine."""
    return ["machine", "provision", *words, "--image", "sim", "--vcpu", "1", "--memory", "512", "--disk", "2",
            "--verify", "guest", "--output", "json"]  # fmt: skip


def in_step(deployment: Deployment, victim: str, step: str) -> bool:
    """Whether the machine for this step is in that step now."""
    host = f"{victim}-{step}"
    if step == "claim":
        return any(p.get("last_failure") for p in progress(deployment, host))
    verb = {"image": "place_base", "boot": "define"}.get(step)
    if verb:
        entries = journal(drivers(deployment), FLEET)
        return any(e.host == host and e.verb == verb and e.outcome == "BEGUN" for e in entries)
    return any(p.get("step") == "verify" for p in progress(deployment, host))


def progress(deployment: Deployment, machine: str) -> list[dict[str, object]]:
    """What the machine's run is doing."""
    shown = deployment.run("run", "show", f"provision:default:{machine}", "--output", "json")
    return [p for d in documents(shown.stdout) for p in d.get("progress", [])]


def ended(watchers: dict[str, Popen[str]]) -> list[str]:
    """What the watchers that have ended already said."""
    return [f"{step}: {w.communicate()}" for step, w in watchers.items() if w.poll() is not None]


@pytest.mark.parametrize("victim", ["server", "worker", "temporal"])
def test_a_kill_in_any_step_ends_ready(deployment: Deployment, victim: str) -> None:
    """One run in each step, one kill, four machines; every watcher saw each event once and in order."""
    for step, hold in STEPS.items():
        host = f"{victim}-{step}"
        query = f"?vcpu=2&memory_mib=1024&disk_gib=8&speed=0&{hold}"
        deployment.mulligan("provider", "add", host, f"simulated://{FLEET}/{host}{query}")
    blocker = ["--provider", f"{victim}-claim", "--memory", "1024"]
    deployment.mulligan(*provision(f"{victim}-blocker"), *blocker)
    watchers = {
        step: deployment.background(
            *provision(f"{victim}-{step}"), "--provider", f"{victim}-{step}", "--memory", "1024", "--wait-for-room"
        )
        for step in STEPS
    }
    until(lambda: all(in_step(deployment, victim, step) for step in STEPS) or ended(watchers), 60, "a run in each step")
    assert not ended(watchers)
    deployment.kill_child(victim)
    deployment.mulligan("machine", "release", f"{victim}-blocker")
    for step, watcher in watchers.items():
        out, err = watcher.communicate(timeout=120)
        assert watcher.returncode == 0, f"{step}: {err}"
        events = [d["event"] for d in documents(out) if "event" in d]
        ids = [int(e["cursor"].rpartition(".")[2]) for e in events]
        assert ids == sorted(set(ids))
        assert events[0]["kind"] == "RUN_EVENT_KIND_RUN_STARTED"
        assert events[-1]["outcome"] == "RUN_OUTCOME_READY"
    for step in STEPS:
        deployment.mulligan("machine", "release", f"{victim}-{step}")
    assert snapshot(drivers(deployment), FLEET).clean
    inventory = deployment.inventory()
    assert not inventory.audit()
    assert not [c for c in inventory.claims() if c.state != "released"]
    inventory.close()
