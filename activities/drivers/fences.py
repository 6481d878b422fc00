"""The newest claim that acted on each system, so that an older one cannot: a BMC has no place to keep a mark.

Kept on this host's disk, for all its workers that share the drivers' directory, and read and written in the BMC's
lane: a worker on another host that has not acted yet does not know it.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from mulligan.activities.errors import StaleFence
from mulligan.activities.values import Mark


@dataclass(frozen=True, slots=True)
class Holder:
    """Who acted last."""

    fence: int
    machine_id: str
    run_id: str


class Fences:
    """One small file per system. Blocks; used in the BMC's lane only."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def holder(self, system: str) -> Holder | None:
        """Who acted last on the system, as far as this host knows."""
        try:
            return Holder(**json.loads(self._path(system).read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # a file that was cut off says nothing
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
            self._directory.mkdir(parents=True, exist_ok=True)
            path = self._path(system)
            new = path.with_suffix(".new")
            with new.open("w") as file:
                json.dump(asdict(mine), file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)

    def forget(self, system: str) -> None:
        """Begin anew: the provider is registered (again), and its claims may be counted from the start."""
        self._path(system).unlink(missing_ok=True)

    def _path(self, system: str) -> Path:
        return self._directory / f"{hashlib.sha256(system.encode()).hexdigest()[:32]}.json"
