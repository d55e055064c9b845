"""The end of the road: the machine stays as it is, and Enter on any console gives a shell.

It never returns and never reboots: a node that cannot be installed must not try again and again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import termios
from pathlib import Path

from . import commands
from .console import Console


def wait_forever(console: Console, *, at_once: bool = False) -> None:
    """Offer a shell on each console; ``at_once`` opens them without asking."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    terminals = {fd: tty for tty in console.ttys if (fd := _open(tty)) is not None}
    shells: dict[int, subprocess.Popen[bytes]] = {}
    if at_once:
        shells = {fd: _shell(fd) for fd in terminals}
    else:
        console.say("Press Enter for a shell. Nothing else happens from here on.")
    while terminals:
        idle = [fd for fd in terminals if fd not in shells]
        readable, _, _ = select.select(idle, [], [], 1.0)
        for fd in readable:
            if os.read(fd, 256):
                shells[fd] = _shell(fd)
            else:  # hung up: it would be readable for ever
                terminals.pop(fd)
        for fd, shell in list(shells.items()):
            if shell.poll() is not None:
                shells.pop(fd)
                with contextlib.suppress(OSError):
                    os.write(fd, b"The shell has ended; press Enter for another.\n")
    while True:
        signal.pause()


def _open(tty: Path) -> int | None:
    try:
        fd = os.open(tty, os.O_RDWR | os.O_NOCTTY)
        termios.tcflush(fd, termios.TCIFLUSH)  # what was typed during the install is not meant for us
        return fd
    except (OSError, termios.error):
        return None


def _shell(fd: int) -> subprocess.Popen[bytes]:
    """A shell of its own session, with the console as its terminal, so that ^C works in it."""

    def take_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 1)

    return subprocess.Popen(
        ["/bin/sh", "-i"],
        stdin=fd,
        stdout=fd,
        stderr=fd,
        env={"PATH": commands.PATH, "TERM": "linux", "HOME": "/root", "PS1": "# "},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
