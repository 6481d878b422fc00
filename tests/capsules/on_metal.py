"""Servers behind BMCs for the corpus: written by the deploy agent, proved, and erased."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

from tests.capsules.on_libvirt import export
from tests.e2e.metal_lab import DISK_GIB, MEMORY_MIB, Lab, Server, running_lab

SECONDS = 1200.0
SIZES = ("--set", "vcpu=2", "--set", f"memory_mib={MEMORY_MIB}", "--set", f"disk_gib={DISK_GIB}")


def exported_on_metal() -> Generator[tuple[str, bytes], None, None]:
    """(name, capsule) of each."""
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder)) as lab:
        lab.deployment.mulligan("agent", "build", seconds=SECONDS)
        lab.deployment.mulligan("image", "build", "demo", seconds=SECONDS)
        with lab.rack.redfish() as server:
            yield from made_and_released(lab, server)
        with lab.rack.ipmi() as server:
            yield from made_and_released(lab, server, *SIZES, "--set", f"macs={server.mac}", "--set", "firmware=bios")


def made_and_released(lab: Lab, server: Server, *settings: str) -> Generator[tuple[str, bytes], None, None]:
    """A server from an empty disk to a machine, and back."""
    name = server.name
    where = ("--credential", "rack", "--set", f"boot_url={lab.rack.boot_url}", *settings)
    lab.deployment.mulligan("provider", "add", name, server.added_by, *where, seconds=SECONDS)
    asked = ("--image", "demo", "--provider", name, "--disk", str(DISK_GIB), "--verify", "guest", "--ssh-key", "none")
    lab.deployment.mulligan("machine", "provision", f"on-{name}", *asked, seconds=SECONDS)
    yield f"{name}-ready", export(lab.deployment, f"provision:default:on-{name}")
    lab.deployment.mulligan("machine", "release", f"on-{name}", seconds=SECONDS)
    yield f"{name}-released", export(lab.deployment, f"release:default:on-{name}")
