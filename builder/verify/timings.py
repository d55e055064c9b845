"""How long each phase took, read from the lines of the serial log."""

from __future__ import annotations

from collections.abc import Sequence

from builder.verify import console
from builder.verify.report import Timing
from builder.verify.serial import Line


def install_timings(began: float, lines: Sequence[Line], ended: float) -> tuple[Timing, ...]:
    """firmware, kernel, one entry for each ``builder: PHASE:`` of the installer, and the way down.

    The times are when the harness read a line, so they are good to its polling interval (0.2 s).
    """
    marks = [("firmware", began)]
    for line in lines:
        phase = console.PHASE.search(line.text)
        if console.KERNEL.search(line.text):
            _mark(marks, "kernel", line.at, once=True)
        elif phase is not None:
            _mark(marks, f"install {phase.group(1)}", line.at)
        elif console.INSTALLED.search(line.text) or console.FAILED.search(line.text):
            _mark(marks, "shutdown", line.at, once=True)
    return _spans(marks, ended)


def boot_timings(began: float, lines: Sequence[Line], ended: float) -> tuple[Timing, ...]:
    """firmware, kernel and user space of a boot, up to the line in which the node says that it is ready."""
    marks = [("boot firmware", began)]
    for line in lines:
        if console.KERNEL.search(line.text):
            _mark(marks, "boot kernel", line.at, once=True)
        elif console.USER_SPACE.search(line.text):
            _mark(marks, "boot services", line.at, once=True)
        elif console.READY.search(line.text) or console.NOT_READY.search(line.text):
            _mark(marks, "checks and power-off", line.at, once=True)
    return _spans(marks, ended)


def _mark(marks: list[tuple[str, float]], name: str, at: float, *, once: bool = False) -> None:
    """Start a phase unless it is the one that runs, or (``once``) has been."""
    if marks[-1][0] != name and not (once and any(name == seen for seen, _ in marks)):
        marks.append((name, at))


def _spans(marks: Sequence[tuple[str, float]], ended: float) -> tuple[Timing, ...]:
    ends = [at for _, at in marks[1:]] + [ended]
    return tuple(Timing(name, round(end - at, 3)) for (name, at), end in zip(marks, ends, strict=True))
