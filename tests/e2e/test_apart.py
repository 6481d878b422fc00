"""The roles run apart, as in production: PostgreSQL, and a partition whose worker is a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from mulligan.activities.inventory import Inventory
from tests.e2e.deployment import Deployment
from tests.services.postgres import running_postgres
from tests.services.stack import MULLIGAN, until
from tests.services.temporal import free_port

pytestmark = pytest.mark.timeout(300)


class OnPostgres(Deployment):
    """An embedded stack whose database is elsewhere."""

    database = ""

    @property
    def environment(self) -> Mapping[str, str]:
        """With the database's URL."""
        return {**super().environment, "MULLIGAN_DATABASE": self.database}


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnPostgres]:
    """The stack on PostgreSQL, with a second partition."""
    directory = tmp_path_factory.mktemp("apart")
    with running_postgres(directory) as url, OnPostgres(directory) as running:
        running.database = url
        running.up()
        running.add_simulated_image()
        running.mulligan("partition", "add", "site-b")
        yield running


def test_a_partition_without_a_worker_says_so_and_with_one_makes_machines(deployment: OnPostgres) -> None:
    """The provider is looked at, and its machine made, by the partition's own worker."""
    add = ("provider", "add", "b-1", "simulated://apart/b-1?speed=0", "--partition", "site-b")
    refused = deployment.run(*add)
    assert refused.returncode != 0
    assert "mulligan worker --partition site-b" in refused.stderr
    environment = {**deployment.environment, "MULLIGAN_BOOT_LISTEN": f"127.0.0.1:{free_port()}"}
    log = (deployment.state_dir / "site-b.log").open("wb")
    worker = subprocess.Popen([*MULLIGAN, "worker", "--partition", "site-b"], env=environment, stdout=log, stderr=log)
    try:
        until(lambda: deployment.run(*add).returncode == 0, 60, "a registered provider")
        size = ("--vcpu", "1", "--memory", "512", "--disk", "2", "--ssh-key", "none")
        told = deployment.documents(
            "machine", "provision", "b", "--image", "sim", "--partition", "site-b", "--verify", "guest", *size
        )
        assert told[-1]["machine"]["provider"] == "b-1"
        deployment.mulligan("machine", "release", "b")
    finally:
        os.kill(worker.pid, signal.SIGTERM)
        worker.wait(60)
    assert worker.returncode == 0


def test_everything_is_kept_in_postgresql(deployment: OnPostgres) -> None:
    """Nothing of the inventory is in the state directory."""
    assert not list(deployment.state_dir.glob("mulligan.sqlite*"))
    inventory = Inventory.open(deployment.database)
    assert [provider.name for provider in inventory.providers("site-b")] == ["b-1"]
    assert inventory.run("provision:default:b").outcome == "ready"
    assert not inventory.audit()
    inventory.close()
