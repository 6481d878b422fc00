"""Failures of runs, kept until they are too old to tell anything, and what follows from them.

Each failure is a row with two marks: whether a machine came up on its provider since, and whether one came up from its
image. What is open is judged anew, by `suspects.judge`, with every change: the judgement decides how late a provider is
claimed (`suspect_count`), and what is quarantined. Changes take turns, so that no judgement misses another's failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, text, union, update

from mulligan.activities.inventory import providers as store
from mulligan.activities.inventory.database import insert_if_new, now
from mulligan.activities.inventory.names import not_found
from mulligan.activities.inventory.suspects import (
    EVIDENCE,
    Blame,
    Case,
    Charge,
    Judgement,
    Suspect,
    SuspectKind,
    judge,
)
from mulligan.activities.inventory.tables import failures, image_standings, images, providers
from mulligan.activities.inventory.verdicts import STAYS, quarantine_reason, remedy_for, verdict_on
from mulligan.activities.values import Image

JUDGED = 2000
"""The newest open failures that are judged: thousands are an outage, of which these tell all that there is to know."""

MOST_QUARANTINED_PERCENT = 50
"""No provider of a partition is quarantined by failures when more than so many percent of those enabled would be out of
service. When most of a site fails it is the site, and an operator must find hosts in service when it is mended. So the
last one, and the only one, stay."""

_TURN = 7_310_579_620_117_264
"""The key of the advisory lock by which changes take turns on PostgreSQL; SQLite lets one writer in at a time."""


@dataclass(frozen=True, slots=True)
class _Open:
    """What is open, and how it is judged."""

    blames: Sequence[Blame]
    """Newest first."""
    proved: frozenset[str]
    judgement: Judgement


def take_turn(connection: Connection) -> None:
    """Wait until no other change is under way; to be called before any provider is locked."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _TURN})


def record(connection: Connection, blame: Blame) -> None:
    """Keep a failure and judge anew; one that is known already changes nothing. See `Inventory.record_failure`."""
    take_turn(connection)
    store.lock(connection, blame.provider)
    row = {
        "id": blame.id,
        "workflow_id": blame.workflow_id,
        "run_id": blame.run_id,
        "provider": blame.provider,
        "image": blame.image,
        "digest": blame.digest,
        "step": blame.step,
        "reason": blame.reason,
        "at": blame.at or now(),
        "provider_cleared": False,
        "image_cleared": not blame.digest,
    }
    if insert_if_new(connection, failures, row):
        _judge_anew(connection)


def is_news(connection: Connection, provider: str, digest: str) -> bool:
    """Whether a machine that came up so clears anything, or is the first of its image."""
    if digest and connection.execute(_first(digest)).scalar() is None:
        return True
    open_ones = select(failures.c.id).where(or_(_against_provider(provider), _against_image([digest]))).limit(1)
    return connection.execute(open_ones).first() is not None


def came_up(connection: Connection, provider: str, image: Image) -> None:
    """Clear provider and image of all that failed before; see `Inventory.came_up`."""
    take_turn(connection)
    _stand(connection, image.digest, image.name)
    mine = image_standings.c.digest == image.digest
    first = update(image_standings).where(mine, image_standings.c.came_up_at.is_(None))
    connection.execute(first.values(came_up_at=now()))
    on_provider = update(failures).where(_against_provider(provider)).values(provider_cleared=True)
    of_image = update(failures).where(_against_image([image.digest])).values(image_cleared=True)
    if connection.execute(on_provider).rowcount + connection.execute(of_image).rowcount:
        _judge_anew(connection)


def held_against(connection: Connection, kind: SuspectKind, name: str) -> Suspect | None:
    """What is held against it, by name or digest; None when nothing is."""
    mine = [each for each in suspects(connection) if each.kind is kind and name in (each.name, each.digest)]
    return mine[0] if mine else None


