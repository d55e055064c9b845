"""The Python of an engine's part: a virtual environment in the part's root, and what was built from source."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from builder import console, sandbox, venv
from builder.cache import Cache
from builder.engines.kind import HOME, Part
from builder.layers import fromsource
from builder.lock import Lock

# Tests and headers of no use on a node, by the folder's name below the packages.
_SCRATCH = "/mnt/packages"


def fill(part: Part, lock: Lock, root: Path, blobs: Mapping[str, Path], cache: Cache) -> None:
    """Lay the environment out at :data:`HOME` in ``root``, and compile it with the root's own Python.

    ``blobs``: everything of the lock by sha256. Raises BuilderError naming what failed.
    """
    assert part.python is not None
    files = [(w.file, blobs[w.sha256]) for w in lock.wheels if fromsource.is_pinned(w, part.recipe)]
    built = None
    if part.recipe is not None:
        built = fromsource.make(part.recipe, lock, blobs, cache, part.python)
        files += fromsource.built_wheels(built)
    with console.step(f"unpacking {len(files)} Python packages"):
        site = venv.install(files, root, HOME, part.python)
    if built is not None:
        shutil.copytree(built / "home", root / HOME.lstrip("/"), symlinks=True, dirs_exist_ok=True)
    with console.step("compiling the Python packages"):
        argv = venv.compile_argv(_SCRATCH, f"{HOME}/{venv.site_of(part.python)}", part.python)
        # Some packages ship files that are no valid Python (templates, tests of syntax errors); nobody imports
        # them.
        sandbox.inside(root, argv, step="compiling", binds={_SCRATCH.rpartition("/")[2]: site}, check=False)
