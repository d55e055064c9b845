"""A copy in two parts: together they are everything."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.media import imagecopy
from builder.media.imagecopy import LARGE, PAGE
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


EXTENTS = [Extent(17, LARGE + 5), Extent(18 + LARGE // BLOCK, 3000), Extent(LARGE // BLOCK * 2, LARGE)]


def refuse(*_arguments: object) -> int:
    raise OSError(errno.EINVAL, "this file system does not")


def cut_short(descriptor: int, data: bytes, at: int) -> int:
    """A write that does less than it was asked to."""
    return PWRITE(descriptor, data[: len(data) // 3 // PAGE * PAGE], at)


PWRITE = os.pwrite
OPEN = os.open


@pytest.mark.parametrize("how", ["past the cache", "no O_DIRECT", "refused late", "cut short", "by hand"])
def test_a_copy_that_is_filled_later(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("fcntl.ioctl", refuse)
    target = tmp_path / "target"
    if how == "by hand":
        monkeypatch.setattr("os.copy_file_range", refuse)
    later = imagecopy.begin(source, target, EXTENTS)
    assert later == [(9 * PAGE, 8 * PAGE + LARGE), (2 * LARGE, 3 * LARGE)]
    assert target.stat().st_size == source.stat().st_size
    expected, so_far = source.read_bytes(), target.read_bytes()
    for start, end in later:
        assert so_far[start:end] == bytes(end - start)
        assert so_far[start - 1] == expected[start - 1]
        assert so_far[end] == expected[end]
    if how in ("no O_DIRECT", "by hand"):
        monkeypatch.setattr("os.open", lambda path, flags: refuse() if flags & os.O_DIRECT else OPEN(path, flags))
    if how == "refused late":
        turns = iter([False])
        monkeypatch.setattr("os.pwrite", lambda *what: PWRITE(*what) if not next(turns, True) else refuse())
    if how == "cut short":
        monkeypatch.setattr("os.pwrite", cut_short)
    imagecopy.copy_past_cache(source, target, later)
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
    (tmp_path / "target").write_bytes(bytes(3 * LARGE))
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(OSError, match="No space"):
        imagecopy.copy_past_cache(source, tmp_path / "target", [(LARGE, 2 * LARGE)])
