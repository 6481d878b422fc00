"""How many files and sockets a process may have open at once."""

from __future__ import annotations

import resource

MOST = 65_536
"""More than a worker can use. Programs that it starts have the same limit, and some close every number up to it."""


def raise_descriptors() -> None:
    """Let this process open as many as the system allows it.

    A partition worker starts with 1024 by habit, for images, job files, BMCs, hypervisors and every guest that speaks
    to its boot server. What is allowed is what a service's `LimitNOFILE`, or `ulimit -Hn`, says.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
