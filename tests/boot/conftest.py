"""One medium for all boot tests, built by the command that a user would run."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder import lock
from builder.console import say
from builder.run import run
from builder.spec.load import load
from builder.verify.firmware import FirmwareKind
from builder.verify.machine import MediumKind
from builder.verify.request import BootTest
from builder.verify.spec import boot_test_of

ROOT = Path(__file__).parents[2]
BUILDER = Path(sys.executable).with_name("builder")


@dataclass(frozen=True)
class Medium:
    """The quickstart's medium and the spec that it was built from."""

    spec: Path
    iso: Path

    def request(
        self, out: Path, node: str = "node1", *, firmware: FirmwareKind = "bios", medium: MediumKind = "cdrom"
    ) -> BootTest:
        cluster = load(self.spec)
        pins = lock.load(lock.path_for(self.spec))
        return boot_test_of(cluster, pins, cluster.node(node), self.iso, out, firmware=firmware, medium=medium)


@pytest.fixture(scope="session")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Medium:
    folder = tmp_path_factory.mktemp("quickstart")
    shutil.copytree(ROOT / "examples", folder / "examples")
    spec = folder / "examples/quickstart.yaml"
    argv: list[str | Path] = [BUILDER, "iso", spec, "--out", folder / "out", "--json"]
    done = run(argv, step="building the quickstart")
    made: dict[str, Any] = json.loads(done.stdout)
    return Medium(spec, Path(made["path"]))


@pytest.fixture
def progress(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Lets a watcher of a long test see how far it is."""

    def show(line: str) -> None:
        with capsys.disabled():
            say(line)

    return show
