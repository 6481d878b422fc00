"""The newest claim that acted on each system, so that an older one cannot: a BMC has no place to keep a mark. And which
systems were seen to have virtual drives: a BMC that restarts tells of those last.

Kept in the drivers' directory, which all workers of a partition share, and read and written in the BMC's lane. Nothing
is forgotten when a provider is looked at: the server may be held, also under another name. A new provider's claims are
counted on from the newest that is known here.
"""

from __future__ import annotations

import hashlib
import json
import time
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

    def newest(self, system: str) -> int:
        """The number of the newest claim that acted on the system; 0 where none did."""
        holder = self.holder(system)
        return holder.fence if holder is not None else 0

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
        """Note that the system has virtual drives that take URLs."""
        if self._without_since(system) != 0.0:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._note_drives(system, "")

    def saw_none(self, system: str) -> None:
        """Note that it was looked at anew, and tells of none."""
        if self._without_since(system) == 0.0:
            self._note_drives(system, str(time.time()))

    def had_drives(self, system: str, believed_seconds: float) -> bool:
        """Whether it has some, as far as is known. That it has none any more is believed so many seconds after it was
        looked at anew, if nobody saw any since."""
        since = self._without_since(system)
        return since is not None and (not since or time.time() - since < believed_seconds)

    def _without_since(self, system: str) -> float | None:
        """When it was found to have no drives any more; 0 where it has some, and None where it never had."""
        try:
            return float(self._drives(system).read_text() or 0)
        except FileNotFoundError:
            return None

    def _note_drives(self, system: str, text: str) -> None:
        path = self._drives(system)
        new = path.with_suffix(".takers-new")
        new.touch(0o600)
        new.write_text(text)
        new.replace(path)

    def _drives(self, system: str) -> Path:
        """What older versions noted as `.drives` were drives that may take no URL."""
        return self._path(system).with_suffix(".takers")

    def _path(self, system: str) -> Path:
        return self._directory / f"{hashlib.sha256(system.encode()).hexdigest()[:32]}.json"
