"""What of a models partition that stayed is still right."""

from __future__ import annotations

import hashlib
from pathlib import Path

from builder.installer import keep, system
from builder.installer.model import File, Manifest, Model, Storage
from builder.installer.source import Medium

CONTENT = {"tiny.gguf": b"tiny", "org--name/a.bin": b"aaaa", "org--name/b/c.bin": b"cccc", "twin": b"tiny"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def manifest(**content: bytes) -> Manifest:
    wanted = content or CONTENT
    files = {sha256(data): File(f"models/{sha256(data)}", len(data), sha256(data)) for data in wanted.values()}
    models = tuple(Model(name, f"models/{sha256(data)}") for name, data in wanted.items())
    index = {file.path: file for file in files.values()}
    return Manifest("c", "p", tuple(files.values()), (), models, (), Storage(0, None, 0, keep=True), index=index)


def fill(folder: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def left(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_that_is_right_stays(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fill(tmp_path, CONTENT)
    assert keep.sort_out(tmp_path, manifest(), lambda *done: seen.append(done)) == set(CONTENT)
    assert left(tmp_path) == CONTENT and seen[-1] == (16, 16)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()} == {0o444}


def test_all_else_goes(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", {"a.bin": b"aaaa"})
    folder = fill(
        tmp_path / "models",
        {
            "tiny.gguf": b"tinY",  # another byte
            "twin": b"tin",  # cut short
            "org--name/b": b"a file where a folder has to be",
            "old/model.gguf": b"old",
            "SHA256SUMS": b"x",
            "tiny.gguf.part": b"ti",
        },
    )
    (folder / "lost+found").mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "org--name/a.bin").symlink_to(outside / "a.bin")  # it would be right, but it is not here
    assert keep.sort_out(folder, manifest(), lambda *_done: None) == frozenset()
    assert left(folder) == {}
    assert [path.name for path in folder.iterdir()] == ["lost+found"]
    assert (outside / "a.bin").read_bytes() == b"aaaa"


def test_only_what_is_missing_is_brought(tmp_path: Path) -> None:
    """A server or a medium that has nothing but the one file is enough."""
    found = manifest()
    medium = tmp_path / "medium"
    fill(medium, {f"models/{sha256(b'cccc')}": b"cccc"})
    fill(tmp_path / "node/srv/models", {**CONTENT, "org--name/b/c.bin": b"CCCC"})
    system.models(tmp_path / "node", Medium(medium), found, lambda *_done: None)
    after = left(tmp_path / "node/srv/models")
    sums = after.pop("SHA256SUMS").decode()
    assert after == CONTENT
    assert sums == "".join(f"{sha256(data)}  {name}\n" for name, data in CONTENT.items())
