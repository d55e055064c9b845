"""A copy in two parts: together they are everything."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.media import imagecopy
from builder.media.imagecopy import LARGE
from builder.media.isoimage import BLOCK, Extent

ranges = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 50)).map(lambda pair: (pair[0], sum(pair))))


@given(st.integers(0, 250), ranges)
def test_what_is_between_is_the_rest(size: int, later: list[imagecopy.Range]) -> None:
    first = [byte for start, end in imagecopy.between(size, later) for byte in range(start, end)]
    covered = {byte for start, end in later for byte in range(start, end)}
    assert first == [byte for byte in range(size) if byte not in covered]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(os.urandom(3 * LARGE + 1234))
    return path


EXTENTS = [Extent(16, LARGE + 5), Extent(17 + LARGE // BLOCK, 3000), Extent(LARGE // BLOCK * 2, LARGE)]


@pytest.mark.parametrize("kernel_copies", [True, False])
def test_a_copy_that_is_filled_later(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_copies: bool
) -> None:
    def refuse(*_arguments: object) -> int:
        raise OSError(errno.EXDEV, "between two file systems")

    monkeypatch.setattr("fcntl.ioctl", refuse)
    if not kernel_copies:
        monkeypatch.setattr("os.copy_file_range", refuse)
    target = tmp_path / "target"
    later = imagecopy.begin(source, target, EXTENTS)
    assert later == [(16 * BLOCK, 16 * BLOCK + LARGE + 5), (2 * LARGE, 3 * LARGE)]
    assert target.stat().st_size == source.stat().st_size
    expected, so_far = source.read_bytes(), target.read_bytes()
    for start, end in later:
        assert so_far[start:end] == bytes(end - start)
    imagecopy.copy(source, target, later)
    assert target.read_bytes() == expected


def test_where_blocks_can_be_shared_nothing_is_left_to_do(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.ioctl", lambda *_arguments: 0)
    assert imagecopy.begin(source, tmp_path / "target", EXTENTS) == []


def test_a_full_disk_is_an_error(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fcntl.ioctl", full)
    monkeypatch.setattr("os.copy_file_range", full)
    with pytest.raises(OSError, match="No space"):
        imagecopy.begin(source, tmp_path / "target", EXTENTS)
