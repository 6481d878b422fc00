"""`mulligan image`: register and build what machines run."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import grpc

from mulligan.api.cli.actor import ACTOR, REASON, this_actor
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import of_rpc, status_of, tell_next, usage
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.output import as_dict, details, listing, print_json, value_of, word, words
from mulligan.api.cli.settings import load_settings
from mulligan.api.cli.suspect import suspicion
from mulligan.api.cli.text import size
from mulligan.v1 import images_pb2, machine_pb2

HEAD = ("name", "format", "disk", "firmware", "login", "digest", "source")
RECIPE_NAMES = ("demo", "debian-12")
REMOTE = ("http://", "https://", "simulated:")
DESCRIBED = ("digest", "format", "compression", "size_bytes", "virtual_size_bytes")
"""What a local file says of itself."""
REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION)
"""Answers after which no image refers to what was copied for it."""


@click.group()
def image() -> None:
    """Register and build what machines run."""


@image.command()
@click.argument("name")
@click.argument("source", metavar="URL|FILE")
@click.option("--digest", metavar="sha256:HEX", help="Of the bytes behind the source. Must be given for a URL.")
@click.option("--format", "form", type=click.Choice(words(images_pb2.ImageFormat)), help="Must be given for a URL.")
@click.option("--compression", type=click.Choice(words(images_pb2.Compression)), help="Default: none.")
@click.option("--architecture", metavar="ARCH", help="Default: x86_64.")
@click.option(
    "--firmware",
    type=click.Choice(words(machine_pb2.Firmware)),
    multiple=True,
    help="That can boot it. Repeatable. Default: both.",
)
@click.option("--login", metavar="USER", help="The user that its cloud-init gives SSH keys to.")
@click.option("--initrd", metavar="URL|FILE", help="That a kernel is booted with.")
@click.option("--initrd-digest", metavar="sha256:HEX", help="Of the initrd. Must be given for a URL.")
@click.option("--kernel-arguments", metavar="TEXT", help="Of every machine that a kernel boots.")
@api_command
def add(
    session: Session,
    *,
    name: str,
    source: str,
    digest: str | None,
    form: str | None,
    compression: str | None,
    architecture: str | None,
    firmware: tuple[str, ...],
    login: str | None,
    initrd: str | None,
    initrd_digest: str | None,
    kernel_arguments: str | None,
) -> None:
    """Register an image. A local file is read for digest, format and sizes; a URL only when a machine needs it.

    An ISO, or a kernel with its initrd, is a live image: it is booted as it is, and no disk is touched.
    """
    new = images_pb2.Image(
        name=name,
        source=source,
        digest=digest or "",
        format=value_of(images_pb2.ImageFormat, form or "unspecified"),
        compression=value_of(images_pb2.Compression, compression or "unspecified"),
        architecture=architecture or "",
        firmware=[value_of(machine_pb2.Firmware, each) for each in firmware],
        login=login or "",
        initrd_source=initrd or "",
        initrd_digest=initrd_digest or "",
        kernel_arguments=kernel_arguments or "",
    )
    files = _describe_initrd(new) if initrd else []
    if not source.startswith(REMOTE):
        files.append(_describe(new, source.removeprefix("file://")))
    elif not (digest and form):
        missing = " and ".join(option for option, given in (("--digest", digest), ("--format", form)) if not given)
        raise usage(f"an image behind a URL needs {missing}: nobody may change it unseen", _sum_of(source))
    if files:
        _check(new)
    copies: list[Path] = []
    try:
        for file in files:
            _place(new, file, copies)
        response = session.images.AddImage(images_pb2.AddImageRequest(image=new), timeout=session.deadline())
    except (grpc.RpcError, OSError) as error:
        if isinstance(error, OSError) or status_of(error) in REFUSED:
            for copy in copies:
                copy.unlink(missing_ok=True)
        raise
    details(session, response.image, _facts)


@image.command("list")
@api_command
def list_images(session: Session) -> None:
    """List images."""
    stream = session.images.ListImages(images_pb2.ListImagesRequest(), timeout=session.deadline())
    listing(session, (response.image for response in stream), HEAD, _row)


@image.command()
@click.argument("name")
@api_command
def show(session: Session, name: str) -> None:
    """Show one image, and what failed with it."""
    found = session.images.GetImage(images_pb2.GetImageRequest(name=name), timeout=session.deadline())
    if session.as_json:
        print_json(found.image, suspect=as_dict(found.suspect) if found.HasField("suspect") else None)
        return
    details(session, found.image, lambda image: (*_facts(image), *suspicion(found.suspect)))


@image.command()
@click.argument("name")
@REASON
@ACTOR
@api_command
def remove(session: Session, name: str, reason: str, actor: str) -> None:
    """Forget an image. Its bytes stay at their source; refused while a live machine runs it."""
    request = images_pb2.RemoveImageRequest(name=name, reason=reason, actor=actor)
    response = session.images.RemoveImage(request, timeout=session.deadline())
    if session.as_json:
        print_json(response)
    else:
        click.echo(f"image {name} is forgotten; its bytes stay at their source, and leave the providers")


@image.command()
@click.argument("recipe", type=click.Choice(RECIPE_NAMES))
@click.option("--name", help="What to register it as. Default: the recipe's name.")
@click.option("--rebuild", is_flag=True, help="Build again, and replace the image that is registered.")
@api_command
def build(session: Session, recipe: str, name: str | None, rebuild: bool) -> ExitCode:
    """Build an image on this host and register it. When it is registered already, that is all that there is to do."""
    from mulligan.api.cli import image_build  # noqa: PLC0415 - building brings much that nothing else needs

    called = name or recipe
    before = _registered(session, called)
    if before is not None and not rebuild:
        click.echo(f"image {called} is registered already; --rebuild builds it again", err=True)
        details(session, before, _facts)
        return ExitCode.OK
    built = image_build.build_image(recipe, called, load_settings())
    try:
        if before is not None and before.digest != built.digest:
            removal = images_pb2.RemoveImageRequest(name=called, actor=this_actor(), reason="it was built again")
            session.images.RemoveImage(removal, timeout=session.deadline())
        response = session.images.AddImage(images_pb2.AddImageRequest(image=built), timeout=session.deadline())
    except grpc.RpcError as error:
        return _not_registered(session, built, error, image_build.register_command(built))
    details(session, response.image, _facts)
    return ExitCode.OK


class _File(NamedTuple):
    """A local file of the image: the field that says where it is, and how a copy of it is named."""

    path: Path
    field: str
    digest: str
    form: str


def _sum_of(url: str) -> str:
    return f"curl -L {shlex.quote(url)} | sha256sum"


def _check(new: images_pb2.Image) -> None:
    """Refuse what the API would refuse, before anything is copied; what is below which directory is not known yet."""
    from mulligan.api.validate import Faults  # noqa: PLC0415 - only where a file is read
    from mulligan.api.validate_spec import check_image  # noqa: PLC0415

    faults = Faults(new)
    check_image(faults, new, (Path("/"),))
    faults.refuse()


def _describe(new: images_pb2.Image, path: str) -> _File:
    """Fill in what the file says of itself; what was given otherwise must agree with it."""
    from mulligan.activities.images.describe import describe_file  # noqa: PLC0415 - only where a file is read

    absolute = Path(path).expanduser().absolute()
    facts = describe_file(absolute)
    found = images_pb2.Image(
        digest=facts.digest,
        size_bytes=facts.size_bytes,
        virtual_size_bytes=facts.virtual_size_bytes,
        format=value_of(images_pb2.ImageFormat, facts.format.value),
        compression=value_of(images_pb2.Compression, facts.compression.value),
    )
    for field in DESCRIBED:
        given, seen = getattr(new, field), getattr(found, field)
        if given and given != seen and not (field == "digest" and str(given).startswith("sha512:")):
            raise usage(f"the {field} of {absolute} is {_shown(field, seen)}, not {_shown(field, given)} as was given")
        if not given:
            setattr(new, field, seen)
    if facts.firmware and not new.firmware:
        new.firmware.extend(value_of(machine_pb2.Firmware, each.value) for each in facts.firmware)
    new.source = absolute.resolve().as_uri()
    return _File(absolute, "source", new.digest, word(images_pb2.ImageFormat, new.format))


def _describe_initrd(new: images_pb2.Image) -> list[_File]:
    """Fill in the digest of a kernel's initrd, when it is a local file; gives that file."""
    from mulligan.activities.images.describe import describe_initrd  # noqa: PLC0415 - only where a file is read

    source, given = new.initrd_source, new.initrd_digest
    if source.startswith(REMOTE):
        if not given:
            raise usage("an initrd behind a URL needs --initrd-digest", _sum_of(source))
        return []
    absolute = Path(source.removeprefix("file://")).expanduser().absolute()
    seen = describe_initrd(absolute)
    if given and given != seen and not given.startswith("sha512:"):
        raise usage(f"the digest of {absolute} is {seen}, not {given} as was given")
    new.initrd_digest = given or seen
    new.initrd_source = absolute.resolve().as_uri()
    return [_File(absolute, "initrd_source", new.initrd_digest, "initrd")]


