"""What a machine's words and its leaving prove; the same for one node alone and for each node of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from builder.verify import console
from builder.verify.report import StepFailed
from builder.verify.serial import Seen, SerialLog

INSTALL_LINES = {"builder-installed": console.INSTALLED, "builder-failed": console.FAILED}
READY_LINES = {"builder-ready": console.READY, "builder-not-ready": console.NOT_READY}

_BLOCK_QUIET, _BLOCK_LIMIT = 5.0, 60.0  # seconds: the YAML block that follows builder-failed
_EXIT_REASON = {"reboot": "guest-reset", "poweroff": "guest-shutdown"}


@contextlib.contextmanager
def of(name: str) -> Iterator[None]:
    """Put a node's name before what fails in the block."""
    try:
        yield
    except StepFailed as failed:
        raise StepFailed(f"{name}: {failed.reason}", failed.evidence) from failed


def installed(seen: Seen, serial: SerialLog, node: str, plan: str) -> str:
    """Its line, if it installed this node of this plan. Raises StepFailed."""
    if seen.name == "builder-failed":
        raise StepFailed(f"the installer failed: {seen.match.group(0)}", refusal(serial))
    if seen.match.groups() != (node, plan):
        name, other = seen.match.groups()
        raise StepFailed(f"it installed node {name} of plan {other}, not {node} of {plan}", serial.screen())
    return seen.line.text.strip()


def refusal(serial: SerialLog) -> str:
    """The whole screen of an installer that failed, with the YAML block that follows."""
    serial.settle(quiet=_BLOCK_QUIET, limit=_BLOCK_LIMIT)
    return serial.screen(60)


def ready(seen: Seen, serial: SerialLog, plan: str) -> str:
    """Its line, if it is ready and of this plan. Raises StepFailed."""
    if seen.name == "builder-not-ready":
        raise StepFailed(f"the node is not ready: {seen.match.group(2)}", serial.screen())
    if seen.match.group(1) != plan:
        raise StepFailed(f"the node carries plan {seen.match.group(1)}, the medium {plan}", serial.screen())
    return seen.line.text.strip()


def left(reason: str | None, how: str, serial: SerialLog, *, why: str) -> str:
    """What to say of a machine that left as it should: ``how`` is "reboot" or "poweroff". Raises StepFailed."""
    if reason != _EXIT_REASON[how]:
        raise StepFailed(f"{why}: a {how} was wanted, QEMU saw {reason}", serial.screen())
    return f"{why}: {reason}"
