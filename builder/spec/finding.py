"""A mistake that takes more than one value to see."""

from __future__ import annotations

from dataclasses import dataclass

Keys = tuple[str | int, ...]


@dataclass(frozen=True)
class Finding:
    """A mistake at ``path``; it is certain only if ``path`` and everything in ``rests_on`` could be read."""

    path: Keys
    message: str
    hint: str = ""
    rests_on: tuple[Keys, ...] = ()
