"""exo for real: two nodes out of one medium form an exo cluster on their processors, offline, and serve one model.

exo's source is not everywhere: EXO_SOURCE names its git repository, a URL or a path; without it this is skipped.
It takes a compilation of exo's Rust part the first time, a quarter of an hour on 2 cores; the cache keeps what
came of it.
"""

from __future__ import annotations

import json
import os
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

SOURCE = os.environ.get("EXO_SOURCE")
pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(
        not SOURCE, reason="exo's source is not here: EXO_SOURCE=<its git repository, path or URL>"
    ),
]


def test_two_nodes_form_an_exo_cluster_and_serve_one_model(
    tmp_path: Path, progress: Callable[[str], None]
) -> None:
    """All of :mod:`builder.verify.clustertest`, faults included, with exo and a real (tiny) model."""
    spec = tmp_path / "examples/exo-cpu.yaml"
    shutil.copytree(ROOT / "examples", spec.parent)
    spec.write_text(spec.read_text().replace("engine:\n", "engine:\n  namespace_file: namespace\n"))
    model = spec.parent / "models/builder--tiny"
    argv: list[str | Path] = [sys.executable, ROOT / "tools/make-tiny-model", model, "--as", "builder/tiny"]
    run(argv, step="making the tiny model")
    run([BUILDER, "secrets", spec], step="making the namespace")
    command: list[str | Path] = [BUILDER, "iso", spec, "--out", tmp_path / "out", "--json"]
    done = run(command, step="building the pair's medium", env={"EXO_SOURCE": str(SOURCE)})
    medium = Path(json.loads(done.stdout)["path"])

    pins = lock.load(lock.path_for(spec))
    request = cluster_test_of(load(spec), pins, medium, tmp_path / "report", firmware="bios")
    report = cluster_test(request, progress)
    assert report.passed, report.summary()
    shutil.rmtree(tmp_path)
