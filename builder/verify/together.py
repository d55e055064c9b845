"""Several machines watched at once: each has to say its line, and the first that fails or falls silent is told.

What :mod:`builder.verify.serial` is for one log, for many: the same patterns, the same stalls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from builder.verify.clock import Clock
from builder.verify.report import StepFailed
from builder.verify.serial import FATAL, POLL, Seen, SerialLog


class MachineFailed(StepFailed):
    """One of several machines failed: ``machine`` says which."""

    def __init__(self, machine: str, reason: str, evidence: str) -> None:
        super().__init__(f"{machine}: {reason}", evidence)
        self.machine = machine


class Watched(Protocol):
    """A machine: its log, and None or how it ended."""

    @property
    def serial(self) -> SerialLog: ...

    def ended(self) -> str | None: ...


@dataclass
class _Watch:
    name: str
    machine: Watched
    grew_at: float
    total: int = -1
    next: int = 0
    seen: Seen | None = None


def wait_for_all(
    machines: Mapping[str, Watched],
    patterns: Mapping[str, re.Pattern[str]],
    clock: Clock,
    *,
    stall: float,
    limit: float,
    lost: Callable[[], str | None] = lambda: None,
    may_leave: bool = False,
    after: float = 0.0,
) -> dict[str, Seen]:
    """Wait until each machine has said a line that one of ``patterns`` is found in; the first one counts.

    Looks at all that a machine said since its power-on, so a line that came before this call is found, but not one
    from before the time ``after``. A machine that has said its line must run on until all have, unless it
    ``may_leave``.

    Raises MachineFailed, with the machine's screen, for what :meth:`SerialLog.wait_for` tells of one log, and
    StepFailed when ``lost`` says why none of them can get on.
    """
    began = clock.now()
    watches = [_Watch(name, machine, began) for name, machine in machines.items()]
    wanted = " or ".join(patterns)
    while True:
        for watch in watches:
            ended = watch.machine.ended()  # asked before the reading, so that its last words are read
            _read(watch, clock, ended)
            if watch.seen is None:
                watch.seen = _look(watch, patterns, after)
            if ended is not None and watch.seen is None:
                raise _failed(watch, f"{ended} before {wanted} was seen")
            if ended is not None and not may_leave:
                raise _failed(watch, ended)
        if all(watch.seen is not None for watch in watches):
            return {watch.name: watch.seen for watch in watches if watch.seen is not None}
        broken = lost()
        if broken is not None:
            raise StepFailed(broken)
        now = clock.now()
        for watch in (one for one in watches if one.seen is None):
            if now - watch.grew_at > stall:
                silent = f"no output on the serial port for {now - watch.grew_at:.0f} s"
                raise _failed(watch, f"stalled: {silent}, waiting for {wanted}")
            if now - began > limit:
                raise _failed(watch, f"no {wanted} within {limit:.0f} s")
        clock.sleep(POLL)


def _read(watch: _Watch, clock: Clock, ended: str | None) -> None:
    log = watch.machine.serial
    log.read()
    if ended is not None:
        log.settle(quiet=0, limit=0)  # nothing more comes: an unfinished line counts
    if log.total != watch.total:
        watch.total, watch.grew_at = log.total, clock.now()


def _look(watch: _Watch, patterns: Mapping[str, re.Pattern[str]], after: float) -> Seen | None:
    lines = watch.machine.serial.lines
    while watch.next < len(lines):
        line = lines[watch.next]
        watch.next += 1
        if line.at < after:
            continue
        for name, pattern in patterns.items():
            match = pattern.search(line.text)
            if match is not None:
                return Seen(name, line, match)
        for reason, pattern in FATAL.items():
            if pattern.search(line.text) is not None:
                watch.machine.serial.settle(quiet=2.0, limit=10.0)
                raise _failed(watch, f"{reason}: {line.text.strip()}")
    return None


def _failed(watch: _Watch, reason: str) -> MachineFailed:
    return MachineFailed(watch.name, reason, watch.machine.serial.screen())
