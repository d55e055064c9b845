"""The second promise: the nodes of one medium find each other, serve a model together, and get well again."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builder import lock
from builder.run import run
from builder.spec.load import load
from builder.verify.clusterspec import cluster_test_of
from builder.verify.clustertest import cluster_test
from tests.boot.conftest import BUILDER, ROOT

pytestmark = pytest.mark.vm


def test_two_nodes_serve_one_model(tmp_path: Path, progress: Callable[[str], None]) -> None:
    """All of :mod:`builder.verify.clustertest`, faults included, with llama.cpp and a real (tiny) model."""
    spec = tmp_path / "examples/llamacpp-pair.yaml"
    shutil.copytree(ROOT / "examples", spec.parent)
    argv: list[str | Path] = [sys.executable, ROOT / "tools/make-tiny-model", spec.parent / "models/tiny.gguf"]
    run(argv, step="making the tiny model")
    done = run([BUILDER, "iso", spec, "--out", tmp_path / "out", "--json"], step="building the pair's medium")
    medium = Path(json.loads(done.stdout)["path"])

    pins = lock.load(lock.path_for(spec))
    request = cluster_test_of(load(spec), pins, medium, tmp_path / "report", firmware="bios")
    report = cluster_test(request, progress)
    assert report.passed, report.summary()
    shutil.rmtree(tmp_path)