def clear(connection: Connection, kind: SuspectKind, name: str) -> tuple[Suspect, ...]:
    """Forget its failures, for the other suspect of each too; see `Inventory.clear_failures`."""
    take_turn(connection)
    before = suspects(connection)
    done = {"provider_cleared": True, "image_cleared": True}
    if kind is SuspectKind.PROVIDER:
        store.lock(connection, name)
        connection.execute(update(failures).where(failures.c.provider == name).values(done))
        mine = (providers.c.name == name) & providers.c.quarantined.contains(remedy_for(kind, name), autoescape=True)
        connection.execute(update(providers).where(mine).values(quarantined=""))
    else:
        digests = _digests_of(connection, name)
        connection.execute(update(failures).where(failures.c.digest.in_(digests)).values(done))
        in_service = update(image_standings).where(image_standings.c.digest.in_(digests)).values(quarantined="")
        connection.execute(in_service)
    _judge_anew(connection)
    left = {(each.kind, each.name): each.failures for each in suspects(connection)}
    others = [each for each in before if (each.kind, each.name) != (kind, name)]
    return tuple(each for each in others if left.get((each.kind, each.name), 0) < each.failures)


def forget_provider(connection: Connection, name: str) -> None:
    """Remove the failures of a provider that is no more, and judge anew."""
    take_turn(connection)
    connection.execute(delete(failures).where(failures.c.provider == name))
    _judge_anew(connection)


def prune(connection: Connection, ids: Sequence[str]) -> None:
    """Remove these failures, and judge anew without them."""
    take_turn(connection)
    connection.execute(delete(failures).where(failures.c.id.in_(ids)))
    _judge_anew(connection)


def image_quarantine(connection: Connection, digest: str) -> str:
    """Why the image is refused; empty when it is not."""
    said = select(image_standings.c.quarantined).where(image_standings.c.digest == digest)
    return connection.execute(said).scalar() or ""


def suspects(connection: Connection) -> list[Suspect]:
    """Everything that is suspect or quarantined for it, the worst first; see `Inventory.suspects`."""
    opened = _open(connection)
    known = connection.execute(select(providers.c.name, providers.c.quarantined).where(providers.c.quarantined != ""))
    out = {row.name: row.quarantined for row in known if remedy_for(SuspectKind.PROVIDER, row.name) in row.quarantined}
    found = [
        _suspect(opened, SuspectKind.PROVIDER, name, "", out.get(name, ""))
        for name in {*opened.judgement.providers, *out}
    ]
    rows = connection.execute(select(image_standings).where(image_standings.c.quarantined != ""))
    refused = {row.digest: row for row in rows}
    names = {blame.digest: blame.image for blame in reversed(opened.blames)}
    for digest in {*opened.judgement.images, *refused}:
        row = refused.get(digest)
        name = names.get(digest) or (row.name if row is not None else "")
        found.append(_suspect(opened, SuspectKind.IMAGE, name, digest, row.quarantined if row is not None else ""))
    return sorted(found, key=lambda each: (not each.quarantined, -each.failures, each.kind, each.name))


def _suspect(opened: _Open, kind: SuspectKind, name: str, digest: str, quarantined: str) -> Suspect:
    is_image = kind is SuspectKind.IMAGE
    charges = opened.judgement.images if is_image else opened.judgement.providers
    charge = charges.get(digest if is_image else name, Charge(to_blame=False))
    held = [opened.blames[place] for place in charge.places]
    verdict = verdict_on(kind, charge, held, proved=digest in opened.proved)
    if quarantined and held and not charge.to_blame:
        verdict += f"; {STAYS}"
    return Suspect(
        kind=kind,
        name=name,
        digest=digest,
        failures=len(held),
        quarantined=quarantined,
        evidence=tuple(held[:EVIDENCE]),
        verdict=verdict,
    )


def _first(digest: str) -> Any:
    return select(image_standings.c.came_up_at).where(image_standings.c.digest == digest)


def _against_provider(name: str) -> Any:
    return (failures.c.provider == name) & failures.c.provider_cleared.is_(False)


def _against_image(digests: Sequence[str]) -> Any:
    return failures.c.digest.in_(digests) & failures.c.image_cleared.is_(False)


def _stand(connection: Connection, digest: str, name: str) -> None:
    insert_if_new(connection, image_standings, {"digest": digest, "name": name, "came_up_at": None, "quarantined": ""})


