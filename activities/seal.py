"""The deployment's secret key, and what is done with it: sealing, keyed digests, and keys for other purposes.

Sealed text may be stored and sent anywhere; it opens only where the key is. Every use has a key of its own, derived
from the one in the key file (HKDF-SHA256, RFC 5869), so that no use can be played against another.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
import secrets
import shlex
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mulligan.activities.errors import AccessDenied, HostNotReady

KEY_BYTES = 32
NONCE_BYTES = 12
PREFIX = "sealed:v1"
SETTING = "MULLIGAN_STATE_DIR"
"""The setting that decides which key file is used, for messages."""
KEY_FILE = f"secret.key in {SETTING}"


class Keyring:
    """The key that all processes of one deployment share. Never printed."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise HostNotReady(f"the deployment's key must be {KEY_BYTES} bytes long, and is {len(key)}")
        self._key = key
        self._box = AESGCM(self.subkey("seal v1"))
        self._digest_key = self.subkey("digest v1")
        self.key_id = self.subkey("key id v1")[:6].hex()
        """Tells keys apart, and says nothing of the key."""

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """Read the key file; make it (mode 0600, whole or not at all) when there is none.

        Raises `HostNotReady` when others could read it, or when it holds no key. Blocks.
        """
        if not path.exists():
            _create(path)
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                text = file.read(1024)
        except OSError as error:
            raise HostNotReady(
                f"the key file {path} cannot be read: {error.strerror}; make it readable for this process",
                remedy=f"ls -l {shlex.quote(str(path))}",
            ) from error
        if mode & 0o077:
            raise HostNotReady(
                f"the key file {path} has mode {mode:04o}, so others than its owner may read it; take that away",
                remedy=f"chmod 0600 {shlex.quote(str(path))}",
            )
        try:
            return cls(base64.urlsafe_b64decode(text.strip()))
        except (binascii.Error, HostNotReady) as error:
            raise HostNotReady(
                f"the key file {path} does not hold a key ({KEY_BYTES} bytes in base64); restore it from the backup: "
                "without it, what was sealed cannot be opened",
                remedy=f"ls -l {shlex.quote(str(path))}",
            ) from error

    def subkey(self, purpose: str) -> bytes:
        """A key of 32 bytes that is good for this purpose only."""
        info = f"mulligan {purpose}".encode()
        return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._key)

    def seal(self, text: str) -> str:
        """Encrypt and authenticate (AES-256-GCM). The same text seals differently each time."""
        head = f"{PREFIX}:{self.key_id}"
        nonce = secrets.token_bytes(NONCE_BYTES)
        body = self._box.encrypt(nonce, text.encode(), head.encode())
        return f"{head}:{base64.urlsafe_b64encode(nonce + body).decode()}"

    def open(self, sealed: str) -> str:
        """The text that was sealed. Raises `AccessDenied` for another key's seal, or one that was changed."""
        head, _, body = sealed.rpartition(":")
        if not head.startswith(f"{PREFIX}:"):
            raise AccessDenied(f"this is not something that Mulligan sealed (it does not start with {PREFIX})")
        if head != f"{PREFIX}:{self.key_id}":
            raise AccessDenied(
                f"this was sealed with another key than this process has ({KEY_FILE}); give every process of the "
                "deployment the same key file",
                setting=SETTING,
                key_id=self.key_id,
            )
        try:
            raw = base64.urlsafe_b64decode(body)
            if base64.urlsafe_b64encode(raw).decode() != body:  # base64 has several spellings of the same bytes
                raise ValueError("not spelled as it was sealed")
            return self._box.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], head.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise AccessDenied(
                f"this was sealed with our key ({KEY_FILE}) and changed since, or cut off; seal it again",
                setting=SETTING,
            ) from error

    def digest(self, text: str) -> str:
        """`hmac-sha256:<hex>`: equal for equal texts, and of no use for guessing them without the key."""
        return "hmac-sha256:" + hmac.new(self._digest_key, text.encode(), hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return f"Keyring({self.key_id})"


def _create(path: Path) -> None:
    """Make the key file; when somebody else makes it at the same moment, theirs stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
