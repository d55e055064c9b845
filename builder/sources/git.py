"""The sources that engines are built from: a commit of a git repository, as a tar in the cache, by digest.

git holds what it brings to the commit's id. The lock holds the SHA-256 of the tar that ``git archive`` makes of
it, so that a build whose cache is empty can prove that it has the same source again, from wherever it came.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder import console
from builder.cache import Cache
from builder.engines.recipe import Source
from builder.errors import BuilderError, Exit
from builder.files import mismatch, sha256_of
from builder.run import run

# The commit's own date and owner root; umask as everywhere, whatever the user's git says.
_ARCHIVE = ("-c", "tar.umask=0022", "archive", "--format=tar")


@dataclass(frozen=True)
class LockedSource:
    """``sha256`` and ``size`` (bytes) of the tar."""

    name: str
    commit: str
    sha256: str
    size: int


def place(source: Source) -> str:
    """Where it is taken from: what the user's environment says, else where it is published."""
    return os.environ.get(source.variable) or source.url


def pin(source: Source, folder: Path, cache: Cache) -> LockedSource:
    """Bring a source into the cache. ``folder``: what a relative path is relative to.

    Raises BuilderError (FETCH): out of reach, or without that commit.
    """
    with (
        console.step(f"source: {source.name} {source.commit[:12]} from {place(source)}"),
        _tar(source, folder) as tar,
    ):
        found = LockedSource(source.name, source.commit, sha256_of(tar), tar.stat().st_size)
        _keep(tar, found, cache)
    return found


def obtain(source: Source, locked: LockedSource, folder: Path, cache: Cache) -> Path:
    """The tar of a source that the lock pins. Raises BuilderError (FETCH), also if its digest is another one."""
    blob = cache.blob(locked.sha256)
    if not blob.exists():
        found = pin(source, folder, cache)
        if found.sha256 != locked.sha256:
            hint = "is it the same repository? If the source was meant to change: builder lock --update"
            raise mismatch(f"the source of {source.name}", locked.sha256, found.sha256, hint=hint)
    return blob


def reader(tar: Path) -> Callable[[str], str]:
    """A function that reads a text file of a source by its path."""

    def read(path: str) -> str:
        with tarfile.open(tar) as opened:
            try:
                file = opened.extractfile(path)
            except KeyError:
                file = None
            if file is None:
                raise BuilderError(f"{tar.name}: the source has no file {path}", code=Exit.FETCH)
            return file.read().decode()

    return read


@contextmanager
def _tar(source: Source, folder: Path) -> Iterator[Path]:
    where = place(source)
    with tempfile.TemporaryDirectory(prefix="builder-source-", dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        work = Path(name)
        if "://" in where or where.startswith("git@"):
            repository = work / "git"
            run(["git", "init", "--quiet", "--bare", repository], step="fetching a source")
            fetch: list[str | Path] = [
                "git",
                "-C",
                repository,
                "fetch",
                "--quiet",
                "--depth",
                "1",
                where,
                source.commit,
            ]
            done = run(fetch, step="fetching a source", env={"GIT_TERMINAL_PROMPT": "0"}, check=False)
            if done.returncode != 0:
                raise _unreachable(source, where, done.stderr)
        else:
            repository = folder / Path(where).expanduser()
            if not repository.is_dir():
                raise _unreachable(source, where, "there is no such folder")
        tar = work / "source.tar"
        git: list[str | Path] = [
            "git",
            "-c",
            f"safe.directory={repository}",
            "-C",
            repository,
            *_ARCHIVE,
            "--output",
            tar,
            source.commit,
        ]
        done = run(git, step="packing a source", check=False)
        if done.returncode != 0:
            raise _unreachable(source, where, done.stderr)
        yield tar


def _keep(tar: Path, found: LockedSource, cache: Cache) -> None:
    blob = cache.blob(found.sha256)
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = cache.partial(found.sha256)
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(tar.read_bytes())
    part.replace(blob)


def _unreachable(source: Source, where: str, said: str) -> BuilderError:
    lines = "\n".join(f"  | {line}" for line in said.strip().splitlines()[-5:])
    return BuilderError(
        f"the source of {source.name} cannot be had from {where}, at commit {source.commit}\n{lines}",
        hint=f"{source.variable} names another git repository that has it: a URL, or a path on this machine",
        code=Exit.FETCH,
    )
