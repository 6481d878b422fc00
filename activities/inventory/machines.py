"""Machines: what users get, named within a project; a name is free again when its machine was released or failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, bindparam, func, select, tuple_, update

from mulligan.activities.errors import AlreadyExists, Busy, Conflict, NotFound
from mulligan.activities.inventory.database import insert_if_new, now
from mulligan.activities.inventory.machine import Machine
from mulligan.activities.inventory.names import differing_fields, not_found
from mulligan.activities.inventory.tables import BEING_MADE, FINAL, LIVE_CLAIM, NOT_FINAL, UNSETTLED, claims, machines
from mulligan.activities.values import MachineState

ABANDONED = "its run ended without recording how, while nothing was claimed for it: nothing of it is left"
_FIELDS = tuple(column for column in machines.c if column.name != "image_name")
_NEWEST = (machines.c.state.in_(FINAL), machines.c.created_at.desc(), machines.c.id.desc())
"""Of the machines that had one name: the live one first, then the newest."""

# Made once: building one costs more than SQLite takes to answer it, and every request and run asks both.
_BY_ID = select(*_FIELDS).where(machines.c.id == bindparam("machine_id"))
_BY_NAME = (
    select(*_FIELDS)
    .where(machines.c.project == bindparam("of_project"), machines.c.name == bindparam("called"))
    .order_by(*_NEWEST)
    .limit(1)
)


def begin(connection: Connection, machine: Machine) -> Machine:
    """Record a new machine; see `Inventory.begin_machine`."""
    values = {column.name: getattr(machine, column.name) for column in _FIELDS}
    values["created_at"] = machine.created_at or now()
    if insert_if_new(connection, machines, {**values, "image_name": machine.image.name}):
        return by_id(connection, machine.id)
    known = _first(connection, _BY_ID, machine_id=machine.id)
    if known is not None:
        return known
    other = by_name(connection, machine.project, machine.name)
    if other.state in FINAL:
        message = f"machine {machine.name!r}: its name became free just now; it will be tried again"
        raise Busy(message, project=machine.project, machine=machine.name)
    differing = differing_fields(other.request, machine.request)
    said = f"and differs in {', '.join(differing)}" if differing else "from the same request"
    raise AlreadyExists(
        f"machine {machine.name!r} of project {machine.project!r} is {other.state} already {said}; "
        "release it first, or choose another name",
        differing=differing,
        project=machine.project,
        machine=machine.name,
        machine_id=other.id,
        state=other.state,
    )


def change(connection: Connection, machine_id: str, values: Mapping[str, Any]) -> Machine:
    """Write what has become known of a machine; see `Inventory.update_machine`."""
    old = _locked_state(connection, machine_id)
    new = values.get("state", old)
    if old in FINAL and new not in FINAL:
        raise Conflict(
            f"machine {machine_id!r} is {old} and cannot become {new}; provision it anew",
            machine_id=machine_id,
            state=old,
        )
    if old is MachineState.READY and new in BEING_MADE:
        raise Conflict(f"machine {machine_id!r} is in service; what asks for it as {new} comes too late", state=old)
    if values and not ("state" in values and old in FINAL):
        connection.execute(update(machines).where(machines.c.id == machine_id).values(values))
    return by_id(connection, machine_id)


def abandon(connection: Connection, machine_id: str) -> Machine:
    """Record as gone what a run left behind; see `Inventory.abandon_machine`."""
    state = _locked_state(connection, machine_id)
    holding = select(claims.c.id).where(claims.c.machine_id == machine_id, LIVE_CLAIM).limit(1)
    machine = by_id(connection, machine_id)
    if state not in UNSETTLED or connection.execute(holding).first() is not None:
        return machine
    given_back = state is MachineState.RELEASING and machine.ready_at is not None
    values = {"state": MachineState.RELEASED if given_back else MachineState.FAILED}
    reason = {} if given_back else {"reason": ABANDONED}
    connection.execute(update(machines).where(machines.c.id == machine_id).values({**values, **reason}))
    return by_id(connection, machine_id)


def unsettled(connection: Connection, seconds: int, after: str, limit: int) -> list[Machine]:
    """Machines that were begun at least so many seconds ago and are on their way to or from their users, by id."""
    old = (machines.c.created_at <= now(-seconds)) & machines.c.state.in_(UNSETTLED)
    chosen = select(*_FIELDS).where(old, NOT_FINAL, machines.c.id > after).order_by(machines.c.id).limit(limit)
    return [Machine(**row._mapping) for row in connection.execute(chosen)]


def _locked_state(connection: Connection, machine_id: str) -> MachineState:
    states = select(machines.c.state).where(machines.c.id == machine_id).with_for_update()
    state: MachineState | None = connection.execute(states).scalar()
    if state is None:
        raise NotFound(f"no machine with the id {machine_id!r}: list machines to see what there is")
    return state


def by_id(connection: Connection, machine_id: str) -> Machine:
    """The machine of this id, or `NotFound`."""
    found = _first(connection, _BY_ID, machine_id=machine_id)
    if found is None:
        raise NotFound(f"no machine with the id {machine_id!r}: list machines to see what there is")
    return found


def by_name(connection: Connection, project: str, name: str) -> Machine:
    """The live machine of this name, else the newest that had it, or `NotFound`."""
    found = _first(connection, _BY_NAME, of_project=project, called=name)
    if found is None:
        mine = machines.c.project == project
        raise not_found(connection, "machine", name, machines.c.name, mine)
    return found


def listed(
    connection: Connection,
    project: str,
    partition: str,
    states: Sequence[MachineState],
    *,
    after: tuple[str, str],
    limit: int,
) -> list[Machine]:
    """One machine per name, as `by_name` would give it, in the order of (project, name)."""
    where: Any = tuple_(machines.c.project, machines.c.name) > tuple_(*after)
    if project:
        where = where & (machines.c.project == project)
    chosen = _current(where)
    current = chosen.selected_columns
    if partition:
        chosen = chosen.where(current.partition == partition)
    if states:
        chosen = chosen.where(current.state.in_(states))
    chosen = chosen.order_by(current.project, current.name).limit(limit)
    return [Machine(**row._mapping) for row in connection.execute(chosen)]


def _current(where: Any) -> Select[Any]:
    """Of the machines that had one name, the live one, else the newest."""
    place = func.row_number().over(partition_by=(machines.c.project, machines.c.name), order_by=_NEWEST)
    placed = select(*_FIELDS, place.label("place")).where(where).subquery()
    return select(*(placed.c[column.name] for column in _FIELDS)).where(placed.c.place == 1)


def _first(connection: Connection, chosen: Select[Any], **values: str) -> Machine | None:
    row = connection.execute(chosen, values).first()
    return None if row is None else Machine(**row._mapping)
