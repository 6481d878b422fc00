"""What BMCs say of the media that they were given, as people may see it: the URL of a medium holds what opens it."""

from __future__ import annotations

import re

_IN_PATH = re.compile(r"(/v1/(?:agent|boot|media|seed)/)[^/?\s\"']+", re.IGNORECASE)
"""Where the boot server's URLs have the token, whole or cut."""
_TOKEN = re.compile(r"[\w-]+\.[0-9]{1,10}\.[0-9]{10}\.[\w-]{16,}")
"""A token by its own form (`bootserver/tokens.py`), for BMCs that spell a URL in their own way. The moment in it
tells it from the identifier of a message, e.g. `Base.1.8.ResourceInStandby`."""


def shown(said: object) -> str:
    """The text without the tokens in it."""
    return _TOKEN.sub("***", _IN_PATH.sub(r"\1***", str(said)))
