"""From a provider's URL to an open driver: the one place that knows which drivers there are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mulligan.activities.drivers.base import Deadline, Driver
from mulligan.activities.errors import InvalidRequest, Unsupported
from mulligan.activities.values import Kind, Target

LIBVIRT_SCHEMES = ("qemu", "qemu+ssh", "qemu+tls", "qemu+unix")
LIBVIRT_PATHS = ("/system", "/session")
LIBVIRT_QUERIES = ("", "mode=auto", "mode=direct", "mode=legacy")
"""All that may follow a libvirt URL's `?`. libvirt knows much more, such as `command` and `netcat`, which it *runs*, as
the worker's user; whoever may register a provider must not gain that."""

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

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]")
_SSH_CONFIG = "how ssh connects is set in ~/.ssh/config of the worker's user: Host, IdentityFile, ProxyJump, ..."


def _split(url: str) -> SplitResult:
    if not url.isprintable() or " " in url:
        raise _wrong("must not hold blanks or control characters")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _wrong("has a malformed host or port") from None
    return parts


def _scheme(url: str) -> str:
    scheme = _split(url).scheme.lower()
    if scheme not in (*LIBVIRT_SCHEMES, SIMULATED_SCHEME):
        raise Unsupported(f"no driver speaks {url!r}; known are {', '.join(KNOWN)}", url=url, known=",".join(KNOWN))
    return scheme


def normalise_url(url: str) -> str:
    """The URL in its one spelling, so that two spellings of a provider are seen to be the same.

    Raises `Unsupported` for an unknown scheme, `InvalidRequest` for a URL that carries a password, lacks its host, or
    asks libvirt for more than `LIBVIRT_QUERIES`.
    """
    text = url.strip()
    scheme = _scheme(text)
    parts = _split(text)
    if parts.password is not None:
        raise _wrong("must not carry a password: it would be stored and shown; use keys or certificates")
    path = parts.path.rstrip("/")
    if scheme in LIBVIRT_SCHEMES:
        path = path or "/system"
        _check_libvirt(scheme, parts, path)
    user, at, host = parts.netloc.rpartition("@")
    return f"{scheme}://{user}{at}{host.lower()}{path}" + (f"?{parts.query}" if parts.query else "")


def _check_libvirt(scheme: str, parts: SplitResult, path: str) -> None:
    """Refuse what ssh could take for an option, and what libvirt would run, read or leave unchecked."""
    user, at, host = parts.netloc.rpartition("@")
    name = re.sub(r":[0-9]*$", "", host)
    if scheme in {"qemu+ssh", "qemu+tls"} and not parts.hostname:
        raise _wrong(f"names no host; write {scheme}://host/system")
    if (at and not _USER.fullmatch(user)) or (name and not _HOST.fullmatch(name)):
        raise _wrong(f"must be written {scheme}://user@host/system, with letters, digits and . _ - only; {_SSH_CONFIG}")
    if path not in LIBVIRT_PATHS:
        raise _wrong(f"must end in {' or '.join(LIBVIRT_PATHS)}, not in {path}")
    if parts.query not in LIBVIRT_QUERIES:
        allowed = ", ".join(query for query in LIBVIRT_QUERIES if query)
        raise _wrong(f"may have only {allowed} after the question mark; {_SSH_CONFIG}")


def _wrong(description: str) -> InvalidRequest:
    return InvalidRequest(f"the provider's URL {description}", violations=[("url", description)])


def kind_of(url: str) -> Kind:
    """What sort of machine a provider with this URL gives; ANY where only an inspection can tell."""
    return Kind.VIRTUAL if _scheme(url) in LIBVIRT_SCHEMES else Kind.ANY


async def open_driver(target: Target, *, state_dir: Path) -> Driver:
    """An open driver for the target. `state_dir` is where drivers may keep state of their own.

    Raises `Unsupported` for an unknown scheme, `InvalidRequest` for a URL that `normalise_url` refuses, wherever it
    came from, and whatever connecting raises.
    """
    target = replace(target, url=normalise_url(target.url))
    if _scheme(target.url) == SIMULATED_SCHEME:
        from mulligan.activities.drivers.simulated import open_simulated  # noqa: PLC0415 - only who uses it loads it

        return await open_simulated(target, state_dir)
    from mulligan.activities.drivers.libvirt.driver import open_libvirt  # noqa: PLC0415 - needs libvirt's library

    return await open_libvirt(target, Deadline.after(OPEN_SECONDS))
