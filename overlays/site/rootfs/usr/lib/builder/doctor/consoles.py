"""Lines on every active console, as builder-ready writes them."""

from __future__ import annotations

import sys
from pathlib import Path


def announce(line: str, root: Path = Path("/")) -> None:
    """Write to every active console; one that cannot be written must not hide the others."""
    try:
        names = (root / "sys/class/tty/console/active").read_text().split()
    except OSError:
        names = []
    for name in names:
        try:
            # The leading newline parts our line from whatever a login prompt left unfinished.
            (root / "dev" / name).write_text(f"\n{line}\n")
        except OSError as error:
            print(f"{name}: {error}", file=sys.stderr)
