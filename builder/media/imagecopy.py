"""A copy of an ISO image that can be worked on before all of it is there.

xorriso needs the directories of the image that it grows, and not what is in its files. So the large files can
follow while it writes.

They go past the page cache where the file system can do that: gigabytes that nobody reads soon would push out
what somebody does, and most of the time that ``cp`` takes is spent on finding pages for them. So a remaster can be
faster than ``cp`` with ``sync``.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from builder.media.isoimage import BLOCK, Extent

LARGE = 4 << 20  # bytes, from which on an extent may follow later
PAGE = 4096  # bytes; what goes past the page cache has to begin and end at multiples of the disk's sectors
_CHUNK = 4 << 20
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
    later = [whole_pages(extent) for extent in extents if extent.size >= LARGE]
    copy(source, target, between(source.stat().st_size, later))
    return later


def whole_pages(extent: Extent) -> Range:
    """The part of an extent that begins and ends with a page. Pure."""
    start = extent.block * BLOCK
    return -(-start // PAGE) * PAGE, (start + extent.size) // PAGE * PAGE


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


def copy_past_cache(source: Path, target: Path, ranges: Iterable[Range]) -> None:
    """Copy ranges of whole pages past the page cache, where that can be done; else as :func:`copy` does."""
    rest = list(ranges)
    with suppress(_RefusedError), source.open("rb", buffering=0) as old, _past_cache(target) as new:
        buffer = memoryview(mmap.mmap(-1, _CHUNK))  # begins with a page
        while rest:
            start, end = rest[0]
            got = os.preadv(old.fileno(), [buffer[: min(_CHUNK, end - start)]], start)
            done = _written(new, buffer[:got], start)
            rest[0] = start + done, end
            if done < min(_CHUNK, end - start):
                break  # cut short, and so no longer at the beginning of a page
            if start + done == end:
                rest.pop(0)
    copy(source, target, rest)


class _RefusedError(Exception):
    """The file system does not write past the page cache."""


@contextmanager
def _past_cache(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_DIRECT)
    except OSError as error:
        raise _RefusedError from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _written(descriptor: int, data: memoryview, at: int) -> int:
    try:
        return os.pwrite(descriptor, data, at)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        raise _RefusedError from error


def _some(old: int, new: int, at: int, size: int) -> int:
    """Copy some bytes, by the kernel where it can; returns how many."""
    try:
        return os.copy_file_range(old, new, min(size, 1 << 30), at, at)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    return os.pwrite(new, os.pread(old, min(size, _CHUNK), at), at)
