"""`mulligan claim`: ask why a machine would fit, or not, list what is claimed, and see whether it adds up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from mulligan.api.cli.actor import ACTOR, REASON
from mulligan.api.cli.client import Session, api_command
from mulligan.api.cli.errors import usage
from mulligan.api.cli.exit_codes import ExitCode
from mulligan.api.cli.explanation import show_explanation
from mulligan.api.cli.output import listing, print_json, value_of, word, words
from mulligan.api.cli.spec_options import CLAIM_OPTIONS, options, spec_of
from mulligan.api.cli.text import ago, clock
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
    like = _as_asked_for(session, machine, flags) if machine is not None else None
    request = inventory_pb2.ExplainClaimRequest(spec=spec_of(flags, like=like))
    explanation = session.inventory.ExplainClaim(request, timeout=session.deadline()).explanation
    if session.as_json:
        print_json(explanation)
    else:
        show_explanation(explanation)
    return ExitCode.OK if explanation.verdict == inventory_pb2.Explanation.VERDICT_FITS else ExitCode.NO_ROOM


def _as_asked_for(session: Session, machine: str, flags: Mapping[str, Any]) -> machine_pb2.MachineSpec:
    if flags.get("file"):
        raise usage(
            "--machine and --file both say what is asked for: give one of them", "mulligan claim explain --help"
        )
    request = provisioning_pb2.GetMachineRequest(project=flags.get("project") or "", name=machine)
    return session.provisioning.GetMachine(request, timeout=session.deadline()).machine.spec


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
