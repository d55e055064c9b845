"""What is run on the live system when an install fails, by a real shell."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from threading import Thread

import pytest

from builder import resources
from builder.verify.serial import FATAL

pytestmark = pytest.mark.tools
SCRIPT = resources.root() / "templates/live/failed.sh"
LOGS = "var/log/installer"
PASSPHRASE = "correct horse battery staple"

# As python3-apport writes it: a short field, a long one, a text file, and one that is none.
CRASH = f"""\
ProblemType: Bug
Title: install failed crashed with CurtinInstallError
CurtinErrors: base64
 H4sICAAAAAAC/0N1cnRpbkVycm9ycwA=
CurtinPartitioningConfig:
 storage:
   config:
   - {{id: crypt, key: {PASSPHRASE}}}
Traceback:
 Traceback (most recent call last):
   File "block_meta.py", line 1, in dm_crypt_handler
 cryptsetup: device is too small
Uname: Linux 6.8.0
"""
OURS = """\
[     1.00] builder: node: looking
[     2.00] builder-failed node: this machine is none of the cluster's nodes: node1
[     2.00] Nothing was written to any disk.
[     2.10] match:
[     2.10]   mac: "52:54:00:99:99:99"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine with a screen and a serial console, on which curtin has failed."""
    for folder in ("sys/class/tty/console", "dev", "run/builder", "var/crash", LOGS):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sys/class/tty/console/active").write_text("tty0 ttyS0\n")
    (tmp_path / "var/log/cloud-init.log").write_text("cloud-init went first\n")
    lines = "".join(f"line {number}\n" for number in range(200))
    (tmp_path / LOGS / "curtin-install.log").write_text(f"{lines}%s \\n is \x1b[31mtext\ncurtin's end\n")
    # subiquity's name has its process in it; the plain one is a link.
    (tmp_path / LOGS / "subiquity-server-debug.log.1234").write_text("the server's end\n")
    (tmp_path / LOGS / "subiquity-server-debug.log").symlink_to("subiquity-server-debug.log.1234")
    (tmp_path / LOGS / "subiquity-traceback.txt").write_text("CurtinInstallError\n")
    (tmp_path / "var/crash/1.install_fail.crash").write_text(CRASH)
    (tmp_path / "run/builder/install.log").write_text("[     1.00] builder-picked node1\n")
    return tmp_path


def fail(root: Path) -> tuple[str, str]:
    """What is then on the screen, and what the serial port was given."""
    done = subprocess.run(["sh", SCRIPT, root, "0"], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
    assert not (root / "dev/tty0").exists()
    return (root / "dev/tty1").read_text(), (root / "dev/ttyS0").read_text()


def test_a_serial_port_gets_every_log_what_tells_most_last(root: Path) -> None:
    _screen, serial = fail(root)
    titles = re.findall("^---- (.*)$", serial, re.MULTILINE)
    assert titles == [
        "/var/log/cloud-init.log",
        "journal",
        f"/{LOGS}/subiquity-server-debug.log.1234",
        f"/{LOGS}/curtin-install.log",
        "/var/crash/1.install_fail.crash",
        f"/{LOGS}/subiquity-traceback.txt",
        "/run/builder/install.log",
    ]
    assert "line 0\n" in serial
    assert "line 199\n%s \\n is [31mtext\ncurtin's end\n" in serial
    for words in ("cloud-init went first", "the server's end", "device is too small", "Uname: Linux 6.8.0"):
        assert serial.count(words) == 1
    assert FATAL["Ubuntu's installer failed"].search(serial.splitlines()[-1])
    assert (root / "run/builder/failed.txt").stat().st_mode & 0o777 == 0o600


def test_no_crash_report_tells_the_passphrase(root: Path) -> None:
    for text in fail(root):
        assert PASSPHRASE not in text
        assert "H4sI" not in text


def test_a_screen_shows_the_reason_and_not_the_logs(root: Path) -> None:
    screen, _serial = fail(root)
    assert "curtin's end\nCurtinInstallError\n" in screen
    assert len(screen.splitlines()) < 25
    # If it was us who stopped, the reason is ours, and what the machine is stays to be read.
    (root / "run/builder/install.log").write_text(OURS)
    screen, serial = fail(root)
    ours = "".join(f"{line[12:]}\n" for line in OURS.splitlines()[1:])
    assert screen.startswith(f"\n{ours}\n") and "curtin's end" not in screen
    assert serial.endswith(screen)


def test_logs_without_end_are_cut_at_their_beginning(root: Path) -> None:
    for name in ("curtin-install.log", "subiquity-server-debug.log.1234"):
        (root / LOGS / name).write_text("the beginning\n" + "0123456789abcde\n" * 200_000 + f"last of {name}\n")
    _screen, serial = fail(root)
    assert 1 << 20 < len(serial) < (1 << 20) + 8192
    assert "the beginning" not in serial
    assert "last of curtin-install.log\n" in serial and "last of subiquity-server-debug.log.1234\n" in serial


def test_a_slow_port_gets_what_it_can_take_in_two_minutes(root: Path) -> None:
    """A real terminal, which another program has made raw."""
    (root / LOGS / "curtin-install.log").write_text("0123456789abcde\n" * 20_000 + "curtin's end\n")
    ours, theirs = pty.openpty()
    (root / "dev/ttyS0").symlink_to(os.ttyname(theirs))
    subprocess.run(["stty", "raw", "-echo", "4800"], stdin=theirs, check=True)
    (root / "sys/class/tty/console/active").write_text("ttyS0\n")
    got = bytearray()

    def listen() -> None:
        while not got.endswith(b"builder: the install failed\r\n"):
            got.extend(os.read(ours, 65536))

    listener = Thread(target=listen, daemon=True)
    listener.start()
    subprocess.run(["sh", SCRIPT, root, "0"], check=True, timeout=60)
    listener.join(30)
    os.close(ours)
    os.close(theirs)
    assert 4800 * 12 <= len(got) < 4800 * 14
    assert b"curtin's end\r\n" in got and not re.search(rb"[^\r]\n", got)


def test_a_console_that_cannot_be_written_does_not_hide_the_others(root: Path) -> None:
    (root / "dev/tty1").mkdir()
    subprocess.run(["sh", SCRIPT, root, "0"], capture_output=True, check=True, timeout=60)
    assert "curtin's end\n" in (root / "dev/ttyS0").read_text()


def test_an_install_that_failed_before_there_was_a_log(root: Path) -> None:
    for path in [path for path in root.rglob("*") if path.is_file() and path.name != "active"]:
        path.unlink()
    screen, serial = fail(root)
    assert "the install failed" in screen and "the install failed" in serial


def test_somebody_who_looks_keeps_the_power_on(root: Path) -> None:
    (root / "run/builder-stay").touch()
    with subprocess.Popen(["sh", SCRIPT, root, "0"], start_new_session=True) as process:
        time.sleep(1)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
