"""Removing: a tree, but nothing that is mounted in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import files
from builder.errors import BuilderError


def test_what_is_mounted_below_the_outer_ones_first(tmp_path: Path) -> None:
    table = (
        f"/dev/vda / ext4 rw 0 0\nsys {tmp_path}/a/sys sysfs ro 0 0\n"
        f"none {tmp_path}/a/für\\040alle devpts rw 0 0\nnone {tmp_path}/ab devpts rw 0 0\n"
    )
    assert files.mounts_below(tmp_path / "a", table) == [f"{tmp_path}/a/sys", f"{tmp_path}/a/für alle"]
    assert files.mounts_below(tmp_path / "b", table) == []


def test_a_folder_with_a_mount_in_it_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """/ has mounts in it on every machine; so that a mistake here is not the end of one, nothing is removed."""
    monkeypatch.setattr("shutil.rmtree", lambda path: pytest.fail(f"would have removed {path}"))
    with pytest.raises(BuilderError) as caught:
        files.remove(Path("/"))
    assert "is mounted in it" in caught.value.message and "umount" in caught.value.hint


def test_a_tree_is_removed_and_what_a_link_names_is_not(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    files.remove(tmp_path / "tree")
    files.remove(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
