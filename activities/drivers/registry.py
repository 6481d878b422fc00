"""From a provider's URL to an open driver: the one place that knows which drivers there are."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from mulligan.activities.drivers.base import Deadline, Driver
from mulligan.activities.errors import InvalidRequest, Unsupported
from mulligan.activities.values import Kind, Target

LIBVIRT_SCHEMES = ("qemu", "qemu+ssh", "qemu+tls", "qemu+unix")
LIBVIRT_PATHS = ("/system", "/session")
SIMULATED_SCHEME = "simulated"
KNOWN = (
    "qemu:///system",
    "qemu+ssh://user@host/system",
    "qemu+tls://host/system",
    "qemu+unix:///system",
    "simulated://fleet",
)
"""One example of each URL that is understood, for people."""

OPEN_SECONDS = 30.0


def _scheme(url: str) -> str:
    scheme = urlsplit(url).scheme.lower()
    if scheme not in (*LIBVIRT_SCHEMES, SIMULATED_SCHEME):
        raise Unsupported(f"no driver speaks {url!r}; known are {', '.join(KNOWN)}", url=url, known=",".join(KNOWN))
    return scheme


def normalise_url(url: str) -> str:
    """The URL in its one spelling, so that two spellings of a provider are seen to be the same.

    Raises `Unsupported` for an unknown scheme, `InvalidRequest` for a URL that carries a password or lacks its host.
    """
    text = url.strip()
    scheme = _scheme(text)
    parts = urlsplit(text)
    if parts.password is not None:
        raise _wrong("must not carry a password: it would be stored and shown; use keys or certificates")
    if scheme in {"qemu+ssh", "qemu+tls"} and not parts.hostname:
        raise _wrong(f"must name a host, e.g. {scheme}://host/system")
    path = parts.path.rstrip("/")
    if scheme in LIBVIRT_SCHEMES:
        path = path or "/system"
        if path not in LIBVIRT_PATHS:
            raise _wrong(f"must end in {' or '.join(LIBVIRT_PATHS)}, not in {path}")
    user, at, host = parts.netloc.rpartition("@")
    return f"{scheme}://{user}{at}{host.lower()}{path}" + (f"?{parts.query}" if parts.query else "")


def _wrong(description: str) -> InvalidRequest:
    return InvalidRequest(f"the provider's URL {description}", violations=[("url", description)])


def kind_of(url: str) -> Kind:
    """What sort of machine a provider with this URL gives; ANY where only an inspection can tell."""
    return Kind.VIRTUAL if _scheme(url) in LIBVIRT_SCHEMES else Kind.ANY


async def open_driver(target: Target, *, state_dir: Path) -> Driver:
    """An open driver for the target. `state_dir` is where drivers may keep state of their own.

    Raises `Unsupported` for an unknown scheme, and whatever connecting raises.
    """
    if _scheme(target.url) == SIMULATED_SCHEME:
        from mulligan.activities.drivers.simulated import open_simulated  # noqa: PLC0415 - only who uses it loads it

        return await open_simulated(target, state_dir)
    from mulligan.activities.drivers.libvirt.driver import open_libvirt  # noqa: PLC0415 - needs libvirt's library

    return await open_libvirt(target, Deadline.after(OPEN_SECONDS))
