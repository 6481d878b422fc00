"""Builders of bootable disk images from Debian's own packages: a demo that boots in seconds, and a full Debian.

Both make a GPT disk that boots by BIOS and by UEFI (Secure Boot included), grows to the disk that it is put on, reads a
cloud-init NoCloud seed and speaks on the first serial port. They block; run them in a thread from asynchronous code.
"""

from mulligan.activities.images.build.debian import build_debian
from mulligan.activities.images.build.demo import build_demo
from mulligan.activities.images.build.output import BuiltImage, Progress

__all__ = ["BuiltImage", "Progress", "build_debian", "build_demo"]
