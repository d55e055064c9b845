"""A figure: what was measured, against what, within which limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """``ours`` and ``reference`` in seconds; ``limit`` is what ``ours`` may be, in words and in seconds."""

    what: str
    ours: float
    reference_is: str
    reference: float
    limit_is: str
    limit: float

    def row(self) -> str:
        verdict = "within" if self.ours <= self.limit else "OVER"
        return (
            f"{self.what:36} {self.ours:7.1f} s   {self.reference_is}: {self.reference:.1f} s, "
            f"ratio {self.ours / max(self.reference, 1e-6):.2f}   {verdict} {self.limit_is} = {self.limit:.1f} s"
        )


def seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began
