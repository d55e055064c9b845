"""The installer's runner, and its shell on a console, with real processes."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from builder import run as host
from builder.installer import commands
from builder.installer.model import InstallError

pytestmark = pytest.mark.tools
ROOT = Path(__file__).parents[2]


def test_output_is_returned_and_logged() -> None:
    log: list[str] = []
    assert commands.run(["cat"], step="reading", stdin="one\ntwo\n", log=log.append) == "one\ntwo\n"
    assert log == ["$ cat", "one\ntwo"]


def test_a_failure_quotes_the_last_lines() -> None:
    with pytest.raises(InstallError) as caught:
        commands.run(["ls", "/missing-a", "/missing-b"], step="looking")
    assert caught.value.reason.startswith("looking: ls exited 2: ls: cannot access '/missing-b'")
    assert caught.value.details[0] == "$ ls /missing-a /missing-b"
    assert len(caught.value.details) == 3


def test_a_missing_program() -> None:
    with pytest.raises(InstallError, match="looking: cannot start no-such-program: No such file"):
        commands.run(["no-such-program"], step="looking")


def test_a_running_command_is_polled_and_large_output_does_not_block() -> None:
    pids: list[int] = []
    text = commands.run(
        ["dd", "if=/dev/zero", "bs=1M", "count=20", "status=none"],
        step="reading",
        poll=pids.append,
        poll_every=0.002,
    )
    assert len(text) == 20 << 20
    assert len(set(pids)) == 1


def test_enter_gives_a_shell_and_another_one_when_it_ends(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    code = f"""
from pathlib import Path
from builder.installer import console, shell
shell.wait_forever(console.Console((Path({os.ttyname(slave)!r}),), Path({str(tmp_path / "log")!r})))
"""
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + 30
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 4096).decode()
        seen = seen.partition(text)[2]

    with host.start([sys.executable, "-c", code], step="a shell", cwd=ROOT) as process:
        until("Press Enter for a shell.")
        for _ in range(2):
            os.write(master, b"\n")
            until("# ")
            os.write(master, b"echo answer $((40 + 2)); exit\n")
            until("answer 42")
            until("press Enter for another")
        process.terminate()
