"""Images that lie or would harm the host, made by real tools, and how they are expanded and refused."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mulligan.activities.errors import ImageRejected, NotFound
from mulligan.activities.images.describe import describe_file
from mulligan.activities.images.expand import zstd
from mulligan.activities.images.store import ImageStore
from mulligan.activities.values import Compression, Image, ImageFormat

MIB = 1024**2

COMPRESS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.GZIP: gzip.compress,
    Compression.XZ: lzma.compress,
    Compression.ZSTD: lambda content: zstd.compress(content, options={zstd.CompressionParameter.checksum_flag: 1}),
}


def qemu_img(*arguments: object) -> None:
    """Run qemu-img to make something."""
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def declared(path: Path, kind: ImageFormat, compression: Compression = Compression.NONE) -> Image:
    """The image as somebody would register it."""
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return Image("made", f"file://{path}", digest, kind, compression)


@pytest.fixture
def qcow2(roots: Path, disk: bytes) -> Path:
    """A good qcow2 image with a disk of 3 MiB in it."""
    (roots / "source.raw").write_bytes(disk)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", roots / "source.raw", roots / "good.qcow2")
    return roots / "good.qcow2"


async def test_a_good_qcow2_is_accepted(store, qcow2, seen, deadline, disk):
    """Its virtual size is read from the header."""
    base = await store.ensure(declared(qcow2, ImageFormat.QCOW2), seen, deadline)
    assert base.virtual_size_bytes == len(disk)
    assert base.path.read_bytes() == qcow2.read_bytes()
    assert base.format is ImageFormat.QCOW2


@pytest.mark.parametrize("compression", list(COMPRESS))
async def test_a_compressed_image_is_expanded(store, roots, disk, seen, deadline, left, compression):
    """All three kinds, with progress; the digest is of the compressed bytes."""
    path = roots / "disk"
    path.write_bytes(COMPRESS[compression](disk))
    base = await store.ensure(declared(path, ImageFormat.RAW, compression), seen, deadline)
    assert base.path.read_bytes() == disk
    assert seen.words == ["download", "verify", "expand", "inspect"]
    assert left() == ["json", "raw"]


@pytest.mark.parametrize("compression", list(COMPRESS))
async def test_a_file_of_several_compressed_streams_is_one_image(store, roots, disk, seen, deadline, compression):
    """As parallel compressors write them."""
    path = roots / "disk"
    path.write_bytes(COMPRESS[compression](disk[:MIB]) + COMPRESS[compression](disk[MIB:]))
    base = await store.ensure(declared(path, ImageFormat.RAW, compression), seen, deadline)
    assert base.path.read_bytes() == disk


async def test_zeros_take_no_room(store, roots, disk, seen, deadline):
    """Blocks of zeros become holes."""
    content = disk + bytes(48 * MIB) + disk
    path = roots / "disk.gz"
    path.write_bytes(gzip.compress(content))
    base = await store.ensure(declared(path, ImageFormat.RAW, Compression.GZIP), seen, deadline)
    assert base.path.read_bytes() == content
    assert base.path.stat().st_blocks * 512 < 16 * MIB


@pytest.mark.parametrize("compression", list(COMPRESS))
@pytest.mark.parametrize("damage", ["cut", "tail", "middle", "other"])
async def test_a_damaged_stream_is_refused(store, roots, disk, seen, deadline, left, compression, damage):
    """Cut off, followed by rubbish, changed inside, or not compressed at all."""
    good = COMPRESS[compression](disk)
    bad = {
        "cut": good[:-9],
        "tail": good + b"rubbish",
        "middle": good[:MIB] + bytes(64) + good[MIB + 64 :],
        "other": disk,
    }[damage]
    path = roots / "disk"
    path.write_bytes(bad)
    with pytest.raises(ImageRejected):
        await store.ensure(declared(path, ImageFormat.RAW, compression), seen, deadline)
    assert left() == []


@pytest.mark.parametrize("compression", list(COMPRESS))
async def test_a_bomb_is_refused_by_its_ratio(tmp_path, roots, seen, deadline, left, compression, bomb):
    """A gibibyte of zeros in a few kilobytes is stopped early, whatever the limit on sizes."""
    path = roots / "bomb"
    path.write_bytes(bomb(compression))
    store = ImageStore(tmp_path / "store", file_roots=[roots], max_ratio=100)
    with pytest.raises(ImageRejected, match="bomb"):
        await store.ensure(declared(path, ImageFormat.RAW, compression), seen, deadline)
    assert left() == []


@pytest.mark.parametrize("compression", list(COMPRESS))
async def test_a_bomb_is_refused_by_its_size(tmp_path, roots, seen, deadline, left, compression, bomb):
    """Below the size at which ratios are looked at, the limit on virtual sizes counts."""
    path = roots / "bomb"
    path.write_bytes(bomb(compression))
    store = ImageStore(tmp_path / "store", file_roots=[roots], max_virtual_bytes=100 * MIB)
    with pytest.raises(ImageRejected, match="expands to more than"):
        await store.ensure(declared(path, ImageFormat.RAW, compression), seen, deadline)
    assert left() == []


@pytest.fixture(scope="session")
def bomb() -> Callable[[Compression], bytes]:
    """Many small streams of zeros, which is also quick to make."""
    made = {kind: compress(bytes(32 * MIB)) * 32 for kind, compress in COMPRESS.items()}
    return made.__getitem__


def backed(roots: Path) -> Path:
    """A qcow2 image that reads another file of the host."""
    qemu_img("create", "-f", "raw", roots / "base.raw", "1M")
    qemu_img("create", "-f", "qcow2", "-b", roots / "base.raw", "-F", "raw", roots / "bad")
    return roots / "bad"


def outside(roots: Path) -> Path:
    """A qcow2 image that keeps its data in another file of the host."""
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={roots}/data.raw,data_file_raw=on", roots / "bad", "1M")
    return roots / "bad"


def unknown(roots: Path) -> Path:
    """A qcow2 image with a feature from the future."""
    qemu_img("create", "-f", "qcow2", roots / "bad", "1M")
    with (roots / "bad").open("r+b") as file:
        file.seek(0x48)
        file.write(b"\x01")
    return roots / "bad"


@pytest.mark.parametrize(
    ("make", "why"), [(backed, "backing file"), (outside, "data_file"), (unknown, "Unknown QCOW2 features")]
)
async def test_a_qcow2_that_reaches_out_is_refused(store, roots, seen, deadline, left, make, why):
    """Backing files, data files and unknown features, as made by qemu-img."""
    with pytest.raises(ImageRejected, match=why):
        await store.ensure(declared(make(roots), ImageFormat.QCOW2), seen, deadline)
    assert left() == []


async def test_a_qcow2_larger_than_allowed_is_refused(store, roots, seen, deadline, left):
    """A file of kilobytes may describe a disk of terabytes."""
    qemu_img("create", "-f", "qcow2", roots / "huge", "4T")
    with pytest.raises(ImageRejected, match="disk of 4398046511104 bytes"):
        await store.ensure(declared(roots / "huge", ImageFormat.QCOW2), seen, deadline)
    assert left() == []


async def test_a_qcow2_with_damaged_tables_is_refused(store, qcow2, seen, deadline, left):
    """The digest is right, the header is right, and qemu-img finds what is wrong."""
    with qcow2.open("r+b") as file:
        file.seek(0x28)
        table = int.from_bytes(file.read(8))
        file.seek(table)
        file.write(b"\x80" + b"\0" * 5 + b"\x01\x00")
    with pytest.raises(ImageRejected, match="damaged"):
        await store.ensure(declared(qcow2, ImageFormat.QCOW2), seen, deadline)
    assert left() == []


@pytest.mark.parametrize("kind", ["vmdk", "vdi", "vhdx", "qed"])
async def test_other_formats_are_refused_as_raw(store, roots, seen, deadline, left, kind):
    """Raw means raw: whoever declares another format as raw wants it to be probed later."""
    qemu_img("create", "-f", kind, roots / "bad", "8M")
    with pytest.raises(ImageRejected):
        await store.ensure(declared(roots / "bad", ImageFormat.RAW), seen, deadline)
    assert left() == []


async def test_formats_are_not_taken_for_each_other(store, qcow2, roots, disk, seen, deadline, left):
    """qcow2 as raw, raw as qcow2, and compressed as not compressed."""
    (roots / "disk.gz").write_bytes(gzip.compress(disk))
    for path, kind, found in (
        (qcow2, ImageFormat.RAW, "its content is qcow2"),
        (roots / "source.raw", ImageFormat.QCOW2, "its content is raw"),
        (roots / "disk.gz", ImageFormat.RAW, "its content is gzip"),
    ):
        with pytest.raises(ImageRejected, match=found):
            await store.ensure(declared(path, kind), seen, deadline)
    assert left() == []


async def test_a_partitioned_disk_is_raw(store, roots, disk, seen, deadline):
    """A boot sector or a partition table is what raw disks have."""
    (roots / "disk").write_bytes(disk[:510] + b"\x55\xaa" + disk[512:])
    assert (await store.ensure(declared(roots / "disk", ImageFormat.RAW), seen, deadline)).format is ImageFormat.RAW


async def test_an_empty_file_is_no_disk(store, roots, seen, deadline, left):
    """Nothing would boot from it."""
    (roots / "empty").write_bytes(b"")
    with pytest.raises(ImageRejected, match="no size"):
        await store.ensure(declared(roots / "empty", ImageFormat.RAW), seen, deadline)
    assert left() == []


@pytest.mark.parametrize("compression", list(COMPRESS))
def test_describing_a_compressed_qcow2(qcow2, roots, disk, compression):
    """Format and disk size are found inside, and nothing is written."""
    path = roots / "described"
    path.write_bytes(COMPRESS[compression](qcow2.read_bytes()))
    facts = describe_file(path)
    assert (facts.format, facts.compression) == (ImageFormat.QCOW2, compression)
    assert facts.virtual_size_bytes == len(disk)
    assert facts.size_bytes == path.stat().st_size
    assert facts.digest == declared(path, ImageFormat.QCOW2).digest


def test_describing_plain_files(qcow2, roots, disk):
    """As they are, without expansion."""
    assert describe_file(qcow2).format is ImageFormat.QCOW2
    assert describe_file(qcow2).virtual_size_bytes == len(disk)
    raw = describe_file(roots / "source.raw")
    assert (raw.format, raw.compression, raw.virtual_size_bytes) == (ImageFormat.RAW, Compression.NONE, len(disk))


def test_describing_what_is_no_image(roots, bomb):
    """Missing, another format, unsafe, or a bomb."""
    with pytest.raises(NotFound):
        describe_file(roots / "none")
    qemu_img("create", "-f", "vdi", roots / "disk.vdi", "8M")
    with pytest.raises(ImageRejected, match="vdi"):
        describe_file(roots / "disk.vdi")
    with pytest.raises(ImageRejected, match="backing file"):
        describe_file(backed(roots))
    (roots / "bomb").write_bytes(bomb(Compression.ZSTD))
    with pytest.raises(ImageRejected, match="more than"):
        describe_file(roots / "bomb", max_virtual_bytes=64 * MIB)
