"""What a run is at, as Markdown: shown by Temporal's Web UI on the run's page, and by `temporal workflow metadata`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from mulligan.activities.values import Outcome
    from mulligan.workflows import steps
    from mulligan.workflows.execution import ORDER
    from mulligan.workflows.steering import Phase

if TYPE_CHECKING:
    from mulligan.workflows.provision import ProvisionMachine

SEEN = {
    steps.WATCH_GUEST.name: "*Last Failure*. Each look is an attempt that fails with what it saw: that is healthy.",
    steps.WATCH_BOOT.name: "*Heartbeat Details*.",
}
"""Where on its page Temporal shows what a watch saw last, by the watch: it is in no history."""


def details(run: ProvisionMachine, step: str, note: str = "", outcome: Outcome | None = None) -> str:
    """The page of a run that makes a machine; `note` is said first. With an outcome it has ended so."""
    asked, execution = run.request, run.run
    where = f" on **{run.making.provider}**" if run.making.provider else ""
    lines = [f"**{asked.name}** of project {asked.project}: {outcome or run.phase}{where}, try {execution.try_number}"]
    if note:
        lines += ["", f"> {note}"]
    if run.phase is Phase.WORKING and execution.awaiting:
        lines += ["", f"Awaiting: {execution.awaiting}, until {execution.deadline:%Y-%m-%d %H:%M:%S} UTC"]
        if watching := run.making.watching:
            lines += ["", f"Last seen of the machine: *Pending Activities*, `{watching}`, {SEEN[watching]}"]
    if outcome is None and run.phase in (Phase.WORKING, Phase.HELD) and (ahead := run.holds_ahead.said()):
        lines += ["", f"{ahead[:1].upper()}{ahead[1:]}."]
    if outcome is None:
        lines += ["", "| step | state |", "|:--|:--|"]
        lines += [f"| `{name}` | {_state(run, name, step)} |" for name in ORDER]
    if evidence := run.making.evidence:
        lines += ["", "Evidence", ""] + [f"- {one.level or one.source}: {one.observed}" for one in evidence]
    if undo := execution.to_undo():
        lines += ["", "To be undone, in this order, if it fails or is cancelled", ""]
        lines += [f"1. {each.said}" for each in undo]
    if outcome is None and (possible := run.possible()):
        lines += ["", f"Levers: {', '.join(f'`{lever}`' for lever in possible)}; or cancel it."]
    return "\n".join(lines)


def _state(run: ProvisionMachine, name: str, step: str) -> str:
    if run.phase is Phase.ENDING:
        return "done"
    current = step if step in ORDER else run.run.step
    if name == current:
        return "held" if run.phase is Phase.HELD else "being undone" if step == "undo" else "under way"
    return "done" if current in ORDER and ORDER.index(name) < ORDER.index(current) else ""
