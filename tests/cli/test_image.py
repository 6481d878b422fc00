"""Images are registered with what their file says, and built images are registered or kept."""

from __future__ import annotations

import gzip
import hashlib
import json
import shlex
from pathlib import Path

import pytest

from mulligan.activities.images.build import BuiltImage
from mulligan.activities.values import Firmware, ImageFormat
from mulligan.api.cli import image as image_commands
from mulligan.api.cli import image_build
from mulligan.api.cli.building import Report
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.main import run
from mulligan.v1 import images_pb2, machine_pb2
from tests.cli.conftest import Mulligan
from tests.cli.scripted import ScriptedApi, refusal
from tests.images.live_parts import INITRD

DISK = b"\x00" * 510 + b"\x55\xaa" + b"\x00" * (1 << 20)


@pytest.fixture
def registry(api: ScriptedApi) -> ScriptedApi:
    """An API that registers any image, and has none."""
    api.handlers["AddImage"] = lambda request, context: images_pb2.AddImageResponse(image=request.image)
    api.handlers["GetImage"] = refusal("NOT_FOUND", "no such image", "NOT_FOUND")
    return api


@pytest.fixture
def at_home(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the environment of the user, too."""
    for key in ("MULLIGAN_API", "MULLIGAN_STATE_DIR", "HOME"):
        monkeypatch.setenv(key, environment[key])


def test_a_file_says_what_it_is(registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path) -> None:
    """Digest, format, compression and sizes are read; the file is copied to where images may come from."""
    packed = gzip.compress(DISK)
    digest = hashlib.sha256(packed).hexdigest()
    copy = tmp_path / "state" / "images" / f"mine-{digest[:16]}.raw"
    (tmp_path / "disk.raw.gz").write_bytes(packed)
    done = mulligan("image", "add", "mine", "disk.raw.gz", "--login", "admin", "--firmware", "bios")
    assert done.returncode == ExitCode.OK, done.stderr
    assert registry.last("AddImage").image == images_pb2.Image(
        name="mine",
        source=copy.as_uri(),
        digest=f"sha256:{digest}",
        format=images_pb2.IMAGE_FORMAT_RAW,
        compression=images_pb2.COMPRESSION_GZIP,
        firmware=[machine_pb2.FIRMWARE_BIOS],
        size_bytes=len(packed),
        virtual_size_bytes=len(DISK),
        login="admin",
    )
    assert copy.read_bytes() == packed


def test_a_file_where_images_may_come_from_stays_there(
    registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path
) -> None:
    """However it is named on the command line."""
    disk = tmp_path / "state" / "images" / "disk.raw"
    disk.parent.mkdir(parents=True, exist_ok=True)
    disk.write_bytes(DISK)
    done = mulligan("image", "add", "mine", "state/../state/images/disk.raw")
    assert done.returncode == ExitCode.OK, done.stderr
    assert registry.last("AddImage").image.source == disk.as_uri()
    assert [path.name for path in disk.parent.iterdir()] == ["disk.raw"]


@pytest.mark.parametrize(("code", "kept"), [("ALREADY_EXISTS", False), ("INVALID_ARGUMENT", False), ("INTERNAL", True)])
def test_what_was_copied_for_an_image_that_is_refused_is_removed(
    registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path, code: str, kept: bool
) -> None:
    """Not where it is not known whether it was registered; and never what was there before."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    copies = tmp_path / "state" / "images"
    registry.handlers["AddImage"] = refusal(code, "no", "REFUSED")
    assert mulligan("image", "add", "mine", "disk.raw").returncode != ExitCode.OK
    assert any(copies.iterdir()) is kept
    registry.handlers["AddImage"] = lambda request, context: images_pb2.AddImageResponse(image=request.image)
    assert mulligan("image", "add", "mine", "disk.raw").returncode == ExitCode.OK
    registry.handlers["AddImage"] = refusal(code, "no", "REFUSED")
    assert mulligan("image", "add", "mine", "disk.raw").returncode != ExitCode.OK
    assert any(copies.iterdir())


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("../mine", (), "NAME: must be 1 to 63 of a-z 0-9 . -"),
        ("mine", ("--kernel-arguments", "quiet"), "--kernel-arguments: is only for an image of format kernel"),
        ("mine", ("--initrd", "initrd.img"), "--initrd: is only for an image of format kernel"),
        ("mine", ("--login", "Not A Name"), "--login: must be a user name"),
    ],
    ids=["name", "arguments", "initrd", "login"],
)
def test_what_cannot_be_registered_is_not_copied(
    registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path, name: str, words: tuple[str, ...], said: str
) -> None:
    """It is refused before, in the words of the command line."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    (tmp_path / "initrd.img").write_bytes(INITRD)
    done = mulligan("image", "add", name, "disk.raw", *words)
    assert (done.returncode, said in done.stderr) == (ExitCode.USAGE, True), done.stderr
    assert "IMAGE_FORMAT" not in done.stderr
    assert registry.asked == []
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["disk.raw", "initrd.img"]


def test_what_to_type_after_a_url_or_a_build_can_be_pasted() -> None:
    """Whatever a shell would read into it."""
    url = "https://example.org/d?a=1&b=$HOME"
    assert shlex.split(image_commands._sum_of(url))[:3] == ["curl", "-L", url]
    built = images_pb2.Image(name="demo", source=Path("/my state/demo.qcow2").as_uri(), login="demo")
    command = shlex.split(image_build.register_command(built))
    assert command == ["mulligan", "image", "add", "demo", "/my state/demo.qcow2", "--login", "demo"]


def test_a_file_that_is_not_what_was_said_is_refused(registry: ScriptedApi, mulligan: Mulligan, tmp_path: Path) -> None:
    """A digest that is given must be the file's."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    done = mulligan("image", "add", "mine", "disk.raw", "--digest", f"sha256:{'0' * 64}")
    assert done.returncode == ExitCode.USAGE
    assert f"sha256:{'0' * 64}" in done.stderr
    assert hashlib.sha256(DISK).hexdigest() in done.stderr
    assert registry.asked == []


