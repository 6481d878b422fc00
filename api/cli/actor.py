"""Who uses the command line, and why: for a run's history, and for what is changed by hand."""

from __future__ import annotations

import getpass
import os
import socket

import click

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


REASON = click.option("--reason", default="", help="Why, for the history.")
ACTOR = click.option("--actor", default=this_actor, help="Who asks, for the history. Default: user@host.")
