"""From libvirt's errors to the domain's: the one place that knows both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from mulligan.activities.errors import (
    AccessDenied,
    Busy,
    Conflict,
    HostNotReady,
    MulliganError,
    NotFound,
    Transient,
    Unreachable,
    Unsupported,
)

_ABSENT = frozenset(
    {
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_NO_STORAGE_POOL,
        libvirt.VIR_ERR_NO_STORAGE_VOL,
        libvirt.VIR_ERR_NO_NETWORK,
        libvirt.VIR_ERR_NO_DOMAIN_METADATA,
    }
)
_DENIED = frozenset({libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_AUTH_CANCELLED, libvirt.VIR_ERR_ACCESS_DENIED})
_TAKEN = frozenset(
    {
        libvirt.VIR_ERR_DOM_EXIST,
        libvirt.VIR_ERR_STORAGE_VOL_EXIST,
        libvirt.VIR_ERR_STORAGE_POOL_BUILT,
        libvirt.VIR_ERR_OPERATION_INVALID,
    }
)
_CANNOT = frozenset(
    {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
        libvirt.VIR_ERR_OS_TYPE,
        libvirt.VIR_ERR_XML_ERROR,
    }
)
_GONE = frozenset(
    {
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_LIBSSH,
        libvirt.VIR_ERR_SSH,
        libvirt.VIR_ERR_GNUTLS_ERROR,
    }
)
_PATIENCE = ("asynchronous jobs running", "cannot acquire state change lock", "being built", "still in use")
_REFUSED = ("authentication", "permission denied", "host key verification", "certificate")
_EXISTS = ("already exists", "is already defined")
_LOST = ("client socket is closed", "end of file while reading data", "connection closed due to keepalive")
_NO_DAEMON = ("libvirt-sock", "virtqemud-sock", "virtlogd-sock")

RESTART_HINT = "mulligan doctor --mend"


def quiet() -> None:
    """Keep libvirt from writing errors to stderr: they are raised, and said once."""
    libvirt.registerErrorHandler(lambda _context, _error: None, None)


def code_of(error: libvirt.libvirtError) -> int:
    """The error's VIR_ERR number; -1 where it has none."""
    code = error.get_error_code()
    return -1 if code is None else int(code)


def is_absent(error: libvirt.libvirtError) -> bool:
    """Whether the error says that the object asked for does not exist."""
    return code_of(error) in _ABSENT


def translate(error: libvirt.libvirtError, doing: str, provider: str) -> MulliganError:
    """The domain's error for libvirt's. `doing` says what was asked, e.g. `starting domain x`."""
    found = " ".join((error.get_error_message() or str(error)).split())[:500]
    code = code_of(error)
    kind, advice = _meaning(code, found.lower())
    message = f"{provider}: {doing}: libvirt said: {found}. {advice}"
    facts: dict[str, object] = {"provider": provider, "doing": doing, "found": found, "code": code}
    if kind is HostNotReady:
        return HostNotReady(message, remedy=RESTART_HINT, **facts)
    if kind is Busy:
        return Busy(message, after_seconds=2.0, **facts)
    return kind(message, **facts)


def _meaning(code: int, found: str) -> tuple[type[MulliganError], str]:
    """The type of error, and what to do next. The first row that applies decides."""

    def says(words: tuple[str, ...]) -> bool:
        return any(word in found for word in words)

    rows: tuple[tuple[bool, type[MulliganError], str], ...] = (
        (says(_NO_DAEMON), HostNotReady, f"libvirt's daemons do not run; start them with `{RESTART_HINT}`"),
        (code in _DENIED, AccessDenied, "Check the provider's URL, keys or certificates"),
        (code in _GONE and says(_REFUSED), AccessDenied, "Check the provider's URL, keys or certificates"),
        (says(_LOST), Unreachable, "It will be tried again over a new connection"),
        (says(_PATIENCE), Busy, "It will be tried again"),
        (code in _ABSENT, NotFound, "List what is there with `virsh list --all` or `virsh vol-list`"),
        (code in _TAKEN or says(_EXISTS), Conflict, "Someone else changed it; look at it, then try again"),
        (code in _CANNOT, Unsupported, "Change the request or the provider's settings"),
        (code in _GONE, Unreachable, "It will be tried again"),
    )
    return next(((kind, advice) for applies, kind, advice in rows if applies), (Transient, "It will be tried again"))


@contextmanager
def speaking(doing: str, provider: str) -> Iterator[None]:
    """Within, libvirt's errors are raised as the domain's."""
    try:
        yield
    except libvirt.libvirtError as error:
        raise translate(error, doing, provider) from error
