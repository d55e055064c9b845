"""The scripts that run on a node, loaded from the overlay as they are."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "overlays/site/rootfs/usr/lib/builder"


def load(name: str) -> Any:
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(SCRIPTS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node's manifest and models partition with one sound model."""
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    manifest = {
        "plan": "p" * 64,
        "models": [{"name": "tiny", "path": f"models/{digest}"}],
        "files": [{"path": f"models/{digest}", "size": len(content), "sha256": digest}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny").write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"weights", 0, "tiny: verified"),
        (b"weight!", 1, "tiny: damaged: sha256"),
        (b"weigh", 1, "tiny: 5 bytes, should be 7"),
        (None, 1, "tiny: missing"),
    ],
)
def test_models_are_held_to_the_manifest(
    node: Path, content: bytes | None, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load("verify-models")
    script.MANIFEST, script.MODELS = node / "manifest.json", node / "models"
    (node / "models/tiny").unlink()
    if content is not None:
        (node / "models/tiny").write_bytes(content)
    assert script.main() == status
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("down", "errors", "line"),
    [
        ([], [], "builder-ready {plan}"),
        (["ssh.service"], [], "builder-ready {plan}"),
        (["ssh.socket"], [], "builder-ready {plan}"),
        (["ssh.service", "ssh.socket"], [], "builder-not-ready {plan}: ssh.service: failed, its last line"),
        (
            ["builder-models.service"],
            [],
            "builder-not-ready {plan}: builder-models.service: failed, its last line",
        ),
        ([], ["no user"], "builder-not-ready {plan}: cloud-init: no user"),
        ([], None, "builder-not-ready {plan}: cloud-init: did not finish"),
    ],
)
def test_the_node_says_ready_or_why_not(
    node: Path, down: list[str], errors: list[str] | None, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load("ready")
    script.MANIFEST, script.CLOUD_INIT_RESULT = node / "manifest.json", node / "result.json"
    if errors is not None:
        (node / "result.json").write_text(json.dumps({"v1": {"errors": errors}}))

    def output(*command: str) -> str:
        if command[0] == "journalctl":
            return "its last line"
        return "failed" if command[-1] in down else "active"

    said: list[str] = []
    monkeypatch.setattr(script, "output", output)
    monkeypatch.setattr(script, "announce", said.append)
    assert script.main() == (0 if line.startswith("builder-ready") else 1)
    assert said == [line.format(plan="p" * 64)]
