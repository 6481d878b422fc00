"""Live images are registered by the command line with what their files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from mulligan.api.cli.exit_codes import ExitCode
from mulligan.v1 import images_pb2, machine_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ScriptedApi
from tests.images.live_parts import INITRD, a_kernel, an_iso, digest_of

KERNEL_URL, INITRD_URL = "https://images.example.org/vmlinuz", "https://images.example.org/initrd.img"


@pytest.fixture
def registry(api: ScriptedApi) -> ScriptedApi:
    """An API that registers any image."""
    api.handlers["AddImage"] = lambda request, context: images_pb2.AddImageResponse(image=request.image)
    return api


def test_an_iso_says_what_it_is(registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path) -> None:
    """And which firmware boots it; it is copied to where images may come from."""
    (tmp_path / "rescue.iso").write_bytes(an_iso())
    done = mulligan("image", "add", "rescue", "rescue.iso")
    assert done.returncode == ExitCode.OK, done.stderr
    sent = registry.last("AddImage").image
    assert (sent.format, sent.digest) == (images_pb2.IMAGE_FORMAT_ISO, digest_of(an_iso()))
    assert set(sent.firmware) == {machine_pb2.FIRMWARE_BIOS, machine_pb2.FIRMWARE_UEFI}
    assert sent.source.endswith(".iso") and sent.virtual_size_bytes == 0
    assert Path(sent.source.removeprefix("file://")).read_bytes() == an_iso()


def test_a_kernel_and_its_initrd_say_what_they_are(registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path) -> None:
    """Both are copied, and shown with the arguments."""
    (tmp_path / "vmlinuz").write_bytes(a_kernel(uefi=False))
    (tmp_path / "initrd.img").write_bytes(INITRD)
    words = ("--initrd", "initrd.img", "--kernel-arguments", "console=ttyS0 quiet")
    done = mulligan("image", "add", "node", "vmlinuz", *words)
    assert done.returncode == ExitCode.OK, done.stderr
    sent = registry.last("AddImage").image
    assert (sent.format, list(sent.firmware)) == (images_pb2.IMAGE_FORMAT_KERNEL, [machine_pb2.FIRMWARE_BIOS])
    assert (sent.initrd_digest, sent.kernel_arguments) == (digest_of(INITRD), "console=ttyS0 quiet")
    assert Path(sent.initrd_source.removeprefix("file://")).read_bytes() == INITRD
    assert "console=ttyS0 quiet" in done.stdout and sent.initrd_digest in done.stdout


def test_a_kernel_behind_a_url_is_registered_as_it_is_given(registry: ScriptedApi, mulligan: Mulligan) -> None:
    """Nothing is fetched before a machine needs it."""
    kernel, initrd = digest_of(a_kernel()), digest_of(INITRD)
    words = ("--digest", kernel, "--format", "kernel", "--initrd", INITRD_URL, "--initrd-digest", initrd)
    assert mulligan("image", "add", "node", KERNEL_URL, *words).returncode == ExitCode.OK
    sent = registry.last("AddImage").image
    assert (sent.source, sent.initrd_source, sent.initrd_digest) == (KERNEL_URL, INITRD_URL, initrd)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--initrd", INITRD_URL), ExitCode.USAGE, "--initrd-digest"),
        (("--initrd", "initrd.img", "--initrd-digest", "sha256:" + "0" * 64), ExitCode.USAGE, "as was given"),
        (("--initrd", "nowhere.img"), ExitCode.NOT_FOUND, "no initrd at"),
        (("--format", "iso", "--initrd", "initrd.img"), ExitCode.USAGE, "the format of"),
    ],
    ids=["url-without-digest", "another-digest", "nowhere", "another-format"],
)
def test_what_is_wrong_with_a_live_image_is_said_at_once(
    registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path, words: tuple[str, ...], code: ExitCode, said: str
) -> None:
    """And nothing is registered."""
    (tmp_path / "vmlinuz").write_bytes(a_kernel())
    (tmp_path / "initrd.img").write_bytes(INITRD)
    done = mulligan("image", "add", "node", "vmlinuz", *words)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert registry.asked == []
