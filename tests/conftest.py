"""What all suites share: how they are dealt to lanes, and what must be set before anything else is imported."""

from __future__ import annotations

import os

import pytest

# Set before anything imports gRPC. Some suites serve and call gRPC in this process, and libvirt forks in it to start an
# SSH client: gRPC's fork handlers then disturb the child before it becomes that client.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# Suites that boot machines on this host's one libvirt. They look at all its domains, and their processor time is the
# host's: one after another.
_ON_THE_HYPERVISOR = (
    "drivers/on_libvirt/",
    "drivers/test_ipmi.py",
    "e2e/test_libvirt.py",
    "e2e/test_demo.py",
    "test_bench.py::test_a_benchmark_finds_nothing_wrong[vm]",
    "test_bench.py::test_a_benchmark_finds_nothing_wrong[image]",
)
_LONG = ("hypervisor", "test_bench.py", "images/test_build.py", "e2e/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests to the lanes of `make test`: the hypervisor's to one, and each other file whole, so that it starts
    what it shares once. The longest come first, so that no lane ends long after the others."""
    lanes = {item: lane(item.nodeid.removeprefix("tests/")) for item in items}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(lanes[item]))
    items.sort(key=lambda item: not lanes[item].startswith(_LONG))


def lane(test: str) -> str:
    """The group of a test, named from `tests/` on, whose tests run in one process in their order."""
    return "hypervisor" if test.startswith(_ON_THE_HYPERVISOR) else test.partition("::")[0]
