"""The installer's only place that starts processes: argument lists, no shell, no standard input.

The initramfs has no builder package, so this is a small standard library twin of builder/run.py.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .model import InstallError

TAIL_LINES = 8
# The full-size programs come first: in an initramfs /usr/bin/mount and others are busybox or klibc.
PATH = "/usr/lib/builder/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENV = {
    "PATH": PATH,
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}

Log = Callable[[str], None]


def quiet(text: str) -> None:
    """A log that keeps nothing."""


def run(
    argv: list[str],
    *,
    step: str,
    stdin: str = "",
    log: Log = quiet,
    poll: Callable[[int], None] | None = None,
    poll_every: float = 0.5,
) -> str:
    """Run a command and return what it printed (stdout, then stderr, are logged).

    ``poll`` is called with the child's pid every ``poll_every`` seconds while it runs.
    Raises InstallError with the last lines that it printed if it is missing or exits non-zero.
    """
    log("$ " + " ".join(argv))
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_ENV
        )
    except OSError as error:
        raise InstallError(f"{step}: cannot start {argv[0]}: {error.strerror}") from error
    data: bytes | None = stdin.encode()
    while True:
        try:
            out, err = process.communicate(data, timeout=poll_every if poll else None)
            break
        except subprocess.TimeoutExpired:
            data = None  # communicate() keeps what is left of it
            if poll:
                poll(process.pid)
        except BaseException:
            process.kill()
            process.wait()
            raise
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    for text in (stdout, stderr):
        if text.strip():
            log(text.rstrip("\n"))
    if process.returncode != 0:
        lines = (stderr.strip() or stdout.strip()).splitlines()
        # mount ends its messages with a line that only points to the kernel's log.
        said = [line for line in lines if line.strip() and "dmesg(1)" not in line][-TAIL_LINES:]
        reason = f"{step}: {argv[0]} exited {process.returncode}"
        if said:
            reason += f": {said[-1].strip()}"
        raise InstallError(reason, ("$ " + " ".join(argv), *said))
    return stdout


def settle(log: Log = quiet) -> None:
    """Wait until udev has handled what happened so far; nothing to wait for where no udevd runs."""
    if Path("/run/udev/control").exists():
        run(["udevadm", "settle", "--timeout=30"], step="waiting for udev", log=log)


def wait_for(condition: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Poll until ``condition`` holds; False after ``seconds`` without."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(every)
    return True
