"""Whether the workers that serve servers share what keeps them apart at a BMC: their drivers' directory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mulligan.activities.calls import partition_queue
from mulligan.activities.drivers.directory import locks_are_local, neighbour_of
from mulligan.api.config import Settings
from mulligan.api.processes.findings import Finding, fine, note, wrong
from mulligan.api.processes.health import pollers

ONE = "one state directory for all of them (MULLIGAN_STATE_DIR), or one worker"


def lane_findings(settings: Settings, partitions: Iterable[str]) -> Iterator[Finding]:
    """One for each partition that has servers behind BMCs, and one for the directory's locks."""
    for partition in sorted(partitions):
        yield shared(settings, partition)
    if settings.drivers_dir.is_dir():
        yield locked(settings)


def shared(settings: Settings, partition: str) -> Finding:
    """All workers of the partition that polled of late have one drivers' directory."""
    asked = f"do all workers of partition {partition}, which has servers, share one drivers' directory?"
    there = {neighbour_of(each) for each in pollers(settings, partition_queue(partition))}
    said = ", ".join(sorted(map(str, there)))
    if not there:
        return note("lanes", asked, "no worker polls there", f"mulligan worker --partition {partition}")
    if len({each.directory for each in there}) > 1:
        return wrong("lanes", asked, f"they do not, and speak to no BMC therefore: {said}; let there be {ONE}")
    return fine("lanes", asked, f"they do: {said}")


def locked(settings: Settings) -> Finding:
    """Other hosts see the locks that are taken here."""
    asked = f"are locks in {settings.drivers_dir} seen by all hosts that share it?"
    if locks_are_local(settings.drivers_dir):
        remedy = f"findmnt -T {settings.drivers_dir}"
        return wrong("locks", asked, "no: its mount keeps them on this host (nolock or local_lock)", remedy)
    return fine("locks", asked, "its mount does not keep them on this host")
