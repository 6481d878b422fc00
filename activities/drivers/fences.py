"""The newest claim that acted on each system, so that an older one cannot: a BMC has no place to keep a mark. And which
systems were seen to have virtual drives: a BMC that restarts tells of those last.

Kept in the drivers' directory, which all workers of a partition share, and read and written in the BMC's lane.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mulligan.activities.drivers.whole import read_whole, write_whole
from mulligan.activities.errors import StaleFence
from mulligan.activities.values import Mark


@dataclass(frozen=True, slots=True)
class Holder:
    """Who acted last."""

    fence: int
    machine_id: str
    run_id: str


class Fences:
    """Small files for each system. Blocks; used in the BMC's lane only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def holder(self, system: str) -> Holder | None:
        """Who acted last on the system."""
        try:
            return Holder(**json.loads(read_whole(self._path(system))))
        except (ValueError, TypeError):  # a file that is empty, or was cut off, says nothing
            return None

    def take(self, system: str, mark: Mark) -> None:
        """Note that the mark's claim acts now. Raises `StaleFence` when a newer one did."""
        mine, holder = Holder(mark.fence, mark.machine_id, mark.run_id), self.holder(system)
        if holder is not None and holder.fence > mark.fence:
            raise StaleFence(
                f"claim {mark.fence} of machine {mark.machine} must not act on {system}: claim {holder.fence} holds it",
                fence=mark.fence,
                newer=holder.fence,
            )
        if mine != holder:
            write_whole(self._path(system), json.dumps(asdict(mine)).encode())

    def saw_drives(self, system: str) -> None:
        """Note that the system has virtual drives."""
        if not self.had_drives(system):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._drives(system).touch(0o600)

    def had_drives(self, system: str) -> bool:
        """Whether it was seen to have some since it was registered."""
        return self._drives(system).exists()

    def forget(self, system: str) -> None:
        """Begin anew: the provider is registered (again), and its claims may be counted from the start."""
        self._path(system).unlink(missing_ok=True)
        self._drives(system).unlink(missing_ok=True)

    def _drives(self, system: str) -> Path:
        return self._path(system).with_suffix(".drives")

    def _path(self, system: str) -> Path:
        return self._directory / f"{hashlib.sha256(system.encode()).hexdigest()[:32]}.json"
