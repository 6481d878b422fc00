"""Processes of this host, by their ids."""

from __future__ import annotations

import os


def alive(pid: int) -> bool:
    """Whether there is such a process, also another user's. One that has ended and was not waited for yet counts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
