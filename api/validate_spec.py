"""What may be asked for: the rules of machine.proto and images.proto, field by field."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

from mulligan.activities.errors import InvalidRequest
from mulligan.activities.images.seed import check_network_config, check_user_data
from mulligan.api import keys
from mulligan.api.fairness import HIGHEST, LOWEST
from mulligan.api.validate import Faults, split_url
from mulligan.v1 import images_pb2, machine_pb2

_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-fA-F]{64}|sha512:[0-9a-fA-F]{128}")
_ARCHITECTURE = re.compile(r"[a-z0-9_]{1,32}")
_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_LEAST = {"vcpu": 1, "memory_mib": 64, "disk_gib": 0}
"""No disk is asked of a live image; for what image one is, is looked at where the image is known."""

_MOST = 2**31 - 1
_WEEK = 604_800
_HINT = 128
MOST_ARGUMENTS = 1024
"""Characters: Linux takes 2047, and the address of the seed comes besides."""
_IPXE_WORDS = frozenset({";", "&&", "||"})
SOURCE_SCHEMES = ("http", "https", "file", "simulated")


def check_spec(faults: Faults, spec: machine_pb2.MachineSpec, *, named: bool = True) -> None:
    """Check a machine as asked for; without `named`, name and image may be absent."""
    faults.name("spec.project", spec.project, required=False)
    faults.name("spec.name", spec.name, required=named)
    faults.image_name("spec.image", spec.image, required=named)
    faults.name("spec.partition", spec.partition, required=False)
    faults.name("spec.provider", spec.provider, required=False)
    for resource, least in _LEAST.items():
        faults.between(f"spec.resources.{resource}", getattr(spec.resources, resource), least, _MOST)
    _check_capabilities(faults, spec)
    _check_hostname(faults, spec)
    faults.most("spec.ssh_keys", spec.ssh_keys, 64)
    for index, key in enumerate(spec.ssh_keys):
        if fault := keys.fault_of(key):
            faults.add(f"spec.ssh_keys[{index}]", fault)
    _check_by(faults, check_user_data, spec.user_data)
    _check_by(faults, check_network_config, spec.network_config)
    _check_service(faults, spec.service)
    if spec.HasField("mulligans"):
        faults.between("spec.mulligans", spec.mulligans, 0, 10)
    if spec.priority:
        faults.between("spec.priority", spec.priority, HIGHEST, LOWEST)
    _check_root_disk(faults, spec.root_disk)
    for field, value in spec.deadlines.ListFields():
        faults.between(f"spec.deadlines.{field.name}", value, 0, _WEEK, "seconds (7 days)")


def check_capabilities(faults: Faults, spec: machine_pb2.MachineSpec, known: Sequence[str]) -> None:
    """Check that every capability named is one that some provider has."""
    for field in ("requires", "forbids"):
        for index, capability in enumerate(getattr(spec, field)):
            faults.known(
                f"spec.{field}[{index}]", capability, known, "no provider has it; see `mulligan provider list`"
            )


def _check_capabilities(faults: Faults, spec: machine_pb2.MachineSpec) -> None:
    faults.most("spec.requires", spec.requires, 64)
    faults.most("spec.forbids", spec.forbids, 64)
    for both in sorted(set(spec.requires) & set(spec.forbids)):
        faults.add("spec.forbids", f"{both[:80]!r} is required and forbidden")


def _check_hostname(faults: Faults, spec: machine_pb2.MachineSpec) -> None:
    hostname = spec.hostname or spec.name
    if not hostname or (len(hostname) <= 253 and all(_LABEL.fullmatch(label) for label in hostname.split("."))):
        return
    if spec.hostname:
        faults.add("spec.hostname", "must be a DNS label or a fully qualified name, such as web-1 or web-1.example.org")
    elif spec.name.endswith("-"):
        faults.add("spec.hostname", f"the machine's name {spec.name!r} is no host name; give one here")


def _check_by(faults: Faults, check: Callable[[str], None], text: str) -> None:
    """Apply the seed's own rule."""
    try:
        check(text)
    except InvalidRequest as error:
        for field, description in error.violations:
            faults.add(f"spec.{field}", description)


def _check_service(faults: Faults, service: machine_pb2.Service) -> None:
    faults.between("spec.service.port", service.port, 0, 65535)
    if service.kind == machine_pb2.SERVICE_KIND_TCP and service.port == 0:
        faults.add("spec.service.port", "must be given for TCP")
    path = service.path
    if path and (
        not path.startswith("/") or len(path) > 1024 or not path.isascii() or not path.isprintable() or " " in path
    ):
        faults.add(
            "spec.service.path", "must begin with / and be at most 1024 printable ASCII characters without blanks"
        )