def test_a_file_that_is_not_there_is_not_found(mulligan: Mulligan) -> None:
    """The error is the domain's own, to programs too."""
    done = mulligan("image", "add", "mine", "nowhere.raw", "--output", "json")
    assert done.returncode == ExitCode.NOT_FOUND
    assert "nowhere.raw" in json.loads(done.stderr)["error"]["message"]


def test_a_url_is_registered_as_it_is_given(registry: ScriptedApi, mulligan: Mulligan) -> None:
    """Nothing is fetched before a machine needs it."""
    digest = f"sha512:{'a' * 128}"
    url = "https://example.org/debian.qcow2"
    assert mulligan("image", "add", "d", url, "--digest", digest, "--format", "qcow2").returncode == ExitCode.OK
    qcow2 = images_pb2.IMAGE_FORMAT_QCOW2
    assert registry.last("AddImage").image == images_pb2.Image(name="d", source=url, digest=digest, format=qcow2)


def test_an_image_is_listed_shown_and_forgotten(api: ScriptedApi, mulligan: Mulligan) -> None:
    """The registry's answers are shown."""
    found = images_pb2.Image(name="demo", source="file:///x", digest=f"sha256:{'b' * 64}", virtual_size_bytes=1 << 28)
    api.handlers["ListImages"] = lambda request, context: iter([images_pb2.ListImagesResponse(image=found)])
    api.handlers["GetImage"] = lambda request, context: images_pb2.GetImageResponse(image=found)
    api.handlers["RemoveImage"] = lambda request, context: images_pb2.RemoveImageResponse()
    assert "256.0 MiB" in mulligan("image", "list").stdout
    assert found.digest in mulligan("image", "show", "demo").stdout
    by = ("--reason", "too old", "--actor", "alice")
    assert "demo is forgotten" in mulligan("image", "remove", "demo", *by).stdout
    assert api.last("RemoveImage") == images_pb2.RemoveImageRequest(name="demo", reason="too old", actor="alice")


def test_an_image_that_is_registered_is_not_built_again(api: ScriptedApi, mulligan: Mulligan) -> None:
    """Building takes minutes; whoever means it says --rebuild."""
    found = images_pb2.Image(name="demo", digest=f"sha256:{'b' * 64}")
    api.handlers["GetImage"] = lambda request, context: images_pb2.GetImageResponse(image=found)
    done = mulligan("image", "build", "demo")
    assert done.returncode == ExitCode.OK
    assert "--rebuild" in done.stderr
    assert [name for name, _ in api.asked] == ["GetImage"]


def recipe(output: Path, *, workdir: Path, progress: Report) -> BuiltImage:
    """A recipe that takes no time: a small raw disk."""
    progress("writing the disk", 0.5)
    output.write_bytes(DISK)
    sha256 = hashlib.sha256(DISK).hexdigest()
    return BuiltImage(output, ImageFormat.RAW, len(DISK), "x86_64", (Firmware.BIOS,), sha256, "demo")


@pytest.mark.usefixtures("at_home")
def test_a_built_image_is_registered(
    registry: ScriptedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It lies in the image directory under a name that has its digest, and nothing else does."""
    monkeypatch.setitem(image_build.RECIPES, "demo", recipe)  # type: ignore[arg-type]
    assert run(["image", "build", "demo", "--name", "mine"]) == ExitCode.OK
    new = registry.last("AddImage").image
    lying = list((tmp_path / "state" / "images").iterdir())
    assert [path.as_uri() for path in lying] == [new.source]
    assert new.digest.removeprefix("sha256:")[:12] in lying[0].name
    assert (new.name, new.login, new.size_bytes) == ("mine", "demo", len(DISK))
    assert "writing the disk" in capfd.readouterr().err


@pytest.mark.usefixtures("at_home")
def test_a_built_image_is_kept_when_the_api_is_away(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was built stays, and the command that registers it is named."""
    monkeypatch.setitem(image_build.RECIPES, "demo", recipe)  # type: ignore[arg-type]
    api.stop()
    assert run(["image", "build", "demo"]) == ExitCode.UNAVAILABLE
    [path] = (tmp_path / "state" / "images").iterdir()
    assert f"mulligan image add demo {path} --login demo --firmware bios" in capfd.readouterr().err


@pytest.mark.usefixtures("at_home")
def test_a_build_that_fails_leaves_nothing(
    registry: ScriptedApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Interrupted in the middle, there is no image and no registration."""

    def interrupted(output: Path, *, workdir: Path, progress: Report) -> BuiltImage:
        output.write_bytes(DISK[:100])
        raise KeyboardInterrupt

    monkeypatch.setitem(image_build.RECIPES, "demo", interrupted)  # type: ignore[arg-type]
    assert run(["image", "build", "demo"]) == ExitCode.DETACHED
    assert list((tmp_path / "state" / "images").iterdir()) == []
    assert [name for name, _ in registry.asked] == ["GetImage"]
