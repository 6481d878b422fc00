"""Real virtual machines for the corpus: made, released and cancelled through the installed commands."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.e2e.deployment import Deployment
from tests.e2e.lab import running_lab
from tests.services.stack import until

SIZE = ("--vcpu", "1", "--memory", "512", "--disk", "2")


def exported_on_libvirt() -> Generator[tuple[str, bytes], None, None]:
    """(name, capsule) of each."""
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder)) as lab:
        lab.deployment.mulligan(*lab.provision("web", "demo", *SIZE), seconds=300)
        yield "libvirt-ready", export(lab.deployment, "provision:default:web")
        lab.deployment.mulligan("machine", "release", "web", seconds=180)
        yield "libvirt-released", export(lab.deployment, "release:default:web")
        watcher = lab.deployment.background(*lab.provision("gone", "demo", *SIZE))
        until(lambda: any(lab.is_ours(domain) for domain in lab.connection.listAllDomains()), 120, "a domain")
        lab.deployment.run("run", "cancel", "provision:default:gone")
        watcher.communicate(timeout=180)
        yield "libvirt-cancelled", export(lab.deployment, "provision:default:gone")


def export(deployment: Deployment, workflow_id: str) -> bytes:
    """The run's capsule, as the command writes it."""
    file = deployment.state_dir.parent / f"{workflow_id.replace(':', '-')}.capsule"
    deployment.mulligan("run", "export", workflow_id, "--file", str(file))
    return file.read_bytes()
