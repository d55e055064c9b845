"""What people and the test harness see: one line an event, on every console of the machine and in the log.

The lines are ``builder: <phase>: <detail>``, and at the end ``builder-installed <node> <plan id>`` or
``builder-failed <phase>: <reason>``.
"""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from .model import human

ACTIVE = Path("/sys/class/tty/console/active")
LOG = Path("/run/builder/install.log")
EVERY = 2.0  # seconds between two progress lines


def active_ttys(active: Path = ACTIVE) -> tuple[Path, ...]:
    """The devices of the kernel's consoles. tty0 is whichever screen is shown, so tty1, the first, stands
    for it: a shell needs a terminal that stays the same."""
    try:
        names = active.read_text().split()
    except OSError:
        return ()
    return tuple(Path("/dev") / ("tty1" if name == "tty0" else name) for name in names)


def _nobody(*_news: object) -> None:
    """Nobody listens."""


class Console:
    """Writes lines to the consoles and the log; ``phase`` is the step that a failure is reported for.

    ``on_phase`` and ``on_progress`` are told the same.
    """

    def __init__(
        self,
        ttys: tuple[Path, ...],
        log: Path = LOG,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = "start"
        self.ttys = ttys
        self.log_path = log
        self._clock = clock
        self._last = -EVERY
        self._broken: set[Path] = set()
        self.on_phase: Callable[[str, str], None] = _nobody
        self.on_progress: Callable[[str, int, int], None] = _nobody
        log.parent.mkdir(parents=True, exist_ok=True)

    def step(self, phase: str, detail: str) -> None:
        """A phase begins, or something worth a line happened in it."""
        self.phase = phase
        self.say(f"builder: {phase}: {detail}")
        self.on_phase(phase, detail)

    def progress(self, done: int, total: int, what: str = "") -> None:
        """How far the phase is, in bytes; at most one line every two seconds."""
        now = self._clock()
        if now - self._last < EVERY:
            return
        self._last = now
        self.on_progress(self.phase, done, total)
        percent = 100 * done // total if total else 100
        self.say(f"builder: {self.phase}: {percent} % of {human(total)}{' ' + what if what else ''}")

    def say(self, text: str) -> None:
        """Print lines as they are."""
        self.log(text)
        data = (text + "\n").encode()
        if not self.ttys:
            sys.stderr.write(text + "\n")
        for tty in self.ttys:
            if tty not in self._broken and not _write(tty, data):
                # A console= that names a port which is not there: EIO for ever, and no reason to stop.
                self._broken.add(tty)

    def log(self, text: str) -> None:
        """Append to the log only; a full /run must not stop an install."""
        with contextlib.suppress(OSError), self.log_path.open("a", encoding="utf-8") as file:
            file.write("".join(f"[{self._clock():9.2f}] {line}\n" for line in text.splitlines()))


def _write(tty: Path, data: bytes) -> bool:
    try:
        fd = os.open(tty, os.O_WRONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        terminal = os.isatty(fd)
        if terminal and not termios.tcgetattr(fd)[1] & termios.OPOST:
            data = data.replace(b"\n", b"\r\n")  # another program has made it raw; it moves to no new column
        while data:
            data = data[os.write(fd, data) :]
        if terminal:
            termios.tcdrain(fd)  # a reboot must not cut the last lines off a slow serial line
    except (OSError, termios.error):
        return False
    finally:
        os.close(fd)
    return True
