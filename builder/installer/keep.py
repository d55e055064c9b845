"""Models that outlive a reinstall: which partition may stay, and which of its files are still the right ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from . import layout
from .model import Disk, Manifest, human
from .payload import CHUNK, Progress

SYSFS = Path("/sys/class/block")
UNIT = 512  # bytes that sysfs counts a partition's start in
NAME = "builder-models"


def partition(target: Disk, start_of: layout.Starts | None = None) -> layout.Kept | None:
    """Where the disk's models partition lies, if it has one with a file system of ours."""
    read = start_of or start
    for child in target.children:
        if child.partlabel == NAME and child.fstype == "ext4":
            begins = read(child.name)
            return None if begins is None else layout.Kept(child.path, begins, child.size)
    return None


def start(name: str) -> int | None:
    """Where a partition begins, in bytes; None if the kernel does not tell."""
    try:
        return int((SYSFS / name / "start").read_text()) * UNIT
    except (OSError, ValueError):
        return None


def sort_out(folder: Path, manifest: Manifest, progress: Progress) -> frozenset[str]:
    """The models that are in ``folder`` and whole; everything else there is removed, to make room."""
    wanted = {folder / model.name: (model.name, manifest.file(model.path)) for model in manifest.models}
    total = sum(manifest.model_sizes)
    kept: set[str] = set()
    done = 0
    for path in sorted(folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            continue
        name, file = wanted.get(path, ("", None))
        if file and path.is_file() and not path.is_symlink() and path.stat().st_size == file.size:
            done += file.size
            if _sha256(path) == file.sha256:
                path.chmod(0o444)
                kept.add(name)
                progress(done, total)
                continue
        path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and path.name != "lost+found" and not any(path.iterdir()):
            path.rmdir()
    return frozenset(kept)


def told(manifest: Manifest, kept: layout.Kept) -> str:
    """For people: what stays."""
    return f"{kept.path} stays, {human(kept.size)}; its files are held to the digests of {len(manifest.models)}"


def _sha256(path: Path) -> str:
    hasher = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as stream:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return ""  # it cannot be read, so it is brought anew
    return hasher.hexdigest()
