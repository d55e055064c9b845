"""The one place that starts processes on the node."""

from __future__ import annotations

import os
import subprocess
from typing import NamedTuple

MISSING = 127
TIMED_OUT = 124


class Done(NamedTuple):
    rc: int
    out: str
    err: str


def run(*argv: str, timeout: float = 20) -> Done:
    """Run a program to its end, at most ``timeout`` seconds; a missing program is rc 127, a slow one 124."""
    environment = {
        **os.environ,
        "LC_ALL": "C.UTF-8",
        "SYSTEMD_COLORS": "0",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    try:
        done = subprocess.run(
            argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout, check=False, env=environment
        )
    except FileNotFoundError:
        return Done(MISSING, "", f"{argv[0]} is not installed")
    except PermissionError as error:
        return Done(126, "", f"{argv[0]}: {error.strerror}")
    except subprocess.TimeoutExpired:
        return Done(TIMED_OUT, "", f"{argv[0]} did not end within {timeout:.0f} s")
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
