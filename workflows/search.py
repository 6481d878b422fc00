"""Search attributes: by what Temporal's lists and its Web UI can filter runs. The program registers them by itself.

    attribute          holds                                                   set
    MulliganProject    the machine's project                                   at start
    MulliganMachine    the machine's name                                      at start
    MulliganPartition  where it is made                                        at start
    MulliganProvider   the provider that is claimed, or was claimed last       by the run
    MulliganStep       the step that runs, or ran last; `undo` while undoing   at start, then by the run
    MulliganOutcome    how the run ended by itself; no value before that       by the run
    MulliganImage      the image's name                                        at start

A run that is terminated cannot say how it ended, and nobody can say it afterwards: so an outcome is not there until the
run has one, and no list calls a run open that is not. `ExecutionStatus` says whether it runs or was terminated.

All are keywords. Temporal never encrypts them: names only, nothing that a request may hold in confidence.
"""

from __future__ import annotations

from temporalio import workflow
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

with workflow.unsafe.imports_passed_through():
    from mulligan.activities.values import Outcome

PROJECT = SearchAttributeKey.for_keyword("MulliganProject")
MACHINE = SearchAttributeKey.for_keyword("MulliganMachine")
PARTITION = SearchAttributeKey.for_keyword("MulliganPartition")
PROVIDER = SearchAttributeKey.for_keyword("MulliganProvider")
STEP = SearchAttributeKey.for_keyword("MulliganStep")
OUTCOME = SearchAttributeKey.for_keyword("MulliganOutcome")
IMAGE = SearchAttributeKey.for_keyword("MulliganImage")

ALL = (PROJECT, MACHINE, PARTITION, PROVIDER, STEP, OUTCOME, IMAGE)
"""Every attribute, in the order in which they are shown."""


def started(
    *, project: str = "", machine: str = "", partition: str = "", provider: str = "", step: str = "", image: str = ""
) -> TypedSearchAttributes:
    """What is known of a run when it is started. What is empty is left out."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(key, value)
            for key, value in (
                (PROJECT, project),
                (MACHINE, machine),
                (PARTITION, partition),
                (PROVIDER, provider),
                (STEP, step),
                (IMAGE, image),
            )
            if value
        ]
    )


def upsert(*, step: str = "", provider: str = "", outcome: Outcome | None = None) -> None:
    """To be called by a workflow: what changed. What is empty, or is so already, adds no event to the history."""
    known = workflow.info().typed_search_attributes
    wanted = ((STEP, step), (PROVIDER, provider), (OUTCOME, outcome.value if outcome is not None else ""))
    changes = [key.value_set(value) for key, value in wanted if value and known.get(key) != value]
    if changes:
        workflow.upsert_search_attributes(changes)
