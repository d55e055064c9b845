"""What the console shows when an install cannot go on: why, and what the machine is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from . import facts, report
from .console import Console
from .model import Disk, InstallError, Machine


def say(console: Console, error: Exception, touched: str = "") -> None:
    """``builder-failed PHASE: reason`` with its details; ``touched`` is the disk that is no longer what it was."""
    details = error.details if isinstance(error, InstallError) else _trace(error)
    suffix = f" (the disk {touched} was already being written)" if touched else ""
    console.say(f"builder-failed {console.phase}: {reason(error)}{suffix}")
    for line in details:
        console.say(f"  | {line}")
    if not touched:
        console.say("Nothing was written to any disk.")


def reason(error: Exception) -> str:
    """Why, on one line."""
    if isinstance(error, InstallError):
        return error.reason
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"


def machine(console: Console) -> str:
    """The machine as YAML; what cannot be read is left out, since a failure must still be reported."""
    found = Machine()
    disks: tuple[Disk, ...] = ()
    with suppress(Exception):
        found = facts.read_machine()
    with suppress(Exception):
        disks = facts.read_disks(console.log)
    return report.report(found, disks)


def _trace(error: Exception) -> tuple[str, ...]:
    """The innermost calls of an error, without the traceback module, which is slow to load under TCG."""
    lines = []
    step = error.__traceback__
    while step:
        code = step.tb_frame.f_code
        lines.append(f"{Path(code.co_filename).name}:{step.tb_lineno} in {code.co_name}")
        step = step.tb_next
    return tuple(lines[-8:])
