"""When a password is sent to its BMC again, and what is told meanwhile: the rule, by a clock of its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mulligan.activities.credentials import Credential
from mulligan.activities.drivers import logins
from mulligan.activities.drivers.logins import MOST_WRONG_SECONDS, REFUSED_SECONDS, WRONG_SECONDS, LoginGate, LoginGates
from mulligan.activities.errors import AccessDenied, Busy, MulliganError, Unreachable

REFUSAL = AccessDenied("srv-1: HTTP 401", status=401)


class Clock:
    """The time, which passes when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        """As the module `time` has it."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the gates."""
    clock = Clock()
    monkeypatch.setattr(logins, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def told(gate: LoginGate, *, patient: bool = True) -> type[MulliganError] | None:
    """What who asks is told before anything is sent; None where a log-in may be."""
    try:
        gate.check("looking", patient=patient)
    except MulliganError as error:
        return type(error)
    return None


def sent(gate: LoginGate, *, patient: bool = True) -> type[MulliganError]:
    """What who asks is told when it is sent, as it may be, and refused."""
    assert told(gate, patient=patient) is None
    try:
        gate.refused(REFUSAL, given=False, patient=patient)
    except Busy:
        return Busy
    return AccessDenied


def refused_for_good(clock: Clock, gate: LoginGate) -> None:
    """The whole series of a registered provider."""
    for seconds in REFUSED_SECONDS:
        assert (sent(gate), told(gate)) == (Busy, Busy)
        clock.now += seconds
    assert sent(gate) is AccessDenied


def test_a_registered_providers_password_has_its_series_of_tries(clock: Clock) -> None:
    """Although it never worked in this process; after the last it counts as wrong, which is final, and said so."""
    gate = LoginGate()
    refused_for_good(clock, gate)
    assert (told(gate), told(gate, patient=False)) == (AccessDenied, AccessDenied)
    with pytest.raises(AccessDenied, match=r"not asked for 180 s unless the credential changes.*HTTP 401"):
        gate.check("looking", patient=True)
    clock.now += WRONG_SECONDS
    assert sent(gate) is AccessDenied


def test_a_password_that_counts_as_wrong_is_trusted_again_once_it_is_taken(clock: Clock) -> None:
    """By everybody: then it has worked."""
    gate = LoginGate()
    refused_for_good(clock, gate)
    clock.now += WRONG_SECONDS
    gate.entered()
    assert (sent(gate, patient=False), told(gate)) == (Busy, Busy)


def test_an_answer_that_is_lost_does_not_make_a_wrong_password_right(clock: Clock) -> None:
    """It tells nothing of it."""
    gate = LoginGate()
    refused_for_good(clock, gate)
    clock.now += WRONG_SECONDS
    gate.lost()
    assert told(gate) is Unreachable
    clock.now += logins.LOST_SECONDS
    assert sent(gate) is AccessDenied


def test_refusals_of_who_adds_a_provider_bring_no_verdict(clock: Clock) -> None:
    """However many: what is registered at that BMC still has its tries, the first of which theirs stands for."""
    gate = LoginGate()
    for _ in range(5):
        assert sent(gate, patient=False) is AccessDenied
        assert (told(gate, patient=False), told(gate)) == (AccessDenied, Busy)
        clock.now += MOST_WRONG_SECONDS
    assert [sent(gate), told(gate)] == [Busy, Busy]
    clock.now += REFUSED_SECONDS[1]
    assert sent(gate) is Busy
    clock.now += REFUSED_SECONDS[2]
    assert sent(gate) is AccessDenied


def test_who_adds_a_provider_sends_nothing_while_a_registered_one_waits(clock: Clock) -> None:
    """And is told at once that the password was refused, where it never worked in this process."""
    gate = LoginGate()
    assert sent(gate) is Busy
    assert told(gate, patient=False) is AccessDenied
    clock.now += REFUSED_SECONDS[0]
    assert sent(gate, patient=False) is AccessDenied
    assert told(gate) is Busy
    clock.now += REFUSED_SECONDS[0]
    assert told(gate) is None


def pauses(clock: Clock, gate: LoginGate, *, patient: bool) -> list[float]:
    """The next pauses of a password that is not trusted and refused each time that it is sent, in seconds."""
    found = []
    for _ in range(6):
        assert sent(gate, patient=patient) is AccessDenied
        before = clock.now
        while told(gate, patient=patient) is not None:
            clock.now += 10
        found.append(clock.now - before)
    return found


def test_a_wrong_password_is_sent_ever_more_rarely(clock: Clock) -> None:
    """However often runs ask: some BMCs count refusals until a log-in succeeds. Then it begins anew."""
    gate = LoginGate()
    refused_for_good(clock, gate)
    clock.now += WRONG_SECONDS
    assert pauses(clock, gate, patient=True) == [360, 720, 1440, 1800, 1800, 1800]
    gate.entered()
    refused_for_good(clock, gate)
    clock.now += WRONG_SECONDS
    assert pauses(clock, gate, patient=True)[0] == 2 * WRONG_SECONDS


def test_who_saw_to_the_account_does_not_wait_for_the_long_pauses(clock: Clock) -> None:
    """Adding the provider again sends the password after the shortest one; taken then, it is taken for all."""
    gate = LoginGate()
    refused_for_good(clock, gate)
    for _ in range(4):
        clock.now += WRONG_SECONDS
        assert (told(gate, patient=False), sent(gate, patient=False)) == (None, AccessDenied)
    assert (told(gate), told(gate, patient=False)) == (AccessDenied, AccessDenied)
    clock.now += WRONG_SECONDS
    assert (told(gate), told(gate, patient=False)) == (AccessDenied, None)
    gate.entered()
    assert told(gate) is None


def test_a_registered_provider_does_not_wait_for_the_pause_of_who_adds_one(clock: Clock) -> None:
    """Its password is trusted still."""
    gate = LoginGate()
    pauses(clock, gate, patient=False)
    assert sent(gate, patient=False) is AccessDenied
    clock.now += REFUSED_SECONDS[0]
    assert (told(gate), told(gate, patient=False)) == (None, AccessDenied)


def test_gates_are_remembered_by_bmc_and_credential_but_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was asked for longest ago is forgotten. No password can be read in them."""
    monkeypatch.setattr(logins, "MOST_GATES", 2)
    gates, old, new = LoginGates(), Credential("admin", "canary-1"), Credential("admin", "canary-2")
    first, second = gates.of("bmc-1", old), gates.of("bmc-1", new)
    assert gates.of("bmc-1", old) is first is not second
    gates.of("bmc-2", old)
    assert gates.of("bmc-1", old) is first
    assert gates.of("bmc-1", new) is not second
    assert "canary" not in repr(vars(gates))
