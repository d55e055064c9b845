"""What is run on the live system when an install fails, by a real shell."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from builder import resources

pytestmark = pytest.mark.tools
SCRIPT = resources.root() / "templates/live/failed.sh"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with a screen and a serial console, on which an install has failed."""
    for folder in ("sys/class/tty/console", "dev", "run", "var/log/installer"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/class/tty/console/active").write_text("tty0 ttyS0\n")
    lines = "".join(f"line {number}\n" for number in range(200))
    (tmp_path / "var/log/installer/curtin-install.log").write_text(f"{lines}%s \\n is text\nthe end\n")
    return tmp_path


def test_the_end_of_the_logs_is_on_every_console(root: Path) -> None:
    done = subprocess.run(["sh", SCRIPT, root, "0"], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
    assert not (root / "dev/tty0").exists()
    screen, serial = ((root / "dev" / name).read_text() for name in ("tty1", "ttyS0"))
    assert screen == serial
    assert "builder: the install failed" in screen
    assert "line 199\n%s \\n is text\nthe end\n" in screen
    assert "line 100\n" not in screen
    assert "subiquity-server-debug.log" not in screen


def test_a_console_that_cannot_be_written_does_not_hide_the_others(root: Path) -> None:
    (root / "dev/tty1").mkdir()
    subprocess.run(["sh", SCRIPT, root, "0"], capture_output=True, check=True, timeout=60)
    assert "the end\n" in (root / "dev/ttyS0").read_text()


def test_somebody_who_looks_keeps_the_power_on(root: Path) -> None:
    (root / "run/builder-stay").touch()
    with subprocess.Popen(["sh", SCRIPT, root, "0"], start_new_session=True) as process:
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
