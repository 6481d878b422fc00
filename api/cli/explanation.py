"""Why a claim finds a provider, or none, as a table: the funnel, the nearest misses, the verdict."""

from __future__ import annotations

from collections.abc import Iterator

import click

from mulligan.api.cli.output import show, table
from mulligan.api.cli.text import clean
from mulligan.api.cli.typed import without_the_pin
from mulligan.v1 import inventory_pb2

VERDICTS = {
    inventory_pb2.Explanation.VERDICT_FITS: "fits",
    inventory_pb2.Explanation.VERDICT_NEVER: "never: no provider could hold it, even empty",
    inventory_pb2.Explanation.VERDICT_NOT_NOW: "not now: it would fit, with room, or a provider back in service",
}

MENDED_BY = {
    "enabled": "mulligan provider set {} --enable",
    "not-quarantined": "mulligan provider show {}",
    "clean": "mulligan provider show {}",
}
"""What helps where a provider fails nothing but this; of a quarantine, the provider's page names the command."""


def mended_by(explanation: inventory_pb2.Explanation) -> tuple[str, ...]:
    """The commands that may bring back the nearest provider that is kept from the claim by nothing but its service."""
    for miss in explanation.near_misses:
        if all(name in MENDED_BY for name in miss.failing):
            return tuple(dict.fromkeys(MENDED_BY[name].format(miss.provider) for name in miss.failing))
    return ()


def pinned_to(explanation: inventory_pb2.Explanation) -> str:
    """The one provider that was asked for by name; empty where any would do."""
    asked = next((stage.description for stage in explanation.funnel if stage.name == "provider"), "")
    return asked.removeprefix("is ")


def what_helps(explanation: inventory_pb2.Explanation) -> tuple[str, ...]:
    """The commands to try where nothing fits: on the one provider that was asked for, if one was, else on any."""
    named, mended = pinned_to(explanation), mended_by(explanation)
    if named:
        look = () if mended else (f"mulligan provider show {named}",)
        return (*mended, *look, *without_the_pin())
    if explanation.verdict == inventory_pb2.Explanation.VERDICT_NOT_NOW:
        return (*mended, "mulligan claim list", "mulligan provider list")
    return (*mended, "mulligan provider list", "mulligan provider add --help")


def explanation_lines(explanation: inventory_pb2.Explanation) -> Iterator[str]:
    """The same in a few lines, for the story of a run: what left providers out, and the nearest misses."""
    out = [each for each in explanation.funnel if each.removed]
    width = max((len(each.name) for each in out), default=0)
    for each in out:
        yield clean(f"{each.name:<{width}}  left {each.removed} out, {each.remaining} remain: {each.description}")
    for miss in explanation.near_misses:
        detail = f" ({miss.detail})" if miss.detail else ""
        yield clean(f"nearest: {miss.provider} fails {', '.join(miss.failing)}{detail}")


def show_explanation(explanation: inventory_pb2.Explanation, *, err: bool = False) -> None:
    """Write the explanation to standard output, or to standard error beside an error."""
    funnel = [
        (predicate.name, predicate.description, f"-{predicate.removed}" if predicate.removed else "", str(remaining))
        for predicate in explanation.funnel
        for remaining in (predicate.remaining,)
    ]
    if funnel:
        show(table(("predicate", "asks for", "removed", "left"), funnel), err=err)
    if explanation.near_misses:
        misses = [(miss.provider, ", ".join(miss.failing), miss.detail) for miss in explanation.near_misses]
        click.echo(err=err)
        show(table(("nearest", "fails", "in numbers"), misses), err=err)
    if explanation.verdict:
        click.echo(err=err)
        counts = f"{explanation.never_count} never, {explanation.not_now_count} not now"
        told = VERDICTS.get(explanation.verdict, "?")
        if explanation.verdict == inventory_pb2.Explanation.VERDICT_NEVER and (named := pinned_to(explanation)):
            told = f"never: {named}, which was asked for, could not hold it, even empty"
        click.echo(f"verdict: {clean(told)} ({counts})", err=err)
    if explanation.summary and not err:  # an error says it already
        click.echo(clean(explanation.summary), err=err)
