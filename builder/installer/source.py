"""Where the payload's files come from, one shape for all: a medium, here, or a server, in :mod:`web`.

The recipe asks for files by their entry in the manifest and does not know which it is.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from . import payload
from .commands import Log, quiet
from .model import File, InstallError, Manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Source:
    """The payload of one install. What is handed out was held to the manifest's digest."""

    where = ""  # for people

    def manifest(self) -> bytes:
        """The manifest as it is stored."""
        raise NotImplementedError

    def prove(self, manifest: Manifest, files: tuple[File, ...], progress: payload.Progress) -> None:
        """Show that ``files`` are whole, before anything is written. Raises InstallError naming the first that
        is not."""
        raise NotImplementedError

    def copy(
        self, file: File, target: Path, progress: Callable[[int], None] | None = None, mode: int = 0o444
    ) -> None:
        """Write one file to ``target``, and fsync it; ``progress`` gets bytes done. Raises InstallError."""
        raise NotImplementedError

    def local(self, file: File, folder: Path, progress: Callable[[int], None] | None = None) -> Path:
        """A path that a program can read ``file`` at; a copy that this needs goes into ``folder``."""
        raise NotImplementedError

    def beside(self, manifest: Manifest) -> int:
        """Bytes that :meth:`local` takes of the root file system, while the layers are unpacked."""
        return 0

    def drop(self, path: Path) -> None:
        """A path from :meth:`local` is needed no more."""

    def release(self, log: Log = quiet) -> None:
        """Let go of what was held."""


class Medium(Source):
    """A folder: of a mounted medium, or of a live system."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def manifest(self) -> bytes:
        return (self.root / "manifest.json").read_bytes()

    def prove(self, manifest: Manifest, files: tuple[File, ...], progress: payload.Progress) -> None:
        payload.verify(self.root, files, progress)

    def copy(
        self, file: File, target: Path, progress: Callable[[int], None] | None = None, mode: int = 0o444
    ) -> None:
        try:
            with (self.root / file.path).open("rb", buffering=0) as reader:
                digest = write_parts(iter(lambda: reader.read(payload.CHUNK), b""), target, progress, mode)
        except OSError as error:
            raise InstallError(f"copying {target.name}: {error.strerror}") from error
        if digest != file.sha256:
            raise InstallError(f"{file.path} read differently while it was copied: the medium is failing")

    def local(self, file: File, folder: Path, progress: Callable[[int], None] | None = None) -> Path:
        return self.root / file.path

    def release(self, log: Log = quiet) -> None:
        payload.release(log)


def write_parts(
    chunks: Iterable[bytes], target: Path, progress: Callable[[int], None] | None = None, mode: int = 0o444
) -> str:
    """Write a file from its parts, hashing what is written, and fsync it. Returns the sha256. Raises OSError."""
    hasher = hashlib.sha256()
    done = 0
    with target.open("wb", buffering=0) as writer:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[writer.write(view) :]
            hasher.update(chunk)
            done += len(chunk)
            if progress:
                progress(done)
        os.fchmod(writer.fileno(), mode)
        os.fsync(writer.fileno())
    return hasher.hexdigest()
