"""What a boot test found: a frozen value that can be written as JSON and JUnit and told in a few lines.

A step is ``passed`` only on positive proof, ``failed``, or ``not run`` with the reason; the last never counts
as passed.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["passed", "failed", "not run"]
FORMAT = 1

# XML 1.0 knows no other control characters (section 2.2, "Char").
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class StepFailed(Exception):  # noqa: N818 - it ends a step, it is no error of the program
    """A step of a boot test did not succeed: why, and what there is to see. Caught by the recipe."""

    def __init__(self, reason: str, evidence: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence = evidence


@dataclass(frozen=True)
class Step:
    """One step or one check. ``reason`` says why it failed or was not run, ``evidence`` what was seen."""

    name: str
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    evidence: str = ""


@dataclass(frozen=True)
class Timing:
    """How long one phase took, in seconds, as read from the serial log."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The whole result. ``host`` says on what it ran (accelerator and why, QEMU, firmware, medium).

    ``files`` are names in the report's folder, by what they are ("serial log of the install").
    """

    title: str
    cluster: str
    node: str
    plan: str
    host: Mapping[str, str]
    steps: tuple[Step, ...]
    checks: tuple[Step, ...] = ()
    timings: tuple[Timing, ...] = ()
    files: Mapping[str, str] | None = None
    last_screen: str = ""
    install_log: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Every step was proven and no check failed; a check that could not run (no GPU) fails nothing."""
        proven = bool(self.steps) and all(step.outcome == "passed" for step in self.steps)
        return proven and all(check.outcome != "failed" for check in self.checks)

    def write(self, folder: Path) -> None:
        """Write report.json and junit.xml into ``folder``, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "report.json", self.to_json().encode())
        _replace(folder / "junit.xml", self.to_junit())

    def to_json(self) -> str:
        value = {"format": FORMAT, "passed": self.passed, **asdict(self)}
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"

    def to_junit(self) -> bytes:
        """One test case a step and a check, in the form that pytest calls xunit2 and CI systems read."""
        cases = [("boot", step) for step in self.steps] + [("node", check) for check in self.checks]
        suite = ET.Element(
            "testsuite",
            name=_xml(self.title),
            tests=str(len(cases)),
            failures=str(sum(step.outcome == "failed" for _, step in cases)),
            errors="0",
            skipped=str(sum(step.outcome == "not run" for _, step in cases)),
            time=f"{sum(step.seconds for step in self.steps):.3f}",
        )
        for group, step in cases:
            where = _xml(f"{self.cluster}.{self.node}.{group}")
            case = ET.SubElement(
                suite, "testcase", classname=where, name=_xml(step.name), time=f"{step.seconds:.3f}"
            )
            if step.outcome == "failed":
                ET.SubElement(case, "failure", message=_xml(step.reason)).text = _xml(step.evidence)
            elif step.outcome == "not run":
                ET.SubElement(case, "skipped", message=_xml(step.reason))
            elif step.evidence:
                ET.SubElement(case, "system-out").text = _xml(step.evidence)
        suites = ET.Element("testsuites", name="builder boot-test")
        suites.append(suite)
        ET.indent(suites)
        document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
        return document + b"\n"

    def summary(self) -> str:
        """The result for a terminal."""
        lines = [f"{self.title}: {'passed' if self.passed else 'FAILED'}"]
        lines += [f"  {name}: {value}" for name, value in self.host.items()]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [_told(step) for step in self.steps]
        if self.checks:
            counts = {o: sum(check.outcome == o for check in self.checks) for o in ("passed", "failed", "not run")}
            lines.append("  checks on the node: " + ", ".join(f"{n} {o}" for o, n in counts.items()))
            lines += [_told(check) for check in self.checks if check.outcome != "passed"]
        if self.timings:
            lines.append("  phases: " + ", ".join(f"{t.phase} {t.seconds:.1f} s" for t in self.timings))
        if not self.passed and self.last_screen:
            lines.append("  last screen:")
            lines += [f"    | {line}" for line in self.last_screen.splitlines()]
        if not self.passed and self.install_log:
            lines.append(f"  install log: {self.install_log}")
        if self.files:
            lines += [f"  {label}: {name}" for label, name in self.files.items()]
        return "\n".join(lines)


def _told(step: Step) -> str:
    mark = {"passed": "ok", "failed": "FAILED", "not run": "not run"}[step.outcome]
    reason = f": {step.reason}" if step.reason else ""
    return f"  {mark:>7}  {step.name} ({step.seconds:.1f} s){reason}"


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)
