"""Who is to blame for the runs that failed: the provider or the image. Pure judgement; `failures` keeps what it needs.

Every failure of a run on a provider has two suspects, the provider and the image. A success clears one of them: a
machine that came up on the provider since shows that the provider is sound, one that came up from the image shows that
the image is. What neither has cleared is decided by who else failed:

- An image is to blame when it failed on several providers that have nothing else against them: they failed with no
  other image, or a machine came up there since. One that ever came up needs one provider more, for bytes that are named
  by their digest do not change: where it ran does.
- A provider is to blame when the image came up elsewhere since, or when it failed with several images that failed
  nowhere else.

Who is to blame explains all failures that it had part in, and the rest is judged again without them. An image that is
to blame takes its failures off the providers, also off one that is to blame for others. What stays unclear is held
against both. When everything fails with everything, as in an outage of a site, nobody is to blame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

WITNESSES = 2
"""How many providers (or images) without anything else against them make an image (or a provider) the one to blame: one
is a coincidence of the two."""

WITNESSES_AGAINST_PROVED = 3
"""The same for an image that came up before."""

QUARANTINE_AFTER = 3
"""Failures held against what is to blame before it is taken out of service: a run that takes its default mulligan makes
two, so that at least a second run has failed too."""

QUARANTINE_MACHINES = 2
"""For how many different machines these failures were at least: one request that can never work (a port that nothing
listens on, too little memory) takes nothing out of service, however often it is repeated."""


class SuspectKind(StrEnum):
    """What failed."""

    PROVIDER = "provider"
    IMAGE = "image"


@dataclass(frozen=True, slots=True)
class Blame:
    """A try of a run that failed on a provider, with an image."""

    id: str
    """Unique to the try, and the same each time that it is told: what is told twice counts once."""
    workflow_id: str
    """The run that failed; it names the machine."""
    run_id: str
    provider: str
    image: str
    """The image's name; empty when no image had part in it."""
    digest: str
    """Which bytes: an image is judged by its digest, for names may be given anew."""
    step: str
    reason: str
    at: datetime | None = None
    """By the database's clock; drawn when it is recorded."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """Something on which runs failed since one succeeded, or that was quarantined for it."""

    kind: SuspectKind
    name: str
    digest: str
    """For an image; empty for a provider."""
    failures: int
    """How many failures are held against it."""
    quarantined: str
    """Why it is out of service; empty when it is not."""
    evidence: tuple[Blame, ...]
    """The failures held against it, newest first, at most `EVIDENCE`."""
    verdict: str
    """For people: why it, and not the other, is blamed."""


EVIDENCE = 20


@dataclass(frozen=True, slots=True)
class Case:
    """One failure, as it is judged."""

    provider: str
    digest: str
    """Of the image; empty when none had part in it."""
    machine: str
    provider_cleared: bool = False
    """Whether a machine came up on the provider since."""
    image_cleared: bool = False
    """Whether a machine came up from the image since."""

    @property
    def against_provider(self) -> bool:
        """Whether it may be the provider's fault."""
        return not self.provider_cleared

    @property
    def against_image(self) -> bool:
        """Whether it may be the image's fault."""
        return bool(self.digest) and not self.image_cleared


@dataclass(slots=True)
class Charge:
    """What is held against one suspect."""

    to_blame: bool
    cases: list[Case] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Where the cases are in what was judged."""

    @property
    def earns_quarantine(self) -> bool:
        """Whether it is to blame, for so much that it should be out of service."""
        machines = {case.machine for case in self.cases}
        enough = len(self.cases) >= QUARANTINE_AFTER and len(machines) >= QUARANTINE_MACHINES
        return self.to_blame and enough


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is held against whom: providers by name, images by digest. Whoever is not in it is in the clear."""

    providers: Mapping[str, Charge]
    images: Mapping[str, Charge]


def judge(cases: Sequence[Case], proved: Collection[str] = ()) -> Judgement:
    """Decide who is to blame, and hold each failure against whom it may concern. The order of the cases is no matter.

    `proved` are the digests of images from which a machine came up at any time.
    """
    bad_providers, bad_images = _to_blame(cases, frozenset(proved))
    providers = defaultdict[str, Charge](lambda: Charge(to_blame=False))
    images = defaultdict[str, Charge](lambda: Charge(to_blame=False))
    for place, case in enumerate(cases):
        blame_image, blame_provider = case.against_image, case.against_provider
        if blame_image and blame_provider:
            if case.digest in bad_images:
                blame_provider = False
            elif case.provider in bad_providers:
                blame_image = False
        for blamed, charges, name, bad in (
            (blame_provider, providers, case.provider, bad_providers),
            (blame_image, images, case.digest, bad_images),
        ):
            if blamed:
                charges[name].to_blame = name in bad
                charges[name].cases.append(case)
                charges[name].places.append(place)
    return Judgement(dict(providers), dict(images))


def _to_blame(cases: Iterable[Case], proved: frozenset[str]) -> tuple[set[str], set[str]]:
    """The providers and the images that are to blame: found in rounds, each without what the former explain."""
    providers: set[str] = set()
    images: set[str] = set()
    while True:
        left = [case for case in cases if case.provider not in providers and case.digest not in images]
        more_providers, more_images = _clear_cases(left, proved)
        if not more_providers and not more_images:
            return providers, images
        providers |= more_providers
        images |= more_images


def _clear_cases(cases: Sequence[Case], proved: frozenset[str]) -> tuple[set[str], set[str]]:
    """Who is to blame as far as these cases go."""
    with_images, on_providers = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for case in cases:
        if case.against_provider:
            with_images[case.provider].add(case.digest)
        if case.against_image:
            on_providers[case.digest].add(case.provider)
    for_image, for_provider = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    providers: set[str] = set()
    for case in cases:
        if case.against_image and (case.provider_cleared or len(with_images[case.provider]) == 1):
            for_image[case.digest].add(case.provider)
        if case.against_provider and not case.against_image:
            providers.add(case.provider)
        elif case.against_provider and len(on_providers[case.digest]) == 1:
            for_provider[case.provider].add(case.digest)
    needed = {digest: WITNESSES_AGAINST_PROVED if digest in proved else WITNESSES for digest in for_image}
    images = {digest for digest, witnesses in for_image.items() if len(witnesses) >= needed[digest]}
    return providers | {name for name, seen in for_provider.items() if len(seen) >= WITNESSES}, images
