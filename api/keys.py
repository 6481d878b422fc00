"""The syntax of OpenSSH public keys: a type, its base64, and a comment; and the type again inside (RFC 4253, 6.6)."""

from __future__ import annotations

import base64
import binascii

KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
MOST_CHARACTERS = 4096


def fault_of(key: str) -> str:  # noqa: PLR0911 - one fault each
    """What is wrong with this public key; empty when nothing is. Never repeats the key."""
    if "PRIVATE KEY" in key:
        return "is a private key; send the public one, from the file that ends with .pub"
    if not key.strip() or len(key) > MOST_CHARACTERS or not key.strip().isprintable():
        return f"must be one line of 1 to {MOST_CHARACTERS} printable characters: a type, base64 and a comment"
    kind, _, rest = key.strip().partition(" ")
    if kind not in KEY_TYPES:
        return f"must begin with one of {', '.join(KEY_TYPES)}"
    words = rest.split()
    try:
        blob = base64.b64decode(words[0] if words else "", validate=True)
    except (binascii.Error, ValueError):
        return f"what follows {kind} is not base64; was the key cut off?"
    strings = _strings(blob)
    if strings is None or len(strings) < 2:
        return "is cut off: what is inside does not have the length that it says"
    if strings[0] != kind.encode():
        return f"says {kind} but holds another type of key"
    if kind == "ssh-ed25519" and len(strings[1]) != 32:
        return "an ssh-ed25519 key holds 32 bytes"
    return ""


def _strings(blob: bytes) -> list[bytes] | None:
    found = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length:
            return None
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return found
