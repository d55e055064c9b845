"""The node's own tools as a node has them: the site's overlay with those of the engines laid over it."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

OVERLAYS = Path(__file__).parents[1] / "overlays"
_LIB = "usr/lib/builder"


def module(name: str) -> ModuleType:
    """A module of ``doctor``, imported from where it lies in the repository."""
    site = str(OVERLAYS / "site/rootfs" / _LIB)
    if site not in sys.path:
        sys.path.insert(0, site)
        engines = importlib.import_module("doctor.engines")
        engines.__path__.extend(str(path) for path in OVERLAYS.glob(f"engine-*/rootfs/{_LIB}/doctor/engines"))
    return importlib.import_module(f"doctor.{name}")


def lay_out(root: Path, *engines: str) -> Path:
    """The folder ``usr`` of a node with these engines, made below ``root``."""
    for overlay in ("site", *(f"engine-{name}" for name in engines)):
        shutil.copytree(OVERLAYS / overlay / "rootfs/usr", root / "usr", dirs_exist_ok=True)
    return root / "usr"
