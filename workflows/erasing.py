"""Erasing a server's disks: what takes the place of removing a machine's disks where the deploy agent writes them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from mulligan.activities import calls
    from mulligan.activities.values import Erase, RootDisk
    from mulligan.workflows import steps
    from mulligan.workflows.execution import Execution

TRIED_FOR: Mapping[Erase, timedelta] = {Erase.METADATA: timedelta(hours=2), Erase.FULL: timedelta(days=3)}
"""How long an erase is tried before its server is quarantined: a server takes minutes to boot the agent, and a large
disk takes a day to be overwritten."""


def erasing(made: calls.MadeFor, mode: Erase, root_disk: RootDisk, token_seconds: int, **how: bool) -> calls.EraseIn:
    """What to erase; `how` is `only_if_written` or `without_missing`."""
    return calls.EraseIn(made.target, made.mark, mode, root_disk, workflow.info().workflow_id, token_seconds, **how)


def undo_by_erasing(run: Execution, asked: calls.EraseIn, said: str) -> None:
    """Register it as the undo of the image step."""
    partition, at_least = asked.target.partition, TRIED_FOR[asked.mode]
    run.undo_with(steps.ERASE, asked, said, partition=partition, step="image", at_least=at_least)
