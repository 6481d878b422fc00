"""The domain's errors: one tree, in which the type alone decides whether trying again can help.

    MulliganError
    ├── Transient             trying again later may help (the workflow's retry policy does)
    │   ├── Busy              the other side asks for patience; `after_seconds` says how much
    │   ├── Unreachable       no answer from the other side
    │   ├── NotNow            a claim fits some provider, but not at the moment; carries an explanation
    │   ├── Leftover          an undo left something behind; `objects` lists it
    │   └── NotShared         workers of a partition keep lanes and fences of BMCs in different directories
    └── Final                 trying the same again cannot help
        ├── InvalidRequest    the request is wrong: `violations` lists (field, description)
        ├── NotFound          a named thing does not exist; `nearest` lists names like it
        ├── AlreadyExists     a thing of that name exists and differs; `differing` lists the fields
        ├── Conflict          the thing was changed by someone else, or is in a state that forbids this
        ├── NeverFits         no provider could ever hold the claim; carries an explanation
        ├── Unsupported       the driver or host cannot do what is asked
        ├── HostNotReady      the host lacks something; `remedy` is the command that mends it
        ├── AccessDenied      credentials were refused
        ├── StaleFence        a newer claim owns the provider: whoever asks must stop
        ├── ImageRejected     the image's bytes are not what was declared, or are unsafe
        └── VerifyFailed      the machine is not up within the deadline; says what was last observed

Every message says what was asked, what was found and what to do next. `metadata` holds the variable parts of the
message as strings, for programs. Nothing in either is ever a secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

DOMAIN = "mulligan"


class MulliganError(Exception):
    """Base of all errors that Mulligan raises on purpose."""

    def __init__(self, message: str, **metadata: object) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = {key: str(value) for key, value in metadata.items()}

    @property
    def reason(self) -> str:
        """The error's name for programs, e.g. `NEVER_FITS`."""
        name = type(self).__name__
        return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


class Transient(MulliganError):
    """Trying again later may help."""


class Final(MulliganError):
    """Trying the same again cannot help."""


class Busy(Transient):
    """The other side is there and asks for patience."""

    def __init__(self, message: str, *, after_seconds: float = 0.0, **metadata: object) -> None:
        super().__init__(message, after_seconds=after_seconds, **metadata)
        self.after_seconds = after_seconds


class Unreachable(Transient):
    """The other side does not answer."""


class NotNow(Transient):
    """Some provider could hold the claim, but none can now. `explanation` is an inventory explanation."""

    def __init__(self, message: str, *, explanation: object = None, **metadata: object) -> None:
        super().__init__(message, **metadata)
        self.explanation = explanation


class InvalidRequest(Final):
    """The request is wrong; `violations` are (field path, description)."""

    def __init__(self, message: str, *, violations: Sequence[tuple[str, str]] = (), **metadata: object) -> None:
        super().__init__(message, **metadata)
        self.violations = tuple(violations)


class NotFound(Final):
    """A named thing does not exist; `nearest` are existing names like it."""

    def __init__(self, message: str, *, nearest: Sequence[str] = (), **metadata: object) -> None:
        super().__init__(message, nearest=",".join(nearest), **metadata)
        self.nearest = tuple(nearest)


class AlreadyExists(Final):
    """A thing of that name exists; `differing` are the fields in which it differs from what was asked."""

    def __init__(self, message: str, *, differing: Sequence[str] = (), **metadata: object) -> None:
        super().__init__(message, differing=",".join(differing), **metadata)
        self.differing = tuple(differing)


class Conflict(Final):
    """Someone else changed it, or its state forbids what is asked."""


class NeverFits(Final):
    """No provider could ever hold the claim, even empty. `explanation` is an inventory explanation."""

    def __init__(self, message: str, *, explanation: object = None, **metadata: object) -> None:
        super().__init__(message, **metadata)
        self.explanation = explanation


class Unsupported(Final):
    """The driver or the host cannot do what is asked."""


class HostNotReady(Final):
    """The host lacks something; `remedy` is the command that mends it."""

    def __init__(self, message: str, *, remedy: str = "", **metadata: object) -> None:
        super().__init__(message, remedy=remedy, **metadata)
        self.remedy = remedy


class AccessDenied(Final):
    """Credentials were refused, or are missing."""


class StaleFence(Final):
    """A newer claim owns the provider or the object."""


class ImageRejected(Final):
    """The image is not what was declared, or is unsafe to use."""


class VerifyFailed(Final):
    """The machine could not be proved to be up."""


class Leftover(Transient):
    """An undo left something behind; `objects` names it."""

    def __init__(self, message: str, *, objects: Sequence[str] = (), **metadata: object) -> None:
        super().__init__(message, objects=",".join(objects), **metadata)
        self.objects = tuple(objects)


class NotShared(Transient):
    """Workers of one partition do not share what keeps them apart at a BMC; goes on when they do."""
