"""Images for machines that really boot: built once by `mulligan image build`, and kept for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tests.e2e.deployment import Deployment

_BUILD_SECONDS = 1800.0
_RECIPES = Path(__file__).parents[2] / "activities" / "images" / "build"


def kept() -> Path:
    """Where they are kept: a directory named by what builds them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    recipes = sorted(file for file in _RECIPES.iterdir() if file.is_file())
    state = hashlib.sha256(b"".join(file.read_bytes() for file in recipes)).hexdigest()[:16]
    return cache / "mulligan-bench" / state


def add_image(deployment: Deployment, name: str) -> None:
    """Register the image `demo` or `debian-12`, built now if it is not there."""
    folder = deployment.state_dir / "images"
    there = kept() / f"{name}.qcow2"
    if there.exists():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(there, folder / there.name)
        deployment.mulligan("image", "add", name, str(folder / there.name))
        return
    deployment.mulligan("image", "build", name, seconds=_BUILD_SECONDS)
    (built,) = folder.glob(f"{name}-*.qcow2")
    kept().mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, there.with_suffix(".new"))
    there.with_suffix(".new").rename(there)
