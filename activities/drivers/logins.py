"""When a BMC may be asked for a session again: accounts are locked after a few refusals, lost sessions fill a BMC.

BMCs that restart refuse every log-in for a while, with the right password too. So a refusal is judged by who asks:

- A password is *trusted* where it worked in this process, or where the caller is patient: one that speaks for a
  registered provider, whose BMC took one when it was added. A refusal of it is `Busy`, and it is sent again after each
  of `REFUSED_SECONDS`. Refused once more after the last of them, it counts as wrong.
- A password that counts as wrong is trusted by nobody until it is taken: all are told `AccessDenied`, so that a run
  ends with that instead of waiting for ever.
- Who is not patient (who adds a provider) is told `AccessDenied` by the first refusal of a password that is not
  trusted. Those that are patient are told `Busy` after it: it brings no verdict over what their own tries are to show.
- What is not trusted is sent after `WRONG_SECONDS`, and after twice as long each time that it is refused again, up to
  `MOST_WRONG_SECONDS`: some BMCs count the refusals of an account until a log-in succeeds, and then lock it. Who adds
  the provider again (somebody has seen to the account) waits for the shortest of these pauses only.
"""

from __future__ import annotations

import time

from mulligan.activities.credentials import Credential
from mulligan.activities.errors import AccessDenied, Busy, Unreachable

REFUSED_SECONDS = (60.0, 120.0, 300.0)
"""A password that is trusted is tried again after each of these; then it counts as wrong."""
WRONG_SECONDS = 180.0
"""How long a password that is not trusted is not sent again, at first."""
MOST_WRONG_SECONDS = 1800.0
"""How long at most."""
LOST_SECONDS = 15.0
"""How long no other session is asked for after the answer to one was lost: the BMC may keep one that nobody knows."""
MOST_GATES = 10_000
"""How many a process remembers; then the one that was asked for longest ago is forgotten."""


class LoginGate:
    """For one BMC and one credential, in one process. Used in the BMC's lane only."""

    def __init__(self) -> None:
        self._worked = False
        self._wrong = False
        """Whether it counts as wrong."""
        self._refusals = 0
        """Of the password while it was trusted, one after the other."""
        self._in_vain = 0
        """Sessions that were given and not honoured, one after the other."""
        self._pause = 0.0
        """Seconds for which it was not sent after it was last refused untrusted; 0 when it was taken since."""
        self._last: AccessDenied | None = None
        """The newest refusal, until the password is taken."""
        self._refused_at = 0.0
        """When that was, on the monotonic clock."""
        self._until = self._until_untrusted = self._until_lost = 0.0
        """When the next log-in may be, on the monotonic clock: for who trusts the password, for who does not, and for
        all after an answer that was lost."""

    def check(self, doing: str, *, patient: bool) -> None:
        """Raises, where it is too early after a refusal, `Busy`, or `AccessDenied` where the password is not trusted;
        and `Unreachable` after an answer that was lost: the BMC is not known to be there. Nothing is then sent."""
        now, trusted = time.monotonic(), self._is_trusted(patient)
        soonest = self._until_untrusted if patient else min(self._until_untrusted, self._refused_at + WRONG_SECONDS)
        left = (self._until if trusted else soonest) - now
        if left > 0 and self._last is not None:
            said = "as accounts are locked after a few refusals; the last was: " + self._last.message
            if trusted:
                whose = "a password that it took before" if self._worked else "the password of a registered provider"
                why = f"{doing}: the BMC refused {whose}; the next log-in is in {left:.0f} s, {said}"
                raise Busy(why, after_seconds=left, **self._last.metadata)
            why = f"{doing}: not asked for {left:.0f} s unless the credential changes, {said}"
            raise AccessDenied(why, **self._last.metadata)
        if (left := self._until_lost - now) > 0:
            raise Unreachable(f"{doing}: the answer to the last log-in was lost; the next one is in {left:.0f} s")

    def entered(self) -> None:
        """The BMC gave a session, so it takes the password. Whether it honours the session is to be seen."""
        self._worked, self._wrong, self._refusals, self._pause, self._last = True, False, 0, 0.0, None

    def passed(self) -> None:
        """The BMC answered in a session, which tells nothing of the password: another may be set since it was begun."""
        self._in_vain = 0

    def refused(self, error: AccessDenied, *, given: bool, patient: bool) -> None:
        """The BMC refused the log-in; `given` says that it did so in a session that it had just given.

        Raises `Busy` where the password is still trusted; returns where the refusal is to be told as it is.
        """
        if given:
            self.entered()
            self._in_vain += 1
        self._last, self._refused_at = error, time.monotonic()
        now = self._refused_at
        if not self._is_trusted(patient):
            self._refusals = max(1, self._refusals)  # no more: it is not theirs to judge
            self._until = now + REFUSED_SECONDS[min(self._refusals, len(REFUSED_SECONDS)) - 1]
            self._until_untrusted = now + self._longer_pause()
            return
        self._refusals += not given
        number = max(self._refusals, self._in_vain)
        if number > len(REFUSED_SECONDS):
            self._worked, self._wrong, self._refusals, self._in_vain = False, not given, 0, 0
            self._until = self._until_untrusted = 0.0 if given else now + self._longer_pause()
            return
        seconds = REFUSED_SECONDS[number - 1]
        self._until = now + seconds
        self._until_untrusted = max(self._until, self._until_untrusted)
        known = "it took this password before" if self._worked else "the provider is registered"
        raise Busy(
            f"{error.message}; {known}, and BMCs that restart refuse all: try {number} of {len(REFUSED_SECONDS)} more "
            f"is in {seconds:.0f} s",
            after_seconds=seconds,
            **error.metadata,
        ) from error

    def lost(self) -> None:
        """The answer to a log-in was lost."""
        self._until_lost = time.monotonic() + LOST_SECONDS

    def _longer_pause(self) -> float:
        self._pause = min(MOST_WRONG_SECONDS, max(WRONG_SECONDS, 2 * self._pause))
        return self._pause

    def _is_trusted(self, patient: bool) -> bool:
        return not self._wrong and (patient or self._worked)


class LoginGates:
    """The gates of one process, by the name of the BMC's lane and the credential: whichever driver asks, and with which
    other settings, it is the same account that is locked."""

    def __init__(self) -> None:
        self._gates: dict[tuple[str, Credential], LoginGate] = {}

    def of(self, bmc: str, credential: Credential) -> LoginGate:
        """The gate of that BMC and that credential."""
        gate = self._gates.pop((bmc, credential), None) or LoginGate()
        self._gates[bmc, credential] = gate  # the newest is the last
        if len(self._gates) > MOST_GATES:
            del self._gates[next(iter(self._gates))]
        return gate
