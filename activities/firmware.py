"""Which firmware boots a machine, and what a provider must be able to do for an image."""

from __future__ import annotations

from mulligan.activities.values import Firmware, Image, ImageFormat


def needed_by(image: Image, asked: Firmware) -> set[str]:
    """The capabilities without which the image cannot boot: a provider that lacks one is not a candidate.

    An image boots from a disk that it was put on; a live one is itself what is booted.
    """
    chosen = firmware_for(image, asked)
    wanted = {f"arch.{image.architecture}", *_boots(image)}
    return wanted if chosen is Firmware.ANY else {*wanted, f"firmware.{chosen}"}


def firmware_for(image: Image, asked: Firmware) -> Firmware:
    """The firmware asked for, or the only one that the image boots with, or ANY."""
    if asked is Firmware.ANY and len(image.firmware) == 1:
        return image.firmware[0]
    return asked


def _boots(image: Image) -> tuple[str, ...]:
    if image.format is ImageFormat.ISO:
        return "boot.live", "boot.live-iso"
    return ("boot.live",) if image.live else ("boot.disk",)
