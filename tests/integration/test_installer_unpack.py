"""Layers and models on their way from the medium to the node, with the real programs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from builder import run as host
from builder.installer import commands, system
from builder.installer.model import File, InstallError, Manifest, Model, Storage
from builder.installer.source import Medium
from tests.integration.imagelab import MIB, MODEL, need, squash

pytestmark = pytest.mark.tools


def test_layers_are_unpacked_lowest_first(layers: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "target"
    for layer in layers:
        system.unpack(layer, target, lambda done, total: None)
    assert (target / "etc/hostname").read_text() == "site\n"
    assert (target / "usr/lib/big").stat().st_size == MIB
    assert (target / "etc/builder/site").read_text() == "yes\n"


def test_unpacking_reports_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mksquashfs", "unsquashfs")
    (tmp_path / "tree").mkdir()
    for index in range(40):
        (tmp_path / f"tree/{index}").write_bytes(os.urandom(4 * MIB))
    layer = squash(tmp_path / "tree", tmp_path / "layer.squashfs")
    seen: list[tuple[int, int]] = []
    defaults = {**(commands.run.__kwdefaults__ or {}), "poll_every": 0.01}
    monkeypatch.setattr(commands.run, "__kwdefaults__", defaults)
    system.unpack(layer, tmp_path / "target", lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {layer.stat().st_size}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert 0 < seen[-1][0] <= layer.stat().st_size


def test_a_damaged_layer_fails_the_step(layers: tuple[Path, Path], tmp_path: Path) -> None:
    layers[0].write_bytes(b"not a squashfs")
    with pytest.raises(InstallError, match=r"unpacking node\.squashfs: unsquashfs exited 1"):
        system.unpack(layers[0], tmp_path / "target", lambda done, total: None)


def test_a_copy_is_verified_while_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/x").write_bytes(MODEL)
    medium = Medium(tmp_path)
    medium.copy(File("models/x", len(MODEL), hashlib.sha256(MODEL).hexdigest()), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == MODEL
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o444
    with pytest.raises(InstallError, match="models/x read differently"):
        medium.copy(File("models/x", len(MODEL), "0" * 64), tmp_path / "other")


def test_models_are_copied_with_their_folders(tmp_path: Path) -> None:
    contents = {"tiny.gguf": MODEL, "org--name/config.json": b"{}", "org--name/a b/w.bin": MODEL}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    (tmp_path / "medium/models").mkdir(parents=True)
    for name, data in contents.items():
        (tmp_path / "medium/models" / digests[name]).write_bytes(data)
    files = tuple(
        File(f"models/{digest}", size, digest)
        for digest, size in {digests[name]: len(data) for name, data in contents.items()}.items()
    )
    manifest = Manifest(
        cluster="test",
        plan="x",
        files=files,
        layers=(),
        models=tuple(Model(name, f"models/{digest}") for name, digest in digests.items()),
        nodes=(),
        storage=Storage(0, None, 0),
        index={file.path: file for file in files},
    )
    seen: list[tuple[int, int]] = []
    system.models(tmp_path / "node", Medium(tmp_path / "medium"), manifest, lambda *done: seen.append(done))
    placed = tmp_path / "node/srv/models"
    assert {name: (placed / name).read_bytes() for name in contents} == contents
    assert {(placed / name).parent.stat().st_mode & 0o777 for name in contents} == {0o755}
    assert seen[-1] == (2 * len(MODEL) + 2,) * 2
    host.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], step="checking", cwd=placed)
