"""From a provider's URL to an open driver: the one place that knows which drivers there are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mulligan.activities.credentials import Credentials
from mulligan.activities.drivers.base import Deadline, Driver
from mulligan.activities.drivers.kept import Kept
from mulligan.activities.drivers.lane import bmc_name
from mulligan.activities.errors import HostNotReady, InvalidRequest, Unsupported
from mulligan.activities.threads import run_blocking
from mulligan.activities.values import Target

LIBVIRT_SCHEMES = ("qemu", "qemu+ssh", "qemu+tls", "qemu+unix")
LIBVIRT_PATHS = ("/system", "/session")
LIBVIRT_QUERIES = ("", "mode=auto", "mode=direct", "mode=legacy")
"""All that may follow a libvirt URL's `?`. libvirt knows much more, such as `command` and `netcat`, which it *runs*, as
the worker's user; whoever may register a provider must not gain that."""

REDFISH_SCHEMES = ("redfish", "redfish+http")
"""HTTPS, and HTTP for who says so."""

LIBVIRT_BINDING = ("libvirt", "libvirt_qemu", "libvirtmod")
"""The modules of libvirt-python, which the simulation does without."""

IPMI_SCHEME = "ipmi"
SIMULATED_SCHEME = "simulated"
SCHEMES = (*LIBVIRT_SCHEMES, *REDFISH_SCHEMES, IPMI_SCHEME, SIMULATED_SCHEME)
BMC_PORTS = {"redfish": 443, "redfish+http": 80, IPMI_SCHEME: 623}
"""The usual port of each scheme that speaks with a BMC."""

KNOWN = (
    "qemu:///system",
    "qemu+ssh://user@host/system",
    "qemu+tls://host/system",
    "qemu+unix:///system",
    "redfish://bmc/redfish/v1/Systems/1",
    "ipmi://bmc",
    "simulated://fleet",
)
"""One example of each URL that is understood, for people."""

OPEN_SECONDS = 30.0

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]")
_SYSTEM = re.compile(r"/redfish/v1(/Systems/[A-Za-z0-9_.:%~-]{1,255})?")
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
    if scheme not in SCHEMES:
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
    if scheme in REDFISH_SCHEMES:
        path = path or "/redfish/v1"
        _check_redfish(scheme, parts, path)
    if scheme == IPMI_SCHEME:
        _check_ipmi(parts, path)
        return f"{scheme}://{re.sub(':(0*623)?$', '', parts.netloc.lower())}"
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


def _check_redfish(scheme: str, parts: SplitResult, path: str) -> None:
    """Refuse what is not a BMC's address: users and settings have places of their own."""
    if parts.username is not None:
        raise _wrong("must not name a user: write it into credentials.yaml, and name that entry with --credential")
    if not parts.hostname or not _HOST.fullmatch(re.sub(r":[0-9]*$", "", parts.netloc)):
        raise _wrong(f"names no host; write {scheme}://host/redfish/v1/Systems/ID")
    if parts.query or parts.fragment:
        raise _wrong("may have nothing after the path; settings are given with --set")
    if not _SYSTEM.fullmatch(path):
        raise _wrong(
            f"must end in /redfish/v1/Systems/ID, not in {path}; without /Systems/ID the setting `serial` says which "
            "system is meant"
        )


def _check_ipmi(parts: SplitResult, path: str) -> None:
    """Refuse what is not a BMC's host and port."""
    if parts.username is not None:
        raise _wrong("must not name a user: write it into credentials.yaml, and name that entry with --credential")
    if not parts.hostname or not _HOST.fullmatch(re.sub(r":[0-9]*$", "", parts.netloc)) or parts.port == 0:
        raise _wrong("must name the BMC's host, and its UDP port if that is not 623: ipmi://host or ipmi://host:port")
    if path or parts.query or parts.fragment:
        raise _wrong("may have nothing after the host and the port; settings are given with --set")


def _wrong(description: str) -> InvalidRequest:
    return InvalidRequest(f"the provider's URL {description}", violations=[("url", description)])


def lane_of(url: str) -> str:
    """The name of the BMC behind this URL, by which its lane is kept; empty where there is none, or no such URL."""
    try:
        parts = urlsplit(url)
        usual = BMC_PORTS.get(parts.scheme)
        return "" if usual is None else bmc_name(parts.hostname or "", parts.port, usual)
    except ValueError:  # opening it says what is wrong
        return ""


async def open_driver(
    target: Target, *, state_dir: Path, credentials: Path | None = None, kept: Kept | None = None
) -> Driver:
    """An open driver for the target. `state_dir` is where drivers may keep state of their own.

    `credentials` is the file in which the target's reference is looked up by drivers that need a credential. `kept` is
    what they share with other openings; without it nothing is shared, and what they held ends with them.

    Raises `Unsupported` for an unknown scheme, `InvalidRequest` for a URL that `normalise_url` refuses, wherever it
    came from, `HostNotReady` where the driver's library is not installed, and whatever connecting raises.
    """
    target = replace(target, url=normalise_url(target.url))
    if _scheme(target.url) == SIMULATED_SCHEME:
        from mulligan.activities.drivers.simulated import open_simulated  # noqa: PLC0415 - only who uses it loads it

        return await open_simulated(target, state_dir)
    if _scheme(target.url) in REDFISH_SCHEMES:
        from mulligan.activities.drivers.redfish import open_redfish  # noqa: PLC0415 - only who uses it loads it

        credential = (await run_blocking(Credentials.load, _file(credentials))).get(target.credential)
        return await open_redfish(target, credential, state_dir, kept)
    if _scheme(target.url) == IPMI_SCHEME:
        from mulligan.activities.drivers.ipmi.driver import open_ipmi  # noqa: PLC0415 - only who uses it loads it

        credential = (await run_blocking(Credentials.load, _file(credentials))).get(target.credential)
        return await open_ipmi(target, credential, state_dir, kept)
    try:
        from mulligan.activities.drivers.libvirt.driver import open_libvirt  # noqa: PLC0415 - needs libvirt's library
    except ModuleNotFoundError as error:
        if error.name not in LIBVIRT_BINDING:
            raise
        raise HostNotReady(
            f"{target.url} needs the Python binding of libvirt, which is not installed where this worker runs (an "
            "installation for the simulation alone has none); install it, and start the worker again: `make venv` in "
            "the checkout, or the extra `libvirt` of the package",
            remedy="make venv",
            url=target.url,
        ) from error
    return await open_libvirt(target, Deadline.after(OPEN_SECONDS))


def _file(credentials: Path | None) -> Path:
    if credentials is None:
        raise HostNotReady("this process was given no file of credentials; open the driver in a partition worker")
    return credentials
