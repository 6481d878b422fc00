"""The Images service: the registry of images. Handlers convert and call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from mulligan.activities.inventory import By, Inventory, SuspectKind
from mulligan.activities.levers import UNKNOWN
from mulligan.activities.threads import run_blocking
from mulligan.api import validate
from mulligan.api.convert_inventory import image_message, image_value, suspect_message
from mulligan.api.interceptor import Context
from mulligan.api.removals import Removals
from mulligan.api.validate import Faults
from mulligan.api.validate_spec import check_image
from mulligan.v1 import images_pb2 as pb
from mulligan.v1 import images_pb2_grpc


class Images(images_pb2_grpc.ImagesServiceServicer):
    """What machines run."""

    def __init__(self, inventory: Inventory, roots: Sequence[Path], removals: Removals) -> None:
        self._inventory, self._roots, self._removals = inventory, tuple(roots), removals

    async def AddImage(self, request: pb.AddImageRequest, context: Context) -> pb.AddImageResponse:  # noqa: N802
        """Register an image."""
        faults = Faults(request)
        check_image(faults, request.image, self._roots)
        faults.refuse()
        image = await run_blocking(self._inventory.add_image, image_value(request.image))
        return pb.AddImageResponse(image=image_message(image))

    async def GetImage(self, request: pb.GetImageRequest, context: Context) -> pb.GetImageResponse:  # noqa: N802
        """An image."""
        _check_name(request)
        image = await run_blocking(self._inventory.image, request.name)
        suspect = await run_blocking(self._inventory.suspect, SuspectKind.IMAGE, image.digest)
        return pb.GetImageResponse(
            image=image_message(image), suspect=suspect_message(suspect) if suspect is not None else None
        )

    async def ListImages(  # noqa: N802 - the protocol's name
        self, request: pb.ListImagesRequest, context: Context
    ) -> AsyncIterator[pb.ListImagesResponse]:
        """The images, by name."""
        for image in await run_blocking(self._inventory.images):
            yield pb.ListImagesResponse(image=image_message(image))

    async def RemoveImage(  # noqa: N802 - the protocol's name
        self, request: pb.RemoveImageRequest, context: Context
    ) -> pb.RemoveImageResponse:
        """Forget an image, and begin to remove it from the providers."""
        faults = Faults(request)
        faults.image_name("name", request.name)
        validate.words(faults, request.actor, request.reason)
        faults.refuse()
        image = await run_blocking(self._inventory.image, request.name)
        by = By(request.actor or UNKNOWN, request.reason)
        await run_blocking(self._inventory.remove_image, request.name, by)
        await self._removals.spare(image)
        return pb.RemoveImageResponse()


def _check_name(request: pb.GetImageRequest) -> None:
    faults = Faults(request)
    faults.image_name("name", request.name)
    faults.refuse()
