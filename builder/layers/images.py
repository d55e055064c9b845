"""The images layer: an OCI archive of every container image, for the node to load without a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder import console
from builder.cache import Cache
from builder.containers import archive
from builder.containers.manifest import LockedImage
from builder.files import need_room
from builder.layers import squashfs
from builder.plan import Layer, Plan
from builder.run import run

FOLDER = "usr/share/builder/images"


def make(plan: Plan, layer: Layer, cache: Cache) -> Path:
    """The images layer's squashfs, from the cache if it is there; the images' blobs are in the cache."""
    made = cache.product("images", layer.digest) / layer.file
    if made.exists():
        return made
    size = sum(image.size for image in plan.images)
    title = f"images layer: {len(plan.images)} images, {console.human(size)}"
    with console.step(title), cache.scratch("images") as work, cache.make("images", layer.digest) as part:
        need_room(work, size, step="the images layer")
        folder = work / "tree" / FOLDER
        folder.mkdir(parents=True)
        for image in plan.images:
            archive.write(image, folder / file_name(image), plan.epoch, cache)
        (folder / "images.json").write_text(json.dumps([entry(image) for image in plan.images], indent=1) + "\n")
        squashfs.date(work / "tree", plan.epoch)
        run(squashfs.from_tree(work / "tree", part / layer.file), step=title, env=squashfs.environment(plan.epoch))
    return made


def entry(image: LockedImage) -> Mapping[str, Any]:
    """What the node's loader needs to know."""
    return {"name": image.name, "archive": file_name(image), "id": image.id}


def file_name(image: LockedImage) -> str:
    """The archive's name. By the image's: one image under two names is two archives, each loaded under its own."""
    name = "".join(char if char.isalnum() or char in ".-" else "_" for char in image.name)
    return f"{name}.tar"
