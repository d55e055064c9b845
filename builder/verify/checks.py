"""The overlays' own checks, run against a node over ssh by pytest-testinfra in a process of its own.

A check learns what to expect from the JSON file that ``BUILDER_NODE_FACTS`` names: name, address, plan, user,
models, openings.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from builder.run import run
from builder.verify.report import Step, StepFailed
from builder.verify.ssh import ALIAS

FACTS = "BUILDER_NODE_FACTS"
# Our own configuration, so that no other project's pytest settings or plug-in options decide anything.
_INI = "[pytest]\njunit_family = xunit2\naddopts =\n"


def checks_argv(files: Sequence[Path], ssh_config: Path, folder: Path, limit: float) -> list[str]:
    """The whole command; it is ended after ``limit`` seconds. A slow guest may take 60 s to let us in."""
    return [
        "timeout",
        "--kill-after=30",
        f"{limit:.0f}",
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        str(folder / "pytest.ini"),
        f"--rootdir={folder}",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        f"--hosts=ssh://root@{ALIAS}?timeout=60",
        f"--ssh-config={ssh_config}",
        f"--junitxml={folder / 'checks.xml'}",
        *(str(file) for file in files),
    ]


def run_checks(
    files: Sequence[Path], ssh_config: Path, facts: Mapping[str, Any], folder: Path, limit: float
) -> tuple[Step, ...]:
    """Run ``files`` (all of them, each check once) and return their outcomes. Output: checks.log, checks.xml.

    Raises StepFailed if pytest did not run to its end or found nothing to check.
    """
    (folder / "pytest.ini").write_text(_INI)
    facts_file = folder / "facts.json"
    facts_file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n")
    result = folder / "checks.xml"
    result.unlink(missing_ok=True)
    done = run(
        checks_argv(files, ssh_config, folder, limit),
        step="running the checks on the node",
        env={FACTS: str(facts_file), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=folder,
        check=False,
    )
    said = done.stdout + done.stderr
    (folder / "checks.log").write_text(said)
    if done.returncode not in (0, 1) or not result.is_file():
        why = {5: "no check was found", 124: f"the checks took more than {limit:.0f} s"}
        reason = why.get(done.returncode, f"pytest exited {done.returncode}")
        raise StepFailed(reason, said[-4000:])
    found = parse_junit(result.read_bytes())
    if not found:
        raise StepFailed("no check was found", said[-4000:])
    return found


def parse_junit(document: bytes) -> tuple[Step, ...]:
    """The test cases of a JUnit file that pytest wrote. A skipped one is "not run", with its reason."""
    steps = []
    for case in ET.fromstring(document).iter("testcase"):
        name = f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name', '')}"
        seconds = float(case.get("time") or 0)
        bad = case.find("failure")
        bad = case.find("error") if bad is None else bad
        skipped = case.find("skipped")
        if bad is not None:
            steps.append(Step(name, "failed", seconds, bad.get("message", ""), (bad.text or "")[-4000:]))
        elif skipped is not None:
            steps.append(Step(name, "not run", seconds, skipped.get("message", "")))
        else:
            steps.append(Step(name, "passed", seconds))
    return tuple(steps)
