"""Models by repository: what is locked, who is asked for what, and what arrives."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from builder import inputs, lock
from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.fetch import TRIES
from builder.installer import payload as installer_payload
from builder.installer import system
from builder.installer.source import Medium
from builder.media import payload
from builder.sources import hub
from tests.integration.hublab import (
    ANY,
    FILES,
    GATED,
    NEW,
    OLD,
    TOKEN,
    WEIGHTS,
    Content,
    Hub,
    in_folder,
    pinned,
    staged,
)


def test_a_repository_is_locked_at_its_commit_and_comes_in_whole(
    server: Hub, content: Content, cache: Cache
) -> None:
    todo = pinned(ANY, cache)
    assert todo.lock is not None
    assert todo.lock.commits == {"org--name": OLD}
    assert {model.name: (model.sha256, model.size) for model in todo.models} == {
        name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in in_folder("org--name").items()
    }
    assert content.seen == []  # the hub knows the digests of weights
    assert staged(todo, cache) == in_folder("org--name")
    assert len(content.seen) == 2  # the twin came once
    assert not server.compressed  # a part of that could not be resumed


def test_the_same_lock_twice_even_if_the_hub_shuffles(server: Hub, cache: Cache, tmp_path: Path) -> None:
    for name, sign in (("one", 1), ("two", -1)):
        server.listing = lambda answer, sign=sign: {**answer, "siblings": answer["siblings"][::sign]}
        pins = pinned(ANY, cache).lock
        assert pins is not None
        lock.save(pins, tmp_path / name)
        assert lock.load(tmp_path / name) == pins
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "127.0.0.1" not in (tmp_path / "one").read_text()


def test_a_lock_keeps_its_commit_when_the_branch_moves(server: Hub, cache: Cache) -> None:
    todo = pinned(ANY, cache)
    server.trees[NEW] = {"model-1.gguf": b"new"}
    server.main = NEW
    assert staged(todo, cache) == in_folder("org--name")
    assert pinned(ANY, cache).lock != todo.lock
    assert pinned(f"  - {{repo: org/name, revision: {OLD}}}\n", cache).lock.commits == {"org--name": OLD}  # type: ignore[union-attr]


def test_globs_choose_and_the_spec_names_the_folder(server: Hub, cache: Cache) -> None:
    todo = pinned("  - {repo: org/name, name: mine, files: ['*-[12].gguf', config.json]}\n", cache)
    wanted = ("config.json", "model-1.gguf", "sub folder/model-2.gguf")
    assert staged(todo, cache) == in_folder("mine", {path: FILES[path] for path in wanted})


def test_a_glob_that_finds_nothing_is_named(server: Hub, cache: Cache) -> None:
    with pytest.raises(BuilderError, match=r"org/name at main: no file is like \*\.ggfu") as caught:
        pinned("  - {repo: org/name, files: ['*.ggfu', '*.gguf']}\n", cache)
    assert caught.value.code == Exit.SPEC
    assert "model-1.gguf" in caught.value.hint


def test_nothing_is_asked_of_anyone_once_everything_is_here(
    server: Hub, content: Content, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.gated = True
    todo = pinned(GATED, cache)
    first = staged(todo, cache)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    server.seen.clear()
    assert staged(todo, cache) == first
    assert server.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_token_goes_to_the_hub_alone_and_is_kept_nowhere(
    server: Hub, content: Content, cache: Cache, tmp_path: Path, capfd: pytest.CaptureFixture[str], host: str
) -> None:
    """Another port is another host, and so is another name."""
    server.gated = True
    content.host = host
    todo = pinned(GATED, cache)
    assert todo.lock is not None
    lock.save(todo.lock, tmp_path / "x.lock")
    assert staged(todo, cache) == in_folder("org--name")
    assert {authorization for _, authorization, _ in server.seen} == {f"Bearer {TOKEN}"}
    assert [authorization for _, authorization, _ in content.seen] == [None, None]
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []
    assert TOKEN not in "".join(capfd.readouterr())
    assert TOKEN not in repr(hub.item(lock.repo_of(todo.cluster.models[0]), OLD, "x", None, 1))
    assert "HF_TOKEN" not in (tmp_path / "x.lock").read_text()


def test_a_public_repository_gets_no_token(server: Hub, content: Content, cache: Cache) -> None:
    staged(pinned(ANY, cache), cache)
    assert {authorization for _, authorization, _ in server.seen} == {None}


def test_a_link_that_expired_is_asked_for_anew(server: Hub, content: Content, cache: Cache) -> None:
    """Links are good for minutes, so a 403 of the content network is not the hub's refusal."""
    todo = pinned(ANY, cache)
    content.expired = 2
    assert staged(todo, cache) == in_folder("org--name")


def test_a_download_may_be_cut_any_number_of_times(server: Hub, content: Content, cache: Cache) -> None:
    todo = pinned("  - {repo: org/name, files: [model-1.gguf]}\n", cache)
    content.cuts = TRIES + 2
    assert staged(todo, cache) == {"org--name/model-1.gguf": WEIGHTS}
    assert [wanted for _, _, wanted in content.seen] == [
        f"bytes={n << 16}-" if n else None for n in range(len(content.seen))
    ]
    assert len(content.seen) > TRIES


def test_from_the_hub_to_the_node(
    server: Hub, cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lock, payload, installer and the node's own check agree on every path."""
    todo = pinned(ANY, cache)
    layer = tmp_path / "layer"
    layer.write_bytes(b"layer")
    layers = {one.file: layer for one in todo.layers}
    gathered = payload.make(todo, layers, inputs.models(todo, Path(), cache))
    medium, node = tmp_path / "medium", tmp_path / "node"
    for path, file in gathered.files.items():
        (medium / path).parent.mkdir(parents=True, exist_ok=True)
        (medium / path).write_bytes(file if isinstance(file, bytes) else file.read_bytes())
    manifest = installer_payload.parse_manifest(gathered.manifest_bytes)
    installer_payload.verify(medium, installer_payload.used_by(manifest, manifest.nodes[0]), lambda *_: None)
    system.models(node, Medium(medium), manifest, lambda *_: None)
    placed = node / "srv/models"
    assert {name: (placed / name).read_bytes() for name in in_folder("org--name")} == in_folder("org--name")

    script = Path(__file__).parents[2] / "overlays/site/rootfs/usr/lib/builder/verify-models"
    loader = importlib.machinery.SourceFileLoader("verify_models", str(script))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.MANIFEST, module.MODELS = tmp_path / "manifest.json", placed
    module.MANIFEST.write_bytes(gathered.manifest_bytes)
    assert module.main() == 0
    (placed / "org--name/sub folder/twin.gguf").chmod(0o644)
    (placed / "org--name/sub folder/twin.gguf").write_bytes(WEIGHTS[:-1] + b"!")
    assert module.main() == 1
    assert "org--name/sub folder/twin.gguf: damaged" in capsys.readouterr().out
