"""`mulligan claim`: ask why a machine would fit, or not, list what is claimed, and see whether it adds up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from mulligan.api.cli.actor import ACTOR, REASON
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import tell_next, usage
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.explanation import show_explanation, what_helps
from mulligan.api.cli.output import listing, print_json, value_of, word, words
from mulligan.api.cli.spec_options import CLAIM_OPTIONS, options, spec_of
from mulligan.api.cli.text import ago, clean, clock
from mulligan.v1 import inventory_pb2, machine_pb2, provisioning_pb2

DRIFT_HEAD = ("kind", "provider", "what is wrong", "repaired")
HEAD = ("machine", "project", "provider", "partition", "vcpu", "memory", "disk", "state", "lease until", "age", "mend")


@click.group()
def claim() -> None:
    """Ask why a machine would fit, or not, and list what is claimed."""


@claim.command()
@options(CLAIM_OPTIONS)
@click.option("--machine", metavar="NAME", help="As this machine of the project was asked for. Other flags win.")
@api_command
def explain(session: Session, machine: str | None, **flags: Any) -> ExitCode:
    """Say which providers could hold a machine, and what left each of the others out. Claims nothing."""
    found = _as_asked_for(session, machine, flags) if machine is not None else None
    request = inventory_pb2.ExplainClaimRequest(spec=spec_of(flags, like=found.spec if found is not None else None))
    explanation = session.inventory.ExplainClaim(request, timeout=session.deadline()).explanation
    fits = explanation.verdict == inventory_pb2.Explanation.VERDICT_FITS
    if session.as_json:
        print_json(explanation)
    else:
        if found is not None and (held := _held_by(session, found)) is not None:
            click.echo(clean(f"{_holds(found, held)}; below is what another one like it would find\n", lines=True))
        show_explanation(explanation)
        tell_next(() if fits else what_helps(explanation))
    return ExitCode.OK if fits else ExitCode.NO_ROOM


def _held_by(session: Session, found: machine_pb2.Machine) -> inventory_pb2.Claim | None:
    """The claim that the machine has already, for which nobody asks any more."""
    request = inventory_pb2.ListClaimsRequest(project=found.project)
    claims = (response.claim for response in session.inventory.ListClaims(request, timeout=session.deadline()))
    return next((each for each in claims if each.machine_id == found.id), None)


def _holds(found: machine_pb2.Machine, claim: inventory_pb2.Claim) -> str:
    sizes, state = claim.resources, word(machine_pb2.MachineState, found.state)
    held = f"{sizes.vcpu} vcpu, {sizes.memory_mib} MiB memory and {sizes.disk_gib} GiB disk"
    return f"machine {found.name} is {state}, and holds {held} of {claim.provider}"


def _as_asked_for(session: Session, machine: str, flags: Mapping[str, Any]) -> machine_pb2.Machine:
    if flags.get("file"):
        raise usage(
            "--machine and --file both say what is asked for: give one of them", "mulligan claim explain --help"
        )
    request = provisioning_pb2.GetMachineRequest(project=flags.get("project") or "", name=machine)
    return session.provisioning.GetMachine(request, timeout=session.deadline()).machine


@claim.command("list")
@click.option("--partition", help="Only claims in this partition.")
@click.option("--project", help="Only claims of this project.")
@click.option("--state", type=click.Choice(words(inventory_pb2.ClaimState)), help="Default: all that hold resources.")
@api_command
def list_claims(session: Session, partition: str | None, project: str | None, state: str | None) -> None:
    """List claims, oldest first."""
    request = inventory_pb2.ListClaimsRequest(
        partition=partition or "",
        project=project or "",
        state=value_of(inventory_pb2.ClaimState, state or "unspecified"),
    )
    stream = session.inventory.ListClaims(request, timeout=session.deadline())
    listing(session, (response.claim for response in stream), HEAD, _row)


@claim.command()
@click.option("--repair", is_flag=True, help="Mend what is found.")
@REASON
@ACTOR
@api_command
def audit(session: Session, repair: bool, reason: str, actor: str) -> ExitCode:
    """List what does not add up: counters against live claims, and claims that outlived their machine."""
    request = inventory_pb2.AuditClaimsRequest(repair=repair, reason=reason, actor=actor)
    drifts = list(session.inventory.AuditClaims(request, timeout=session.deadline()))
    listing(session, drifts, DRIFT_HEAD, _drift_row)
    return ExitCode.OK if all(drift.repaired for drift in drifts) else ExitCode.CONFLICT


def _drift_row(found: inventory_pb2.AuditClaimsResponse) -> tuple[str, ...]:
    kind = word(inventory_pb2.AuditClaimsResponse.Kind, found.kind)
    return kind, found.provider, found.detail, "yes" if found.repaired else "no"


def _row(found: inventory_pb2.Claim) -> tuple[str, ...]:
    held = found.resources
    return (
        found.machine,
        found.project,
        found.provider,
        found.partition,
        str(held.vcpu),
        f"{held.memory_mib} MiB",
        f"{held.disk_gib} GiB",
        word(inventory_pb2.ClaimState, found.state),
        clock(found.lease_expires_at),
        ago(found.created_at),
        found.mend or found.reason,
    )
