"""Who is told how an install goes: nobody, here, for one that a person began with a medium in hand.

:mod:`beacon` has the same shape for a server. It is apart since HTTP takes long to load on a slow machine.
"""

from __future__ import annotations


class Nobody:
    """``order``: what asked for this install, empty for a person."""

    order = ""

    def start(self) -> None:
        """Begin to tell."""

    def stop(self) -> None:
        """Tell nothing more by itself."""

    def phase(self, phase: str, line: str) -> None:
        """A phase began, or something worth a line happened in it."""

    def progress(self, phase: str, done: int, total: int) -> None:
        """How far the phase is, in bytes."""

    def ask_to_write(self, node: str, disk: str) -> None:
        """Raises InstallError if the disk may not be written any more."""

    def hand_over(self, phase: str, line: str) -> None:
        """Somebody else goes on now, of whom nothing is heard until the next program of ours."""

    def installed(self, node: str, line: str) -> bool:
        """Whether who ordered the install knows by now that it is complete."""
        return True

    def failed(self, phase: str, reason: str, touched: str) -> None:
        """The install cannot go on; ``touched`` is the disk that is no longer what it was."""
