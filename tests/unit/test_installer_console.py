"""What appears on the consoles, on real pseudo-terminals."""

from __future__ import annotations

import os
import pty
import select
import tty
from pathlib import Path

import pytest

from builder.installer.console import Console, active_ttys


class Terminal:
    """A console whose other end can be read."""

    def __init__(self) -> None:
        self._master, self.slave = pty.openpty()
        self.path = Path(os.ttyname(self.slave))

    def text(self, lines: int) -> str:
        return self.raw(lines).decode().replace("\r\n", "\n")

    def raw(self, lines: int) -> bytes:
        """What was written, once it has that many lines: the kernel hands a terminal's output over in pieces."""
        said = b""
        while said.count(b"\n") < lines and select.select([self._master], [], [], 10)[0]:
            said += os.read(self._master, 65536)
        return said


def test_every_active_console_gets_every_line(tmp_path: Path) -> None:
    terminals = (Terminal(), Terminal())
    # A console= that names a port which is not there must not stop the others.
    paths = (tmp_path / "ttyS9", *(terminal.path for terminal in terminals))
    console = Console(paths, tmp_path / "run/install.log")
    console.step("disk", "/dev/vda")
    console.say("builder-failed disk: no\nmore")
    for terminal in terminals:
        assert terminal.text(3) == "builder: disk: /dev/vda\nbuilder-failed disk: no\nmore\n"
    log = (tmp_path / "run/install.log").read_text().splitlines()
    assert [line.partition("] ")[2] for line in log] == [
        "builder: disk: /dev/vda",
        "builder-failed disk: no",
        "more",
    ]


def test_a_raw_terminal_gets_whole_line_ends(tmp_path: Path) -> None:
    """As the client of subiquity on the same serial line may leave it."""
    terminal = Terminal()
    tty.setraw(terminal.slave)
    Console((terminal.path,), tmp_path / "log").say("one\ntwo")
    assert terminal.raw(2) == b"one\r\ntwo\r\n"


def test_progress_is_at_most_one_line_in_two_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    console = Console((), tmp_path / "log", clock=lambda: now)
    console.phase = "verify"
    for step in range(100):
        now = 100.0 + step / 10
        console.progress(step << 20, 100 << 20)
    assert capsys.readouterr().err.splitlines() == [
        f"builder: verify: {percent} % of 100.0 MiB" for percent in (0, 20, 40, 60, 80)
    ]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").mkdir()
    Console((), tmp_path / "log").say("on")
    assert capsys.readouterr().err == "on\n"


def test_the_kernels_consoles(tmp_path: Path) -> None:
    (tmp_path / "active").write_text("tty0 ttyS0\n")
    assert active_ttys(tmp_path / "active") == (Path("/dev/tty1"), Path("/dev/ttyS0"))
    assert active_ttys(tmp_path / "missing") == ()
