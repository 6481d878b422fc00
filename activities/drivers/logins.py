"""When a BMC may be asked for a session again: accounts are locked after a few refusals, lost sessions fill a BMC."""

from __future__ import annotations

import time

from mulligan.activities.errors import AccessDenied, Busy, Unreachable

REFUSED_SECONDS = (60.0, 120.0, 300.0)
"""A password that worked before is tried again after each of these; then it counts as wrong."""
WRONG_SECONDS = 180.0
"""How long a password that never worked, or not any more, is not sent again."""
LOST_SECONDS = 15.0
"""How long no other session is asked for after the answer to one was lost: the BMC may keep one that nobody knows."""


class LoginGate:
    """For one BMC and one credential, in one process."""

    def __init__(self) -> None:
        self._worked = False
        self._refusals = 0
        """Of the password, one after the other."""
        self._in_vain = 0
        """Sessions that were given and not honoured, one after the other."""
        self._until = 0.0
        """When the next log-in may be, on the monotonic clock."""
        self._why = ""
        """Why not before, where the BMC refused; empty where it did not answer."""
        self._wrong: AccessDenied | None = None
        """The refusal after which the password counts as wrong."""

    def check(self, doing: str, *, patient: bool) -> None:
        """Raises `Busy` where it is too early after a refusal, `AccessDenied` where the password counts as wrong, and
        `Unreachable` after an answer that was lost: the BMC is not known to be there. Nothing is then sent.

        Who is patient is told `Busy` of a password that counts as wrong too: to a worker that began just now every one
        does that a BMC refuses while it restarts, and no undo is to be given up for that.
        """
        left = self._until - time.monotonic()
        if left > 0 and self._wrong is not None:
            why = f"as accounts are locked after a few refusals; the last was: {self._wrong.message}"
            if patient:
                raise Busy(f"{doing}: not asked for {left:.0f} s, {why}", after_seconds=left, **self._wrong.metadata)
            why = f"{doing}: not asked for {left:.0f} s unless the credential changes, {why}"
            raise AccessDenied(why, **self._wrong.metadata)
        if left > 0 and self._why:
            raise Busy(f"{doing}: {self._why}; the next log-in is in {left:.0f} s", after_seconds=left)
        if left > 0:
            raise Unreachable(f"{doing}: the answer to the last log-in was lost; the next one is in {left:.0f} s")

    def entered(self) -> None:
        """The BMC gave a session, so it takes the password. Whether it honours the session is to be seen."""
        self._worked, self._refusals, self._wrong = True, 0, None

    def passed(self) -> None:
        """The BMC answered what was asked of it."""
        self.entered()
        self._in_vain = 0

    def refused(self, error: AccessDenied, *, given: bool) -> None:
        """The BMC refused the log-in; `given` says that it did so in a session that it had just given.

        Raises `Busy` where the password worked before, as BMCs refuse all while they restart; returns where it never
        did, or was refused too often: `check` then tells it to who asks soon after.
        """
        if given:
            self.entered()
            self._in_vain += 1
        else:
            self._refusals += 1
        number = max(self._refusals, self._in_vain)
        if not self._worked or number > len(REFUSED_SECONDS):
            self._worked, self._refusals, self._in_vain = False, 0, 0
            if not given:
                self._until, self._wrong = time.monotonic() + WRONG_SECONDS, error
            return
        seconds = REFUSED_SECONDS[number - 1]
        self._until, self._wrong = time.monotonic() + seconds, None
        self._why = "the BMC refused a password that it took before"
        raise Busy(
            f"{error.message}; it took this password before, and BMCs that restart refuse all: try {number} of "
            f"{len(REFUSED_SECONDS)} more is in {seconds:.0f} s",
            after_seconds=seconds,
            **error.metadata,
        ) from error

    def lost(self) -> None:
        """The answer to a log-in was lost."""
        self._until, self._why, self._wrong = time.monotonic() + LOST_SECONDS, "", None
