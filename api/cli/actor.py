"""Who uses the command line, for a run's history."""

from __future__ import annotations

import getpass
import os
import socket

from mulligan.api.cli.text import clean

MOST = 100
"""Characters that the API takes."""


def this_actor() -> str:
    """The user and the host, as `user@host`; a user without a name by number."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return clean(f"{user}@{socket.gethostname()}")[:MOST]
