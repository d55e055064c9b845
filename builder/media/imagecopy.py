"""A copy of an ISO image that can be worked on before all of it is there.

xorriso needs the directories of the image that it grows, and not what is in its files. So the large files can
follow while it writes: on two cores that takes the time of one of both.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from builder.media.isoimage import BLOCK, Extent

LARGE = 4 << 20  # bytes, from which on an extent may follow later
_CHUNK = 1 << 20
_CLONE = 0x40049409  # FICLONE of linux/fs.h
_CANNOT = (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ETXTBSY)

Range = tuple[int, int]  # the first byte, and the first that is not in it


def begin(source: Path, target: Path, extents: Iterable[Extent]) -> list[Range]:
    """Make ``target`` as large as ``source``, with all of its bytes but those of large ``extents``.

    Returns the ranges that are still to be copied: none where the file system can share the source's blocks.
    """
    with source.open("rb") as old, target.open("wb") as new:
        try:
            fcntl.ioctl(new.fileno(), _CLONE, old.fileno())
            return []
        except OSError:  # whatever the reason, copying is the answer
            new.truncate(source.stat().st_size)
    later = [range_of(extent) for extent in extents if extent.size >= LARGE]
    copy(source, target, between(source.stat().st_size, later))
    return later


def range_of(extent: Extent) -> Range:
    return extent.block * BLOCK, extent.block * BLOCK + extent.size


def between(size: int, ranges: Iterable[Range]) -> Iterator[Range]:
    """What of ``size`` bytes is in none of ``ranges``, which may overlap. Pure."""
    at = 0
    for start, end in sorted(ranges):
        if at < min(start, size):
            yield at, min(start, size)
        at = max(at, end)
    if size > at:
        yield at, size


def copy(source: Path, target: Path, ranges: Iterable[Range]) -> None:
    """Copy ranges of a file to the same places of another."""
    with source.open("rb", buffering=0) as old, target.open("r+b", buffering=0) as new:
        for start, end in ranges:
            at = start
            while at < end and (done := _some(old.fileno(), new.fileno(), at, end - at)):
                at += done


def _some(old: int, new: int, at: int, size: int) -> int:
    """Copy some bytes, by the kernel where it can; returns how many."""
    try:
        return os.copy_file_range(old, new, min(size, 1 << 30), at, at)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    return os.pwrite(new, os.pread(old, min(size, _CHUNK), at), at)
