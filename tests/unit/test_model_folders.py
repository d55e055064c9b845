"""A model that is a folder on the building machine: every file of it, under the model's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import inputs, lock, plan, resolve
from builder.cache import Cache
from builder.errors import BuilderError, Exit, SpecError
from builder.lock import Lock
from builder.spec.load import loads
from builder.spec.model import Cluster

SPEC = """name: pair
network: {subnet: 10.0.0.0/24}
nodes: [{name: a, match: {mac: "52:54:00:00:00:01"}}]
models: [{name: org--x, path: models/x%s}]
"""


def spec(base: Path, more: str = "") -> Cluster:
    return loads(SPEC % more, base=base)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "models/x"
    (found / "sub").mkdir(parents=True)
    (found / "config.json").write_text("{}")
    (found / "sub/w.safetensors").write_bytes(b"weights")
    (found / ".cache").mkdir()
    (found / ".cache/note").write_text("a program's own")
    return found


def pinned(cluster: Cluster, base: Path) -> Lock:
    models, _ = resolve.models_of(cluster, base, Cache(base / "cache"))
    return Lock(lock.asks_of(cluster), 0, (), models)


def test_every_file_is_pinned_and_staged_where_it_lies(tmp_path: Path, folder: Path) -> None:
    cluster = spec(tmp_path)
    pins = pinned(cluster, tmp_path)
    assert pins.files == {"org--x/config.json": 2, "org--x/sub/w.safetensors": 7}
    staged = inputs.models(plan.make(cluster, pins), tmp_path, Cache(tmp_path / "cache"))
    assert sorted(staged.values()) == [folder / "config.json", folder / "sub/w.safetensors"]


def test_a_file_that_changed_or_came_since_the_lock_is_refused(tmp_path: Path, folder: Path) -> None:
    cluster = spec(tmp_path)
    todo = plan.make(cluster, pinned(cluster, tmp_path))
    (folder / "sub/w.safetensors").write_bytes(b"Weights")
    with pytest.raises(BuilderError, match=r"w\.safetensors") as caught:
        inputs.models(todo, tmp_path, Cache(tmp_path / "cache"))
    assert caught.value.code is Exit.FETCH
    (folder / "sub/w.safetensors").write_bytes(b"weights")
    (folder / "new").write_text("x")
    with pytest.raises(BuilderError, match="new is not in the lock"):
        inputs.models(todo, tmp_path, Cache(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("bad name", b"x", "bad name has a name that no node could hold"), ("empty", b"", "models/x/empty is empty")],
)
def test_a_file_that_cannot_be_staged_is_named(
    tmp_path: Path, folder: Path, name: str, content: bytes, told: str
) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(SpecError, match=told):
        spec(tmp_path)


def test_a_digest_goes_with_a_file_alone(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SpecError, match="goes with one file, and path is a folder"):
        spec(tmp_path, f", sha256: {'ab' * 32}")
