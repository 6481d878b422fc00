"""What drives call the medium that they were given: BMCs spell its URL in their own way, or keep the end of it."""

from __future__ import annotations

import re
from urllib.parse import unquote

_PORT = re.compile(r":\d+$")


def is_url(said: object, url: str) -> bool:
    """Whether it is the URL, but for scheme, port, percent-encoding and the case of the host."""
    return _plain(str(said or "")) == _plain(url)


def is_end(said: object, url: str) -> bool:
    """Whether it is the URL likewise, or the last parts of its path, e.g. the file alone.

    Each boot of a run has a medium of the same file name, so this tells only of a drive that was empty before.
    """
    end = _plain(str(said or "")).lstrip("/")
    return bool(end) and f"/{_plain(url)}".endswith(f"/{end}")


def _plain(said: str) -> str:
    host, slash, path = unquote(said).rpartition("://")[2].partition("/")
    return f"{_PORT.sub('', host).lower()}/{path}" if slash else host
