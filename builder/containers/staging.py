"""From the spec's images to what a lock pins, and from there to their bytes: the archive, or the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from builder.cache import Cache
from builder.containers import archive, registry
from builder.containers.manifest import LockedImage
from builder.fetch import Item
from builder.spec.model import Image


def pin(image: Image, folder: Path, cache: Cache) -> LockedImage:
    """What an image of the spec is now; ``folder`` is the spec's.

    Raises BuilderError: a registry that refuses or is out of reach (FETCH), an image that cannot be used (SPEC).
    """
    if image.path is not None:
        return archive.identify(folder / image.path, image.ref, image.digest)
    return registry.resolve(image.ref, image.digest, cache)


def obtain(images: Sequence[Image], pins: Sequence[LockedImage], folder: Path, cache: Cache) -> list[Item]:
    """Take what archives hold into the cache; returns what registries have to give, for the fetch door.

    Raises BuilderError (FETCH) if an archive is not what the lock says.
    """
    items: list[Item] = []
    for image, pinned in zip(images, pins, strict=True):
        if image.path is not None:
            archive.take_out(folder / image.path, pinned, cache)
        else:
            items += registry.items(pinned)
    return items
