"""Python packages laid out as a virtual environment of a node's Python, in a tree, offline.

Nothing of theirs is run. What :mod:`builder.sources.wheels` pins and fetches comes in as files.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import installer
from installer.destinations import SchemeDictionaryDestination
from installer.exceptions import InstallerError
from installer.sources import WheelFile

from builder.errors import BuilderError, Exit


def install(wheels: Iterable[tuple[str, Path]], tree: Path, prefix: str, python: str) -> Path:
    """Lay wheels (file name, path) out in ``tree`` as the virtual environment ``prefix`` of
    ``/usr/bin/pythonX.Y``.

    Returns the folder of its packages, in the tree. Nothing is compiled here: that is for the node's own Python,
    in a sandbox, with :func:`compile_argv`. Raises BuilderError naming the wheel that cannot be unpacked.
    """
    home = tree / prefix.lstrip("/")
    site = home / site_of(python)
    for folder in (site, home / "bin"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3", f"python{python}"):
        (home / "bin" / name).symlink_to(f"/usr/bin/python{python}")
    config = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n"
    (home / "pyvenv.cfg").write_text(config)
    schemes = {
        "purelib": f"{prefix}/{site_of(python)}",
        "platlib": f"{prefix}/{site_of(python)}",
        "headers": f"{prefix}/include",
        "scripts": f"{prefix}/bin",
        "data": prefix,
    }
    for file, path in wheels:
        destination = SchemeDictionaryDestination(
            schemes,
            interpreter=f"{prefix}/bin/python",
            script_kind="posix",
            destdir=str(tree),
            overwrite_existing=True,
        )
        try:
            with _Named(path, file) as whole, WheelFile.open(whole) as source:
                installer.install(source, destination, {"INSTALLER": b"cluster-image-builder\n"})
        except (ValueError, OSError, KeyError, zipfile.BadZipFile, InstallerError) as error:
            raise BuilderError(f"{file} cannot be unpacked: {error}", code=Exit.TOOL) from error
    for script in (home / "bin").iterdir():
        if not script.is_symlink():
            script.chmod(0o755)  # not every wheel says so of its scripts
    return site


def site_of(python: str) -> str:
    """The folder of a virtual environment's packages, below its prefix."""
    return f"lib/python{python}/site-packages"


def compile_argv(folder: str, as_folder: str, python: str) -> list[str]:
    """Byte-compile ``folder`` for use as ``as_folder``; the same bytes whenever it is done, as no date goes in."""
    argv = [f"/usr/bin/python{python}", "-m", "compileall", "-q", "-j", "0"]
    # Unchecked: a layer is read-only, so nothing that was compiled can become stale.
    return [*argv, "--invalidation-mode", "unchecked-hash", "-s", folder, "-p", as_folder, folder]


class _Named:
    """A blob under the file name that a wheel must have: its tags are in it."""

    def __init__(self, blob: Path, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="builder-wheel-")
        self.path = Path(self._folder.name) / name
        self.path.symlink_to(blob.absolute())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