def _check_root_disk(faults: Faults, root_disk: machine_pb2.RootDisk) -> None:
    faults.between("spec.root_disk.min_gib", root_disk.min_gib, 0, _MOST)
    for field in ("serial", "wwn", "model"):
        if len(text := getattr(root_disk, field)) > _HINT or not text.isprintable():
            faults.add(f"spec.root_disk.{field}", f"must be at most {_HINT} printable characters")


def check_image(faults: Faults, image: images_pb2.Image, roots: Sequence[Path]) -> None:
    """Check an image to be registered; `file:` is allowed below the roots."""
    faults.image_name("image.name", image.name)
    _check_source(faults, image.source, roots)
    _check_digest(faults, image.digest)
    if image.format == images_pb2.IMAGE_FORMAT_UNSPECIFIED:
        faults.add("image.format", f"must be {', '.join(images_pb2.ImageFormat.keys()[1:])}")
    _check_live(faults, image, roots)
    if image.architecture and not _ARCHITECTURE.fullmatch(image.architecture):
        faults.add("image.architecture", "must be 1 to 32 of a-z 0-9 _, such as x86_64 or aarch64")
    if machine_pb2.FIRMWARE_UNSPECIFIED in image.firmware:
        faults.add("image.firmware", "must hold FIRMWARE_BIOS, FIRMWARE_UEFI, both, or nothing for both")
    faults.between("image.size_bytes", image.size_bytes, 0, 2**50)
    faults.between("image.virtual_size_bytes", image.virtual_size_bytes, 0, 2**50)
    if image.login and not _LOGIN.fullmatch(image.login):
        faults.add("image.login", "must be a user name: 1 to 32 of a-z 0-9 _ -, beginning with a letter or _")


def _check_live(faults: Faults, image: images_pb2.Image, roots: Sequence[Path]) -> None:
    """What only a kernel has, and what one cannot be."""
    if image.format != images_pb2.IMAGE_FORMAT_KERNEL:
        for field in ("initrd_source", "initrd_digest", "kernel_arguments"):
            if getattr(image, field):
                faults.add(f"image.{field}", "is only for an image of format kernel: nothing else is booted with it")
        return
    if image.compression not in (images_pb2.COMPRESSION_UNSPECIFIED, images_pb2.COMPRESSION_NONE):
        faults.add("image.compression", "must be none: a kernel unpacks itself")
    if image.architecture not in ("", "x86_64"):
        faults.add("image.architecture", "must be x86_64 for a kernel: no other is recognised")
    if image.initrd_source:
        _check_source(faults, image.initrd_source, roots, "image.initrd_source")
        _check_digest(faults, image.initrd_digest, "image.initrd_digest")
    elif image.initrd_digest:
        faults.add("image.initrd_source", "must say where the initrd of this digest is")
    words = image.kernel_arguments
    strange = sorted({each for each in words if not " " <= each <= "~" or each in "'\"\\$`"})
    if strange:
        shown = " ".join(map(repr, strange))
        faults.add("image.kernel_arguments", f"holds {shown}, which a boot loader would read as something else")
    if _IPXE_WORDS & set(words.split()) or any(word.startswith("#") for word in words.split()):
        faults.add("image.kernel_arguments", "holds ;, &&, || or a word that begins with #, which iPXE would act on")
    if len(words) > MOST_ARGUMENTS:
        faults.add("image.kernel_arguments", f"must be at most {MOST_ARGUMENTS} characters")


def _check_digest(faults: Faults, digest: str, field: str = "image.digest") -> None:
    kind = digest.partition(":")[0].lower()
    if kind in ("md5", "sha1"):
        faults.add(field, f"{kind} can be forged and is refused; give sha256:<hex> or sha512:<hex>")
    elif not _DIGEST.fullmatch(digest):
        faults.add(field, "must be sha256: and 64, or sha512: and 128, hexadecimal digits")


def _check_source(faults: Faults, source: str, roots: Sequence[Path], field: str = "image.source") -> None:
    parts = split_url(faults, field, source)
    if parts is None:
        return
    faults.known(field, parts.scheme, SOURCE_SCHEMES)
    if parts.scheme in ("http", "https") and not parts.hostname:
        faults.add(field, "names no host")
    if parts.scheme in ("http", "https") and parts.username is not None:
        faults.add(field, "must not hold a user: it would be kept and shown")
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        if "\0" in str(path):
            faults.add(field, "names no file: its path holds %00")
        elif parts.netloc not in ("", "localhost") or not path.is_absolute():
            faults.add(field, "must be file:// and an absolute path")
        elif ".." in path.parts or not any(path.is_relative_to(root) for root in roots):
            allowed = " or ".join(str(root) for root in roots)
            faults.add(field, f"files are allowed below {allowed}; MULLIGAN_IMAGE_ROOTS allows more")
