"""Names are digests of everything that matters: canonical JSON, and its SHA-256.

The habit is osbuild's (``pipeline.py``, ``Stage.id``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from builder import resources

PACKAGE = Path(__file__).parent


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, UTF-8, a final newline."""
    return (json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def digest(value: Any) -> str:
    """SHA-256 of :func:`canonical`, as 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


@cache
def code_digest(*names: str) -> str:
    """Digest of our own source files or folders, by path below ``builder/``: code is an input like any other."""
    return _tree_digest(PACKAGE, names, "*.py")


@cache
def resource_digest(*names: str) -> str:
    """Digest of files or folders below :func:`builder.resources.root`, such as ``templates``."""
    return _tree_digest(resources.root(), names, "*")


def _tree_digest(top: Path, names: Iterable[str], pattern: str) -> str:
    found: list[Path] = []
    for name in names:
        path = top / name
        found += sorted(p for p in path.rglob(pattern) if _counts(p)) if path.is_dir() else [path]
    return digest([[str(path.relative_to(top)), hashlib.sha256(path.read_bytes()).hexdigest()] for path in found])


def _counts(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts
