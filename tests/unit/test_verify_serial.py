"""Following a serial log: what is matched, and when silence becomes a stall. Time is a parameter."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.verify.report import StepFailed
from builder.verify.serial import SerialLog, clean

READY = {"ready": re.compile(r"builder-ready (\w+)"), "failed": re.compile(r"builder-failed")}


class Guest:
    """A clock whose pauses pass at once, and a log that is written at set times."""

    def __init__(self, path: Path, script: dict[float, bytes], ends_at: float | None = None) -> None:
        self.time = 1000.0
        self._path = path
        self._script = {1000 + at: data for at, data in script.items()}
        self._ends_at = None if ends_at is None else 1000 + ends_at

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for at in sorted(self._script):
            if at <= self.time:
                with self._path.open("ab") as file:
                    file.write(self._script.pop(at))

    def ended(self) -> str | None:
        return "QEMU exited 1 (no space)" if self._ends_at is not None and self.time >= self._ends_at else None


@pytest.fixture
def follow(tmp_path: Path) -> Callable[..., tuple[SerialLog, Guest]]:
    def make(script: dict[float, bytes], ends_at: float | None = None) -> tuple[SerialLog, Guest]:
        guest = Guest(tmp_path / "serial.log", script, ends_at)
        return SerialLog(tmp_path / "serial.log", guest, guest.ended), guest

    return make


Follow = Callable[..., tuple[SerialLog, Guest]]


def test_the_first_match_is_returned_and_the_next_call_goes_on_after_it(follow: Follow) -> None:
    log, _ = follow({1: b"hello\r\nbuilder-ready one\r\n", 2: b"builder-ready two\r\n"})
    assert log.wait_for(READY, stall=60, limit=100).match.group(1) == "one"
    assert log.wait_for(READY, stall=60, limit=100).match.group(1) == "two"
    assert [line.text for line in log.lines] == ["hello", "builder-ready one", "builder-ready two"]


def test_a_line_counts_when_it_is_whole(follow: Follow) -> None:
    log, guest = follow({1: b"builder-ready abc", 30: b"def\n"})
    assert log.wait_for(READY, stall=60, limit=100).match.group(1) == "abcdef"
    assert guest.time >= 1030


def test_silence_is_a_stall_and_shows_the_last_screen(follow: Follow) -> None:
    log, guest = follow({1: b"one\n", 50: b"two\nthree"})
    with pytest.raises(StepFailed) as caught:
        log.wait_for(READY, stall=60, limit=1000)
    assert caught.value.reason == "stalled: no output on the serial port for 60 s, waiting for ready or failed"
    assert caught.value.evidence == "one\ntwo\nthree"
    assert 1110 <= guest.time < 1112


def test_a_slow_guest_that_talks_is_no_stall(follow: Follow) -> None:
    chatter = {float(at): b"." for at in range(0, 501, 50)}
    log, guest = follow({**chatter, 520: b"\nbuilder-ready x\n"})
    assert log.wait_for(READY, stall=60, limit=1000).name == "ready"
    assert guest.time > 1500


def test_a_guest_that_talks_for_ever_meets_the_limit(follow: Follow) -> None:
    log, _ = follow({float(at): b"rcu: stall\n" for at in range(0, 500, 10)})
    with pytest.raises(StepFailed, match="no ready or failed within 100 s"):
        log.wait_for(READY, stall=60, limit=100)


def test_not_one_byte_names_the_console(follow: Follow) -> None:
    log, _ = follow({})
    with pytest.raises(StepFailed, match=r"not one byte .* ttyS0"):
        log.wait_for(READY, stall=60, limit=1000)


def test_an_early_exit_is_told_at_once_with_its_last_words(follow: Follow) -> None:
    log, guest = follow({1: b"half a line"}, ends_at=2)
    with pytest.raises(StepFailed) as caught:
        log.wait_for(READY, stall=60, limit=1000)
    assert caught.value.reason == "QEMU exited 1 (no space) before ready or failed was seen"
    assert caught.value.evidence == "half a line"
    assert guest.time < 1003


def test_what_was_written_just_before_the_end_is_seen(follow: Follow) -> None:
    log, _ = follow({5: b"builder-ready last"}, ends_at=5)
    assert log.wait_for(READY, stall=60, limit=1000).match.group(1) == "last"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"[ 1.0] Kernel panic - not syncing: VFS", "the kernel panicked"),
        (b"You are in emergency mode. After", "the system went into emergency mode"),
        (b"An error occurred. Press enter to start a shell", "Ubuntu's installer failed"),
        (b"builder: the install failed", "Ubuntu's installer failed"),
        (b"Confirmation is required to continue.", "Ubuntu's installer waits for a person"),
    ],
)
def test_what_goes_no_further_ends_the_wait(follow: Follow, said: bytes, reason: str) -> None:
    log, guest = follow({1: said + b"\n", 1.5: b"---[ end\n"})
    with pytest.raises(StepFailed, match=reason):
        log.wait_for(READY, stall=60, limit=1000)
    assert guest.time < 1015
    assert "---[ end" in log.screen()


def test_settle_reads_the_block_that_follows(follow: Follow) -> None:
    log, _ = follow({1: b"builder-failed node: no match\n", 2: b"nodes:\n", 4: b"- name: new", 60: b"late\n"})
    assert log.wait_for(READY, stall=60, limit=100).name == "failed"
    log.settle(quiet=5, limit=60)
    assert log.screen() == "builder-failed node: no match\nnodes:\n- name: new"


def test_escape_sequences_cut_between_two_reads(follow: Follow) -> None:
    log, _ = follow(
        {1: b"\x1b[0;1", 2: b";32mbuilder-\xc3", 3: b"\xa4\r", 4: b"\nbuilder-ready \x1b[1mx\x1b[0m\r\n"}
    )
    assert log.wait_for(READY, stall=60, limit=100).match.group(1) == "x"
    assert [line.text for line in log.lines] == ["builder-ä", "builder-ready x"]


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("a\r\nb\rc", "a\nb\nc"),
        ("\x1b[2J\x1b[1;1HGRUB\x1b[3;5HInstall", "\nGRUB\nInstall"),
        ("\x1b]0;title\x07x\x1b]8003;a\x1b\\y", "xy"),
        ("\x1bP+q544e\x1b\\x\x1b(By\x1b7", "xy"),
        ("bell\x07 tab\t nul\x00", "bell tab\t nul"),
    ],
)
def test_clean(raw: str, plain: str) -> None:
    assert clean(raw) == plain
