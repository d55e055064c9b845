"""Ray and Dask as two nodes each, and Docker on one, in virtual machines without a way out: `make engines`.

They take most of an hour together without hardware virtualisation, so they are not part of `make test`; what is
there of them is tests/integration/test_engines_python.py, which runs the layers that are built.
"""

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
from builder.verify.boottest import boot_test
from builder.verify.clusterspec import cluster_test_of
from builder.verify.clustertest import cluster_test
from builder.verify.spec import boot_test_of
from tests.boot.conftest import BUILDER, ROOT

pytestmark = [pytest.mark.vm, pytest.mark.engines]
Say = Callable[[str], None]


def medium_of(name: str, folder: Path) -> tuple[Path, Path]:
    """The spec of an example and its medium, built by the command that a user would run."""
    spec = folder / f"examples/{name}.yaml"
    shutil.copytree(ROOT / "examples", spec.parent)
    image: list[str | Path] = [sys.executable, ROOT / "tools/make-tiny-image", spec.parent / "images/hello.tar"]
    run(image, step="making the tiny image")
    done = run([BUILDER, "iso", spec, "--out", folder / "out", "--json"], step=f"building {name}")
    return spec, Path(json.loads(done.stdout)["path"])


@pytest.mark.parametrize("name", ["dask-pair", "ray-pair"])
def test_two_nodes_run_tasks_and_get_well(name: str, tmp_path: Path, progress: Say) -> None:
    """All of :mod:`builder.verify.clustertest`, faults included; the completion is a task on every node."""
    spec, medium = medium_of(name, tmp_path)
    pins = lock.load(lock.path_for(spec))
    request = cluster_test_of(load(spec), pins, medium, tmp_path / "report", firmware="bios")
    report = cluster_test(request, progress)
    assert report.passed, report.summary()
    shutil.rmtree(tmp_path)


def test_a_staged_image_runs_on_a_node_without_a_network(tmp_path: Path, progress: Say) -> None:
    """The overlay's own checks do it: the image is the lock's, a container runs, the firewall is as it was."""
    spec, medium = medium_of("containers", tmp_path)
    cluster, pins = load(spec), lock.load(lock.path_for(spec))
    request = boot_test_of(
        cluster, pins, cluster.node("node1"), medium, tmp_path / "report", firmware="bios", medium="cdrom"
    )
    report = boot_test(request, progress)
    assert report.passed, report.summary()
    (ran,) = (check for check in report.checks if "test_a_container_runs_without_any_network" in check.name)
    assert ran.outcome == "passed"
    shutil.rmtree(tmp_path)
