"""Files on this machine: digests, output that is complete or absent, and room on the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from builder.console import human
from builder.errors import BuilderError, Exit

CHUNK = 1 << 20


def sha256_of(path: Path, advance: Callable[[int], object] = lambda _n: None) -> str:
    """The SHA-256 of a file as 64 hex digits; ``advance`` is told of each chunk's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


@contextlib.contextmanager
def complete_or_absent(path: Path, *, step: str) -> Iterator[Path]:
    """Yield a ``.part`` path beside ``path``; it gets its final name only if the block ends well.

    Raises BuilderError naming ``step`` when the disk fills up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    remove(part)
    try:
        with naming_full_disk(step, path.parent):
            yield part
            _sync(part)
            if part.is_dir():
                remove(path)
            part.replace(path)
    except BaseException:
        remove(part)
        raise


def remove(path: Path) -> None:
    """Remove a file or a tree, whatever it is, if it is there.

    Raises BuilderError if something is mounted in the tree: that is not ours to remove.
    """
    if path.is_dir() and not path.is_symlink():
        if mounted := mounts_below(path, Path("/proc/self/mounts").read_text()):
            raise BuilderError(
                f"{path} is not removed: {mounted[0]} is mounted in it",
                hint=f"umount {' '.join(reversed(mounted))}",
            )
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def mounts_below(path: Path, table: str) -> list[str]:
    """The mount points in a folder, by the kernel's ``table``, the outer ones first. Pure."""
    octal = re.compile(r"\\([0-7]{3})")  # how the kernel writes a space
    points = [octal.sub(lambda code: chr(int(code[1], 8)), line.split()[1]) for line in table.splitlines()]
    return [point for point in points if Path(point).is_relative_to(path.resolve())]


@contextlib.contextmanager
def naming_full_disk(step: str, folder: Path) -> Iterator[None]:
    """Turn "no space left" into an error that says which step it was and where."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BuilderError(
            f"{step}: the disk of {folder} is full",
            hint=f"{human(shutil.disk_usage(folder).free)} are free; see --cache and --out for other places",
        ) from error


def need_room(folder: Path, size: int, *, step: str) -> None:
    """Refuse to begin a step that needs ``size`` bytes in ``folder`` when fewer are free.

    Raises BuilderError with both numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise BuilderError(
            f"{step} needs {human(size)} in {folder}, where {human(free)} are free",
            hint="free some space, or point --cache and --out at a larger disk; `builder clean` empties both",
        )


def link_or_copy(source: Path, target: Path) -> None:
    """Give ``source`` a second name; copy it only where two file systems forbid a link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        shutil.copyfile(source, target)


def mismatch(name: str, expected: str, actual: str, *, code: Exit = Exit.FETCH, hint: str = "") -> BuilderError:
    """The error for a file whose digest is not the one that was promised."""
    return BuilderError(
        f"{name}: wrong content\n  expected sha256 {expected}\n  got      sha256 {actual}",
        hint=hint,
        code=code,
    )


def _sync(path: Path) -> None:
    """Flush one finished file, so that a rename never outlives its bytes after a power cut."""
    if path.is_file():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
