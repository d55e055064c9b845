"""A node with NVIDIA's driver, in a virtual machine: well without a card, and its kernel takes the modules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.run import run
from builder.verify.boottest import boot_test
from tests.boot.conftest import BUILDER, ROOT, Medium

pytestmark = [pytest.mark.vm, pytest.mark.gpu]


def test_a_node_with_the_driver_and_without_a_card_is_well(
    tmp_path: Path, progress: Callable[[str], None]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    spec = tmp_path / "examples/rtx3090-pair.yaml"
    argv: list[str | Path] = [BUILDER, "iso", spec, "--out", tmp_path / "out", "--json"]
    made: dict[str, Any] = json.loads(run(argv, step="building the pair with GPUs").stdout)
    medium = Medium(spec, Path(made["path"]))
    report = boot_test(medium.request(tmp_path / "report"), progress)
    assert report.passed, report.summary()
    states = {check.name.rpartition("::")[2].partition("[")[0]: check.outcome for check in report.checks}
    assert states["test_the_running_kernel_takes_the_modules"] == "passed"
    # Never "passed" without a card.
    assert states["test_the_card_is_the_spec_s"] == "not run"
    shutil.rmtree(tmp_path)
