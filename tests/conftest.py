"""What every test may use: golden files, the quickstart and its plan, and that unit tests start no process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from builder import lock, plan
from builder import run as runner
from builder.lock import Lock, LockedModel
from builder.sources.apt import Package
from builder.spec.load import load
from builder.spec.model import Cluster

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
SHA = "0123456789abcdef" * 4

# No test may fail for how busy the machine is.
_CHECKS = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=_CHECKS)
hypothesis.settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the golden files instead of comparing with them")


@pytest.fixture(autouse=True)
def _no_process_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "unit" in request.path.parts:

        def forbidden(command: list[str], **_options: object) -> None:
            pytest.fail(f"a unit test started a process: {command}")

        monkeypatch.setattr(runner, "_popen", forbidden)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)`` compares a text with ``tests/golden/<name>``, or writes it with ``--golden``."""

    def compare(name: str, text: str) -> None:
        path = HERE / "golden" / name
        if request.config.getoption("--golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"no golden file {name}: make golden"
        assert text == path.read_text(), f"{name} differs from its golden file; if that is meant: make golden"

    return compare


@pytest.fixture
def quickstart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cluster]:
    """examples/quickstart.yaml, as loaded by somebody with one fixed ssh key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1r1Wq3J4m8u6QzZ0nT4m1fXxw7n3mT9g9q4kqk5c2V tester@example\n"
    (tmp_path / ".ssh/id_ed25519.pub").write_text(key)
    yield load(EXAMPLES / "quickstart.yaml")


@pytest.fixture
def pins(quickstart: Cluster) -> Lock:
    """A small lock that answers the quickstart."""
    packages = (
        Package("bash", "5.2.37-2+b10", "amd64", "main", "pool/main/b/bash/bash.deb", 1_500_000, SHA),
        Package("sudo", "1:1.9", "amd64", "security", "pool/main/s/sudo/sudo.deb", 2_000_000, SHA[::-1]),
    )
    models = tuple(LockedModel(model.name, model.sha256 or SHA, 3000) for model in quickstart.models)
    return Lock(lock.asks_of(quickstart), 1_700_000_000, packages, models)


@pytest.fixture
def planned(quickstart: Cluster, pins: Lock) -> plan.Plan:
    return plan.make(quickstart, pins)
