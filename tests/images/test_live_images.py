"""Live images in the store: what cannot be booted is refused before anything is asked of a server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mulligan.activities.drivers.base import Deadline
from mulligan.activities.errors import ImageRejected
from mulligan.activities.images.bootable import boot_entries, firmware_of_iso
from mulligan.activities.images.describe import describe_file, describe_initrd
from mulligan.activities.images.store import ImageStore
from mulligan.activities.values import Compression, Firmware, Image, ImageFormat
from tests.images.conftest import Seen
from tests.images.live_parts import BOTH, INITRD, LOADER, a_kernel, an_iso, digest_of, live_iso, live_kernel

NO_RECORD = an_iso(())
LONG = 200 * 2048


async def obtained(store: ImageStore, image: Image, seen: Seen, deadline: Deadline) -> bytes:
    """The bytes that are kept of it."""
    return (await store.ensure(image, seen, deadline)).path.read_bytes()


async def test_an_iso_is_kept_as_it_is(store: ImageStore, roots: Path, seen: Seen, deadline: Deadline) -> None:
    """Every byte, under its digest; known again without another look."""
    image = live_iso(roots)
    assert digest_of(await obtained(store, image, seen, deadline)) == image.digest
    (roots / Path(image.source).name).unlink()
    base = await store.ensure(image, seen, deadline)
    assert (base.format, base.path.suffix) == (ImageFormat.ISO, ".iso")


@pytest.mark.parametrize("firmware", [(Firmware.BIOS,), (Firmware.UEFI,), BOTH], ids=["bios", "uefi", "both"])
def test_what_boots_a_medium_is_read_from_its_boot_record(tmp_path: Path, firmware: tuple[Firmware, ...]) -> None:
    """And where the loaders lie that it names."""
    path = tmp_path / "cd.iso"
    path.write_bytes(an_iso(firmware))
    assert firmware_of_iso(path) == set(firmware)
    for entry in boot_entries(path):
        assert path.read_bytes()[entry.offset :].startswith(LOADER)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (NO_RECORD, "it has no boot record"),
        (an_iso(content=bytes(LONG))[: -LONG // 2], "it was cut off"),
        (an_iso()[: 20 * 2048 + 100], "cut off"),
        (an_iso()[: 16 * 2048], "is no ISO 9660 image"),
        (b"no medium at all" * 4096, "is no ISO 9660 image"),
        (an_iso().replace(b"\x55\xaa", b"\x55\xab"), "its boot catalog is damaged"),
        (b"", "is no ISO 9660 image"),
    ],
    ids=["no-boot-record", "cut", "cut-early", "cut-before", "anything", "damaged-catalog", "empty"],
)
async def test_what_is_no_bootable_medium_is_refused(
    store: ImageStore,
    roots: Path,
    seen: Seen,
    deadline: Deadline,
    left: Callable[[], list[str]],
    content: bytes,
    why: str,
) -> None:
    """It is said why, and nothing of it is kept."""
    with pytest.raises(ImageRejected, match=why):
        await store.ensure(live_iso(roots, content), seen, deadline)
    assert left() == []


@pytest.mark.parametrize("form", [ImageFormat.ISO, ImageFormat.KERNEL])
async def test_an_image_that_cannot_boot_as_declared_is_refused(
    store: ImageStore, roots: Path, seen: Seen, deadline: Deadline, form: ImageFormat
) -> None:
    """A server with UEFI would wait at its menu for ever."""
    if form is ImageFormat.ISO:
        image = live_iso(roots, an_iso((Firmware.BIOS,)))
    else:
        image = live_kernel(roots, a_kernel(uefi=False))
    with pytest.raises(ImageRejected, match="nothing that uefi could start; it boots with bios: register it so"):
        await store.ensure(image, seen, deadline)


async def test_a_kernel_and_its_initrd_are_kept(store: ImageStore, roots: Path, seen: Seen, deadline: Deadline) -> None:
    """Each under its own digest."""
    image = live_kernel(roots)
    assert image.initrd is not None
    assert await obtained(store, image, seen, deadline) == a_kernel()
    assert await obtained(store, image.initrd, seen, deadline) == INITRD


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        (a_kernel()[:6000], "it was cut off"),
        (b"\x7fELF" + bytes(8000), "is no Linux kernel"),
        (b"MZ", "is no Linux kernel"),
    ],
    ids=["cut", "other", "short"],
)
async def test_what_is_no_kernel_is_refused(
    store: ImageStore, roots: Path, seen: Seen, deadline: Deadline, kernel: bytes, why: str
) -> None:
    """It is said why."""
    with pytest.raises(ImageRejected, match=why):
        await store.ensure(live_kernel(roots, kernel), seen, deadline)


@pytest.mark.parametrize(
    ("initrd", "said", "why"),
    [
        (INITRD, {"initrd_digest": "sha256:" + "0" * 64}, "are not those of the image"),
        (INITRD[:100], {"initrd_digest": digest_of(INITRD)}, "are not those of the image"),
        (b"not an initrd", {}, "neither a cpio archive nor compressed"),
    ],
    ids=["another-digest", "cut", "something-else"],
)
async def test_an_initrd_is_checked_like_the_image(
    store: ImageStore, roots: Path, seen: Seen, deadline: Deadline, left: Callable[[], list[str]], initrd: bytes,
    said: dict[str, str], why: str,
) -> None:  # fmt: skip
    """Against its own digest, and for what it is."""
    image = live_kernel(roots, initrd=initrd, **said).initrd
    assert image is not None
    with pytest.raises(ImageRejected, match=why):
        await store.ensure(image, seen, deadline)
    assert left() == []


async def test_all_of_a_kernel_goes_with_it(
    store: ImageStore, roots: Path, seen: Seen, deadline: Deadline, left: Callable[[], list[str]]
) -> None:
    """Media that were made around it too."""
    base = await store.ensure(live_kernel(roots), seen, deadline)
    base.path.with_suffix(".medium-0123.iso").write_bytes(b"a medium")
    assert await store.remove(base.digest)
    assert left() == []


def test_a_local_file_says_what_it_is(tmp_path: Path) -> None:
    """So that nobody need type it."""
    path = tmp_path / "file"
    path.write_bytes(an_iso((Firmware.UEFI,)))
    found = describe_file(path)
    assert (found.format, found.firmware, found.compression) == (ImageFormat.ISO, (Firmware.UEFI,), Compression.NONE)
    path.write_bytes(a_kernel())
    found = describe_file(path)
    assert (found.format, found.firmware, found.digest) == (ImageFormat.KERNEL, BOTH, digest_of(a_kernel()))
    path.write_bytes(INITRD)
    assert describe_initrd(path) == digest_of(INITRD)


def test_a_medium_without_a_boot_record_is_not_registered(tmp_path: Path) -> None:
    """It is said at once, to who registers it."""
    path = tmp_path / "cd.iso"
    path.write_bytes(NO_RECORD)
    with pytest.raises(ImageRejected, match="no boot record"):
        describe_file(path)
