"""What all suites share: how they are dealt to lanes, and what must be set before anything else is imported."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Set before anything imports gRPC. Some suites serve and call gRPC in this process, and libvirt forks in it to start an
# SSH client: gRPC's fork handlers then disturb the child before it becomes that client.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# No test is timed, neither is an example of a property: the lanes share two cores.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

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
_LONG = ("hypervisor", "test_bench.py", "images/test_build.py", "agent/test_agent_image.py", "e2e/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest come first, so that no lane ends long after the others."""
    items.sort(key=lambda item: not group(item.nodeid).startswith(_LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Deal the tests to the lanes of `make test`, group by group."""
    return Lanes(config, log)


class Lanes(LoadScopeScheduling):
    """Whatever `--dist` says, a group stays in one lane, and its tests in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(test: str) -> str:
    """What runs in one process: the hypervisor's tests, and of the others each file, so that it starts what it shares
    once."""
    test = test.removeprefix("tests/")
    return "hypervisor" if test.startswith(_ON_THE_HYPERVISOR) else test.partition("::")[0]
