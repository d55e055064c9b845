"""The cache: inputs by the digest of their bytes, products by the digest of everything that made them.

    <cache>/blobs/<sha256>            a downloaded file
    <cache>/products/<kind>/<digest>/ a finished layer, boot kit, …
    <cache>/partial/                  downloads that were cut; they resume from here

Nothing here is ever changed in place, so a killed build can lose only what it was just making.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from builder.console import say
from builder.files import complete_or_absent, remove


def default_root() -> Path:
    """``$XDG_CACHE_HOME/cluster-image-builder``, or the same under ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "cluster-image-builder"


class Cache:
    """One cache folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob(self, sha256: str) -> Path:
        """Where the bytes with this digest are, or would be."""
        return self.root / "blobs" / sha256

    def partial(self, name: str) -> Path:
        """Where a download of this name (a digest) collects its bytes."""
        return self.root / "partial" / name

    def product(self, kind: str, digest: str) -> Path:
        """The folder of a finished product, there or not."""
        return self.root / "products" / kind / digest

    @contextlib.contextmanager
    def make(self, kind: str, digest: str) -> Iterator[Path]:
        """Yield an empty folder to fill; it becomes ``product(kind, digest)`` if the block ends well."""
        with complete_or_absent(self.product(kind, digest), step=f"making the {kind}") as part:
            part.mkdir()
            yield part

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """An empty folder for large temporary files, removed at the end.

        Not in the cache: a user's home is closed to others, and mmdebstrap works as another user where we are
        not root. The name is always the same for this cache, so what a killed build left behind goes now.
        """
        mine = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        folder = Path(os.environ.get("TMPDIR", "/var/tmp")) / f"cluster-image-builder-{mine}-{name}"
        remove(folder)
        folder.mkdir(mode=0o755)
        try:
            yield folder
        finally:
            remove(folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cache for one build; a second build waits, and says so."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another build uses {self.root}; waiting for it to end")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def clean(self) -> None:
        """Remove everything."""
        remove(self.root)
