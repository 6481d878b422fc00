"""Building an image on this host and describing it, with a live progress bar; registering it is the caller's."""

from __future__ import annotations

import shlex
from pathlib import Path
from urllib.parse import unquote

from mulligan.activities.images.build import BuiltImage, build_debian, build_demo
from mulligan.activities.values import Firmware
from mulligan.api.cli.building import reporting
from mulligan.api.config import Settings
from mulligan.v1 import images_pb2, machine_pb2

RECIPES = {"demo": build_demo, "debian-12": build_debian}
"""What can be built, and what builds it."""

DIGEST_CHARACTERS = 12


def build_image(recipe: str, name: str, settings: Settings) -> images_pb2.Image:
    """Build the recipe into the image directory and return what to register under the name.

    The file's name carries its digest, so that building again never changes the bytes of an image that is registered.
    Raises what the builder raises; nothing half made is left.
    """
    settings.image_dir.mkdir(parents=True, exist_ok=True)
    fresh = settings.image_dir / f".{name}.building.qcow2"
    try:
        with reporting(f"building {recipe}") as report:
            built = RECIPES[recipe](fresh, workdir=settings.cache_dir / "build", progress=report)
        final = settings.image_dir / f"{name}-{built.sha256[:DIGEST_CHARACTERS]}.qcow2"
        built.path.replace(final)
    finally:
        fresh.unlink(missing_ok=True)
    return _described(name, final, built)


def register_command(image: images_pb2.Image) -> str:
    """The command that registers an image that was built before."""
    words = ["mulligan", "image", "add", image.name, unquote(image.source.removeprefix("file://"))]
    words += ["--login", image.login] if image.login else []
    for each in image.firmware:
        words += ["--firmware", "uefi" if each == machine_pb2.FIRMWARE_UEFI else "bios"]
    return shlex.join(words)


def _described(name: str, path: Path, built: BuiltImage) -> images_pb2.Image:
    firmware = {Firmware.BIOS: machine_pb2.FIRMWARE_BIOS, Firmware.UEFI: machine_pb2.FIRMWARE_UEFI}
    return images_pb2.Image(
        name=name,
        source=path.resolve().as_uri(),
        digest=f"sha256:{built.sha256}",
        format=images_pb2.ImageFormat.Value(f"IMAGE_FORMAT_{built.format.value.upper()}"),
        compression=images_pb2.COMPRESSION_NONE,
        architecture=built.arch,
        firmware=[firmware[each] for each in built.firmware],
        size_bytes=path.stat().st_size,
        virtual_size_bytes=built.virtual_size_bytes,
        login=built.login,
    )
