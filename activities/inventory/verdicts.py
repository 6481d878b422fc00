"""What is said of suspects: why it, and not the other, is blamed, and the command that clears it."""

from __future__ import annotations

from collections.abc import Sequence

from mulligan.activities.inventory.suspects import Blame, Charge, Suspect, SuspectKind

_NAMED = 3
"""So many names are told; of more, how many they are."""

STAYS = "it stays quarantined for what was found against it then, until it is cleared"
_NEVER = "none ever came up from it"
_REASON = 200
"""Characters of a failure's reason that are repeated in a quarantine's."""


def remedy_for(kind: SuspectKind, name: str) -> str:
    """The command that forgets its failures; a quarantine whose reason names it ends with it."""
    return f"mulligan suspect clear {kind} {name}"


def quarantine_reason(suspect: Suspect) -> str:
    """Why it is taken out of service, with the evidence and the command that puts it back."""
    last = suspect.evidence[0]
    said = last.reason if len(last.reason) <= _REASON else f"{last.reason[: _REASON - 3]}..."
    remedy = remedy_for(suspect.kind, suspect.name)
    since = "" if suspect.verdict.endswith(_NEVER) else " since one came up"
    return (
        f"{suspect.failures} runs failed with it{since}; {suspect.verdict}; the last one, "
        f"{last.workflow_id}: {said}. `mulligan suspect list` shows all. When the cause is mended: `{remedy}`"
    )


def verdict_on(kind: SuspectKind, charge: Charge, held: Sequence[Blame], *, proved: bool) -> str:
    """Why it is blamed, or why that is not clear. `held` are the failures of the charge, newest first."""
    if not held:
        return "nothing is held against it any more"
    if kind is SuspectKind.IMAGE:
        return _on_image(charge, held, proved)
    return _on_provider(charge, held)


def _on_image(charge: Charge, held: Sequence[Blame], proved: bool) -> str:
    where = _names([blame.provider for blame in held])
    sound = _names([blame.provider for blame, case in zip(held, charge.cases, strict=True) if case.provider_cleared])
    since = f"; machines from other images came up on {sound} since" if sound else ""
    if charge.to_blame:
        history = "one came up from it before" if proved else _NEVER
        return f"it is to blame: it failed on {where}, which have nothing else against them{since}, and {history}"
    if sound:
        return f"it is suspect: it failed on {where}{since}; a failure on another provider would make it clear"
    return f"not clear yet: it, or {where}; a machine from it elsewhere, or from another image there, would tell"


def _on_provider(charge: Charge, held: Sequence[Blame]) -> str:
    without = [blame.image for blame, case in zip(held, charge.cases, strict=True) if not case.against_image]
    elsewhere = _names([name for name in without if name])
    what = _names([blame.image for blame in held if blame.image])
    if charge.to_blame and elsewhere:
        return f"it is to blame: machines from {elsewhere} came up elsewhere since"
    if charge.to_blame and without:
        return "it is to blame: no image had part in it"
    if charge.to_blame:
        return f"it is to blame: it failed with {what}, which failed nowhere else"
    return f"not clear yet: it, or {what}; a machine from another image on it, or from that one elsewhere, would tell"


def _names(names: Sequence[str]) -> str:
    """The names, each once, in the order of the alphabet."""
    each = sorted(set(names))
    if len(each) > _NAMED:
        return f"{', '.join(each[:_NAMED])} and {len(each) - _NAMED} more"
    return " and ".join((", ".join(each[:-1]), each[-1])) if len(each) > 1 else "".join(each)
