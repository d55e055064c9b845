"""The lines on a console that a boot test reads: those of our installer and node, and a few of Linux."""

from __future__ import annotations

import re

# Ours: one event a line (see docs/design.md). PLAN is 64 hex digits, so no unit's name can be taken for one.
INSTALLED = re.compile(r"builder-installed (\S+) ([0-9a-f]{64})")
FAILED = re.compile(r"builder-failed ([a-z]+): (.*)")
READY = re.compile(r"builder-ready ([0-9a-f]{64})")
NOT_READY = re.compile(r"builder-not-ready ([0-9a-f]{64}): (.*)")
PHASE = re.compile(r"builder: ([a-z]+): ")

# Linux and systemd: where the firmware ended and where user space began.
KERNEL = re.compile(r"Linux version |^\[ +0\.0+\] |EFI stub: ")
USER_SPACE = re.compile(r"systemd\[1\]: systemd .* running in system mode|Welcome to ")


def worth_saying(line: str) -> bool:
    """Whether a line is one of ours, to be shown as progress."""
    return PHASE.search(line) is not None or line.lstrip().startswith("builder-")
