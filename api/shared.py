"""What many watchers of a run are told is built once, however many they are."""

from __future__ import annotations

from collections import OrderedDict

from mulligan.api.convert_runs import Update, update_message
from mulligan.v1 import provisioning_pb2 as pb

KEPT = 1024


class SharedMessages:
    """The messages of the newest updates. Watchers of one run are given the same objects, so that is what is shared."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._messages: OrderedDict[int, tuple[Update, pb.WatchRunResponse]] = OrderedDict()
        """By the update's identity; the update is kept too, so that no other can have the same."""

    def message(self, update: Update, run_id: str, workflow_id: str = "") -> pb.WatchRunResponse:
        """The message of this update of that run; not to be changed."""
        found = self._messages.get(id(update))
        if found is not None:
            return found[1]
        message = pb.WatchRunResponse(update=update_message(update, run_id, workflow_id))
        self._messages[id(update)] = (update, message)
        if len(self._messages) > self._kept:
            self._messages.popitem(last=False)
        return message
