"""The site layer: what the spec renders, over the base. No root and no chroot: only files, then the checks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from builder import checks, console, render
from builder.cache import Cache
from builder.layers import squashfs
from builder.plan import Plan
from builder.run import run


def make(plan: Plan, base: Path, cache: Cache) -> Path:
    """The site layer's squashfs, from the cache if it is there; checked inside the base before it is used.

    Raises BuilderError naming the rendered file that its own program refuses.
    """
    (layer,) = (layer for layer in plan.layers if layer.name == "site")
    made = cache.product("site", layer.digest) / layer.file
    if not made.exists():
        with console.step("site layer: firewall, units, accounts"), cache.make("site", layer.digest) as part:
            pack(plan.site, part / layer.file, plan.epoch)
    checks.require_sound(plan, base, cache)
    return made


def pack(files: Sequence[render.File], target: Path, epoch: int) -> None:
    """Make a squashfs of rendered files, owned by root, all dated ``epoch``."""
    with tempfile.TemporaryDirectory(prefix="builder-site-") as folder:
        tree = Path(folder) / "tree"
        for file in files:
            render.write(file, tree)
        squashfs.date(tree, epoch)
        run(squashfs.from_tree(tree, target), step="the site layer", env=squashfs.environment(epoch))
