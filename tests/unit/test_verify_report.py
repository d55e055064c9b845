"""Reports: what passes, and the files they become."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from builder.verify.recorder import Recorder
from builder.verify.report import Report, Step, StepFailed, Timing
from builder.verify.serial import Line
from builder.verify.timings import boot_timings, install_timings

PLAN = "ab" * 32
GOOD = Report(
    title="boot test of node1",
    cluster="quickstart",
    node="node1",
    plan=PLAN,
    host={"accelerator": "tcg: no svm"},
    steps=(
        Step("install", "passed", 61.5, evidence="builder-installed \x1b[0m<&>"),
        Step("boot", "passed", 40),
    ),
    checks=(Step("test_a::test_ssh", "passed", 1), Step("test_a::test_gpu", "not run", reason="no GPU")),
    timings=(Timing("firmware", 4.0),),
    files={"serial log of the install": "serial-install.log"},
    last_screen="login:",
    install_log="/var/log/x",
)


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        self.time += 1
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_only_positive_proof_passes() -> None:
    assert GOOD.passed
    assert not dataclasses.replace(GOOD, steps=()).passed
    assert not dataclasses.replace(GOOD, steps=(*GOOD.steps, Step("off", "not run"))).passed
    assert not dataclasses.replace(GOOD, steps=(*GOOD.steps, Step("off", "failed"))).passed
    assert not dataclasses.replace(GOOD, checks=(Step("x", "failed"),)).passed


def test_written_files_are_valid(tmp_path: Path) -> None:
    bad = dataclasses.replace(
        GOOD,
        steps=(*GOOD.steps, Step("ssh", "failed", 3, "lost", "a\x00b"), Step("off", "not run", reason="r")),
    )
    bad.write(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["junit.xml", "report.json"]
    value = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (value["format"], value["passed"], value["plan"]) == (1, False, PLAN)
    assert value["steps"][2] == {
        "name": "ssh",
        "outcome": "failed",
        "seconds": 3,
        "reason": "lost",
        "evidence": "a\x00b",
    }
    suite = ET.parse(tmp_path / "out" / "junit.xml").getroot()[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")} == {
        "tests": "6",
        "failures": "1",
        "skipped": "2",
        "errors": "0",
    }
    assert [case.get("name") for case in suite] == [
        "install",
        "boot",
        "ssh",
        "off",
        "test_a::test_ssh",
        "test_a::test_gpu",
    ]
    failure = suite[2].find("failure")
    assert failure is not None
    assert (failure.get("message"), failure.text) == ("lost", "a�b")


def test_summary_of_a_failure_shows_what_to_look_at() -> None:
    bad = dataclasses.replace(GOOD, steps=(Step("boot", "failed", 3, "stalled"),), warnings=("QEMU is old",))
    text = bad.summary()
    for wanted in (
        "boot test of node1: FAILED",
        "FAILED  boot (3.0 s): stalled",
        "    | login:",
        "install log: /var/log/x",
        "warning: QEMU is old",
        "not run  test_a::test_gpu (1.0 s): no GPU".replace("1.0", "0.0"),
        "1 passed, 0 failed, 1 not run",
        "serial log of the install: serial-install.log",
    ):
        assert wanted in text
    assert "login:" not in GOOD.summary()


def test_recorder_says_why_later_steps_were_not_run() -> None:
    said: list[str] = []
    recorder = Recorder(("a", "b", "c"), Clock(), said.append)
    with recorder.step("a") as evidence:
        evidence.append("seen")
    with pytest.raises(StepFailed), recorder.step("b") as evidence:
        evidence.append("first")
        raise StepFailed("broke", "screen")
    a, b, c = recorder.steps()
    assert (a.outcome, a.evidence, a.seconds) == ("passed", "seen", 1)
    assert (b.outcome, b.reason, b.evidence) == ("failed", "broke", "first\nscreen")
    assert (c.outcome, c.reason) == ("not run", "the step 'b' failed")
    assert said == ["a …", "a: ok (1.0 s)", "b …", "b: FAILED: broke"]
    with pytest.raises(ValueError, match="not a step"), recorder.step("d"):
        pass


def test_install_timings_follow_the_lines() -> None:
    texts = [
        (4, "[    0.000000] Linux version 6.12"),
        (5, "[    0.000000] Command line:"),
        (20, "builder: start: builder 0.1"),
        (21, "builder: verify: manifest"),
        (25, "builder: verify: layers"),
        (30, "builder: unpack: node"),
        (40, f"builder-installed node1 {PLAN}"),
    ]
    lines = [Line(at, text) for at, text in texts]
    assert [(one.phase, one.seconds) for one in install_timings(0, lines, 43)] == [
        ("firmware", 4),
        ("kernel", 16),
        ("install start", 1),
        ("install verify", 9),
        ("install unpack", 10),
        ("shutdown", 3),
    ]


def test_boot_timings_of_a_quiet_kernel() -> None:
    lines = [Line(12, "systemd[1]: systemd 257.13 running in system mode"), Line(50, f"builder-ready {PLAN}")]
    assert [(one.phase, one.seconds) for one in boot_timings(10, lines, 60)] == [
        ("boot firmware", 2),
        ("boot services", 38),
        ("checks and power-off", 10),
    ]
    assert [one.phase for one in boot_timings(10, [], 60)] == ["boot firmware"]