def _place(new: images_pb2.Image, file: _File, copies: list[Path]) -> None:
    """Say where the deployment may read the file: where it is, or in the state directory, as a copy that is named
    after its digest, and is noted among the copies if it was made now."""
    settings, real = load_settings(), file.path.resolve()
    if any(real.is_relative_to(root.resolve()) for root in (settings.image_dir, *settings.image_roots)):
        return
    copy = settings.image_dir / f"{new.name}-{file.digest.partition(':')[2][:16]}.{file.form}"
    if not copy.exists():
        click.echo(f"copying {file.path} to {copy}, where machines' images may come from", err=True)
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = copy.with_suffix(".partial")
        try:
            shutil.copyfile(real, partial)
            partial.replace(copy)
            copies.append(copy)
        finally:
            partial.unlink(missing_ok=True)
    setattr(new, file.field, copy.as_uri())


def _shown(field: str, value: object) -> str:
    enums = {"format": images_pb2.ImageFormat, "compression": images_pb2.Compression}
    return word(enums[field], int(str(value))) if field in enums else str(value)


def _registered(session: Session, name: str) -> images_pb2.Image | None:
    """The image of that name; None where there is none, or where the API is away (building does not need it)."""
    try:
        return session.images.GetImage(images_pb2.GetImageRequest(name=name), timeout=session.deadline()).image
    except grpc.RpcError as error:
        if status_of(error) in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
            return None
        raise


