"""Follows what a guest writes to its serial port, and notices when it falls silent.

One long time limit cannot tell a slow guest from a dead one. Silence can: every step of an install and a boot
writes something, so no new byte for two minutes is a stall, however long the whole may take.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.verify.clock import Clock
from builder.verify.report import StepFailed

POLL = 0.2  # seconds between two looks at the log
SCREEN_LINES = 25

# ECMA-48: cursor positioning starts another line of the screen, everything else is decoration.
_POSITION = re.compile(r"\x1b\[[0-9;]*[Hf]")
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences: colours, erasing
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # operating system commands: titles, systemd's OSC context
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # device control and other strings
    r"|\x1b[ -/]*[0-~]"  # all other escapes
)
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]{0,512}\x1b?|[ -/]*)?|\r)\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")

# What a guest says when it will get no further by itself; waiting for the stall would only cost time.
FATAL: Mapping[str, re.Pattern[str]] = {
    "the kernel panicked": re.compile(r"Kernel panic - not syncing(?!: IO-APIC)"),  # see vm.STARVED
    "the system went into emergency mode": re.compile(r"You are in emergency mode|Entering emergency mode"),
    # Our failed.sh, after the logs; where it cannot run, subiquity 24.04.4.1 and 26.04.1, client/client.py
    "Ubuntu's installer failed": re.compile(
        r"builder: the install failed|An error occurred\. Press enter to start a shell"
    ),
    "Ubuntu's installer waits for a person": re.compile(r"Confirmation is required to continue\."),
}


def clean(text: str) -> str:
    """Serial output as plain lines: escape sequences and control characters gone, every line ended by LF."""
    text = _SEQUENCE.sub("", _POSITION.sub("\n", text))
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


@dataclass(frozen=True)
class Line:
    """A line of output and when (seconds of the clock) its end was read."""

    at: float
    text: str


@dataclass(frozen=True)
class Seen:
    """Which pattern was met, in which line."""

    name: str
    line: Line
    match: re.Match[str]


class SerialLog:
    """The log of one machine. ``ended`` says None while the machine runs, else how it ended."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        ended: Callable[[], str | None],
        on_line: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.path = path
        self.lines: list[Line] = []
        self.total = 0  # bytes read
        self._clock = clock
        self._ended = ended
        self._on_line = on_line
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._raw = ""  # an escape sequence that is still being written
        self._partial = ""  # a line that is still being written
        self._next = 0  # first line that no wait_for has looked at
        self._grew_at = clock.now()

    def read(self) -> bool:
        """Take in what is new in the file; True if there was anything."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.total)
                data = file.read()
        except FileNotFoundError:
            return False
        if not data:
            return False
        self.total += len(data)
        self._grew_at = self._clock.now()
        text = self._raw + self._decode(data)
        unfinished = _UNFINISHED.search(text)
        cut = len(text) if unfinished is None else unfinished.start()
        self._raw = text[cut:]
        *whole, self._partial = (self._partial + clean(text[:cut])).split("\n")
        for line in whole:
            self._add(line)
        return True

    def wait_for(
        self,
        patterns: Mapping[str, re.Pattern[str]],
        *,
        stall: float,
        limit: float,
        fatal: Mapping[str, re.Pattern[str]] = FATAL,
    ) -> Seen:
        """Wait for the first line that one of ``patterns`` is found in; later calls go on after that line.

        Raises StepFailed when a line matches ``fatal``, nothing new came for ``stall`` seconds, ``limit``
        seconds have passed, or the machine ended; its evidence is the last screen.
        """
        began = self._clock.now()
        self._grew_at = max(self._grew_at, began)
        while True:
            ended = self._ended()  # asked before the reading, so that its last words are read
            self.read()
            if ended is not None:
                self._flush()
            seen = self._look(patterns, fatal)
            if seen is not None:
                return seen
            wanted = " or ".join(patterns)
            if ended is not None:
                raise self._failed(f"{ended} before {wanted} was seen")
            now = self._clock.now()
            if now - self._grew_at > stall:
                raise self._failed(self._stalled(now - self._grew_at, wanted))
            if now - began > limit:
                raise self._failed(f"no {wanted} within {limit:.0f} s")
            self._clock.sleep(POLL)

    def settle(self, *, quiet: float, limit: float) -> None:
        """Read on until ``quiet`` seconds brought nothing, the machine ended, or ``limit`` seconds passed."""
        began = self._clock.now()
        self._grew_at = max(self._grew_at, began)
        while True:
            ended = self._ended()
            self.read()
            now = self._clock.now()
            if ended is not None or now - self._grew_at > quiet or now - began > limit:
                self._flush()
                return
            self._clock.sleep(POLL)

    def screen(self, count: int = SCREEN_LINES) -> str:
        """The last ``count`` lines that are not blank, the unfinished one included."""
        recent = [line.text for line in self.lines[-4 * count :]] + [self._partial]
        return "\n".join([text.rstrip() for text in recent if text.strip()][-count:])

    def _look(self, patterns: Mapping[str, re.Pattern[str]], fatal: Mapping[str, re.Pattern[str]]) -> Seen | None:
        while self._next < len(self.lines):
            line = self.lines[self._next]
            self._next += 1
            for name, pattern in patterns.items():
                match = pattern.search(line.text)
                if match is not None:
                    return Seen(name, line, match)
            for reason, pattern in fatal.items():
                if pattern.search(line.text) is not None:
                    self.settle(quiet=2.0, limit=10.0)
                    raise self._failed(f"{reason}: {line.text.strip()}")
        return None

    def _add(self, text: str) -> None:
        self.lines.append(Line(self._clock.now(), text))
        self._on_line(text)

    def _flush(self) -> None:
        """Nothing more will come for now: an unfinished line counts as a line."""
        rest, self._partial, self._raw = self._partial, "", ""
        if rest:
            self._add(rest)

    def _stalled(self, silent: float, wanted: str) -> str:
        if self.total == 0:
            return (
                f"stalled: not one byte on the serial port in {silent:.0f} s, waiting for {wanted} "
                "(is ttyS0 a console of this guest?)"
            )
        return f"stalled: no output on the serial port for {silent:.0f} s, waiting for {wanted}"

    def _failed(self, reason: str) -> StepFailed:
        return StepFailed(reason, self.screen())
