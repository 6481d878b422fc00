"""What the demo brings along: a key pair to log in with, and the simulation's image."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mulligan.v1 import images_pb2, machine_pb2

DEMO_IMAGE = "demo"
"""The image's name in both demos, so that what is said of the one holds for the other."""

SIMULATED_FILE = "simulated.raw"
_IMAGE_BYTES = 1 << 20


def key_pair(directory: Path) -> tuple[Path, str]:
    """The demo's private key file and the public key, made on first use: the same request needs the same key.

    The public key lies beside the private one, as `.pub`, so that more machines can be made with it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "demo_key"
    if path.exists():
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    else:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        _write_new(path, private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    line = f"{public.decode()} mulligan-demo"
    beside = public_file(path)
    if not beside.exists() or beside.read_text().strip() != line:
        _write_new(beside, f"{line}\n".encode())
    return path, line


def public_file(key: Path) -> Path:
    """Where the public half of this private key lies."""
    return key.with_name(f"{key.name}.pub")


def simulated_image(directory: Path) -> images_pb2.Image:
    """A file that stands for a disk image: the simulation fetches, checks and places it, and boots nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    content = b"An image for simulated machines; it boots nothing.\n".ljust(_IMAGE_BYTES, b"\0")
    path = directory / SIMULATED_FILE
    if not path.exists():
        _write_new(path, content)
    return images_pb2.Image(
        name=DEMO_IMAGE,
        source=path.resolve().as_uri(),
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        format=images_pb2.IMAGE_FORMAT_RAW,
        compression=images_pb2.COMPRESSION_NONE,
        architecture="x86_64",
        firmware=[machine_pb2.FIRMWARE_BIOS, machine_pb2.FIRMWARE_UEFI],
        size_bytes=_IMAGE_BYTES,
        virtual_size_bytes=_IMAGE_BYTES,
        login="demo",
    )


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
