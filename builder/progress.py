"""Progress of many downloads at once: a bar for the whole, and one for each large file that is on its way.

Bars appear on a terminal only.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

LARGE = 16 << 20  # bytes; a smaller file is here before anyone can read its bar


class Bars:
    """The bar of the whole on the first line, and ``lines`` more for files."""

    def __init__(self, title: str, total: int, lines: int) -> None:
        self._lock = threading.Lock()
        self._free = list(range(1, lines + 1))
        self._whole = self._bar(title, total, 0, shown=True)

    def _bar(self, title: str, total: int | None, line: int, *, shown: bool) -> tqdm[Any]:
        return tqdm(
            total=total,
            desc=f"  {title}",
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            file=sys.stderr,
            position=line,
            leave=False,
            disable=not (shown and sys.stderr.isatty()),
        )

    @contextlib.contextmanager
    def file(self, name: str, size: int | None, *, counts: bool = True) -> Iterator[Callable[[int], None]]:
        """A line for one file of ``size`` bytes; yields the function that is told how many bytes are done.

        With ``counts`` they are bytes of the whole as well. At most ``lines`` files may be shown at once.
        """
        with self._lock:
            line = self._free.pop(0)
            own = self._bar(name, size, line, shown=size is None or size >= LARGE)
        done = 0

        def at(now: int) -> None:
            nonlocal done
            with self._lock:
                own.update(now - done)
                if counts:
                    self._whole.update(now - done)
                done = now

        try:
            yield at
        finally:
            with self._lock:
                own.close()
                self._free = sorted([*self._free, line])

    def close(self) -> None:
        self._whole.close()