def _digests_of(connection: Connection, name: str) -> list[str]:
    """Every digest that has, or had, this name. Raises `NotFound`."""
    registered = connection.execute(select(images.c.image).where(images.c.name == name)).scalar()
    failed = select(failures.c.digest).where(failures.c.image == name)
    stood = select(image_standings.c.digest).where(image_standings.c.name == name)
    digests = set(connection.execute(union(failed, stood)).scalars())
    if registered is not None:
        digests.add(registered.digest)
    if not digests:
        raise not_found(connection, "image", name, images.c.name)
    return sorted(digests)


def _open(connection: Connection) -> _Open:
    is_open = or_(failures.c.provider_cleared.is_(False), failures.c.image_cleared.is_(False))
    newest = select(failures).where(is_open).order_by(failures.c.at.desc(), failures.c.id.desc()).limit(JUDGED)
    rows = connection.execute(newest).all()
    cases = [Case(row.provider, row.digest, row.workflow_id, row.provider_cleared, row.image_cleared) for row in rows]
    blames = [
        Blame(row.id, row.workflow_id, row.run_id, row.provider, row.image, row.digest, row.step, row.reason, row.at)
        for row in rows
    ]
    digests = {case.digest for case in cases}
    table = image_standings
    came = select(table.c.digest).where(table.c.digest.in_(digests), table.c.came_up_at.is_not(None))
    proved = frozenset(connection.execute(came).scalars())
    return _Open(blames, proved, judge(cases, proved))


def _judge_anew(connection: Connection) -> None:
    opened = _open(connection)
    _count(connection, opened)
    for name in sorted(opened.judgement.providers):
        if opened.judgement.providers[name].earns_quarantine:
            _quarantine_provider(connection, name, _suspect(opened, SuspectKind.PROVIDER, name, "", ""))
    for digest in sorted(opened.judgement.images):
        if opened.judgement.images[digest].earns_quarantine and digest not in opened.proved:
            name = next(blame.image for blame in opened.blames if blame.digest == digest)
            _quarantine_image(connection, _suspect(opened, SuspectKind.IMAGE, name, digest, ""))


def _count(connection: Connection, opened: _Open) -> None:
    """Write how late each provider is to be claimed, where that has changed."""
    charges = opened.judgement.providers
    concerned = or_(providers.c.suspect_count > 0, providers.c.name.in_(sorted(charges)))
    chosen = select(providers.c.name, providers.c.suspect_count, providers.c.suspect_reason).where(concerned)
    for row in connection.execute(chosen.order_by(providers.c.name)).all():
        places = charges[row.name].places if row.name in charges else []
        values = (len(places), opened.blames[places[0]].reason if places else "")
        if values != (row.suspect_count, row.suspect_reason):
            changed = update(providers).where(providers.c.name == row.name)
            connection.execute(changed.values(suspect_count=values[0], suspect_reason=values[1]))


def _quarantine_provider(connection: Connection, name: str, suspect: Suspect) -> None:
    row = connection.execute(select(providers.c.partition, providers.c.quarantined).where(providers.c.name == name))
    mine = row.first()
    if mine is None or mine.quarantined:
        return
    site = (providers.c.partition == mine.partition) & providers.c.enabled.is_(True)
    enabled = connection.execute(select(func.count()).select_from(providers).where(site)).scalar_one()
    out = select(func.count()).select_from(providers).where(site, providers.c.quarantined != "")
    if 100 * (connection.execute(out).scalar_one() + 1) <= MOST_QUARANTINED_PERCENT * enabled:
        store.change(connection, name, {"quarantined": quarantine_reason(suspect)})


def _quarantine_image(connection: Connection, suspect: Suspect) -> None:
    _stand(connection, suspect.digest, suspect.name)
    in_service = (image_standings.c.digest == suspect.digest) & (image_standings.c.quarantined == "")
    values = {"quarantined": quarantine_reason(suspect), "name": suspect.name}
    connection.execute(update(image_standings).where(in_service).values(values))
