"""The registry of images: names for immutable bytes. The bytes themselves are kept by the image store."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select

from mulligan.activities.errors import AlreadyExists, Conflict
from mulligan.activities.inventory.database import insert_if_new, now
from mulligan.activities.inventory.names import differing_fields, not_found
from mulligan.activities.inventory.tables import FINAL, images, machines
from mulligan.activities.values import Image

NAMED = 5
"""So many machines that keep an image from being removed are named."""


def add(connection: Connection, image: Image) -> Image:
    """Add an image; an equal one that is there already is success."""
    values = {"name": image.name, "image": image, "created_at": now()}
    if insert_if_new(connection, images, values):
        return image
    known = get(connection, image.name)
    differing = differing_fields(known, image)
    if differing:
        raise AlreadyExists(
            f"image {image.name!r} exists and differs in {', '.join(differing)}; images never change: "
            "choose another name, or remove that one first",
            differing=differing,
            image=image.name,
        )
    return known


def get(connection: Connection, name: str) -> Image:
    """The image, or `NotFound`."""
    found: Image | None = connection.execute(select(images.c.image).where(images.c.name == name)).scalar()
    if found is None:
        raise not_found(connection, "image", name, images.c.name)
    return found


def every(connection: Connection) -> list[Image]:
    """All images by name."""
    return list(connection.execute(select(images.c.image).order_by(images.c.name)).scalars())


def _used(image: str, by: list[tuple[str, str]]) -> Conflict:
    """The first of the machines are named, and the first command takes one of them down."""
    names = ", ".join(f"{machine} of project {project}" for project, machine in by[:NAMED])
    more = f" and {len(by) - NAMED} more" if len(by) > NAMED else ""
    project, machine = by[0]
    return Conflict(
        f"image {image!r} is used by {len(by)} machine{'s' if len(by) > 1 else ''}: {names}{more}; release "
        f"{'them' if len(by) > 1 else 'it'} first",
        image=image,
        machines=len(by),
        remedy=f"mulligan machine release {machine} --project {project}",
    )


def remove(connection: Connection, name: str) -> None:
    """Remove an image from the registry, unless a live machine runs it."""
    get(connection, name)
    using = (machines.c.image_name == name) & machines.c.state.not_in(FINAL)
    by = [machines.c.project, machines.c.name]
    found = connection.execute(select(*by).where(using).order_by(*by)).all()
    if found:
        raise _used(name, [(row.project, row.name) for row in found])
    connection.execute(delete(images).where(images.c.name == name))