def _not_registered(session: Session, built: images_pb2.Image, error: grpc.RpcError, command: str) -> ExitCode:
    known = of_rpc(error, noun="image", api=session.api)
    if session.as_json:
        print_json(built)
    click.echo(f"the image is built ({built.source}), but not registered: {known.message}", err=True)
    tell_next(("mulligan up", command) if known.code is ExitCode.UNAVAILABLE else (command,))
    return known.code


def _row(found: images_pb2.Image) -> tuple[str, ...]:
    disk = size(found.virtual_size_bytes) if found.virtual_size_bytes else "-"
    firmware = ", ".join(word(machine_pb2.Firmware, each) for each in found.firmware)
    form = word(images_pb2.ImageFormat, found.format)
    return found.name, form, disk, firmware, found.login, found.digest[:19], found.source


def _facts(found: images_pb2.Image) -> Iterator[tuple[str, str]]:
    yield "name", found.name
    yield "source", found.source
    yield "digest", found.digest
    yield "format", word(images_pb2.ImageFormat, found.format)
    yield "compression", word(images_pb2.Compression, found.compression)
    yield "architecture", found.architecture
    yield "firmware", ", ".join(word(machine_pb2.Firmware, each) for each in found.firmware)
    yield "size", size(found.size_bytes) if found.size_bytes else ""
    yield "disk", size(found.virtual_size_bytes) if found.virtual_size_bytes else ""
    yield "login", found.login
    yield "initrd", f"{found.initrd_source} {found.initrd_digest}".strip()
    yield "kernel arguments", found.kernel_arguments
