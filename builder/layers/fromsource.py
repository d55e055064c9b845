"""What an engine builds from source: in a root of pinned packages, of which nothing comes to the node.

The result is kept in the cache by the digest of all that went in, so that a change to the engine's other packages
does not compile anything again.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder import console, sandbox
from builder.cache import Cache
from builder.canonical import code_digest, digest
from builder.engines.recipe import Edit, Recipe, Step
from builder.errors import BuilderError
from builder.files import need_room
from builder.lock import Lock
from builder.run import run
from builder.sources.apt import Package
from builder.sources.wheels import Wheel

# What the build's root takes beside its packages' own files, sources and compiled objects: as measured.
_ROOM = 4 << 30


def make(recipe: Recipe, lock: Lock, blobs: Mapping[str, Path], cache: Cache, python: str) -> Path:
    """A folder with ``home/``, for the engine's home on the node, and ``wheels/``.

    ``blobs``: packages, source archives and sources by sha256. Raises BuilderError quoting the step that failed.
    """
    archives = [wheel for wheel in lock.wheels if not wheel.is_built]
    inputs = {
        "code": code_digest("layers/fromsource.py", "sandbox.py"),
        "recipe": dataclasses.asdict(recipe),
        "python": python,
        "tools": [package.sha256 for package in lock.tools],
        "sources": [source.sha256 for source in lock.sources],
        "archives": [wheel.sha256 for wheel in archives],
    }
    name = digest(inputs)
    made = cache.product("built", name)
    if made.exists():
        return made
    with cache.scratch("source") as work, cache.make("built", name) as part:
        need_room(work, _ROOM, step="building an engine from source")
        root = work / "root"
        with console.step(f"build root: {len(lock.tools)} packages"):
            unpack(lock.tools, blobs, root)
        build = _Build(root, work)
        for source in lock.sources:
            folder = work / "in" / source.name
            folder.mkdir(parents=True)
            run(["tar", "-xf", blobs[source.sha256], "-C", folder], step=f"unpacking {source.name}")
        for edit in recipe.edits:
            mend(work / "in" / edit.source, edit)
        for step in recipe.steps:
            build.step(step)
        (work / "in" / "wheels").mkdir(parents=True)
        for wheel in archives:
            shutil.copyfile(blobs[wheel.sha256], work / "in" / wheel.file)
            build.wheel(wheel.file, wheel.name, python)
        for source_name in recipe.wheels:
            build.wheel(source_name, source_name, python)
        (work / "in" / "wheels").rename(part / "wheels")
        for source_name, path, target in recipe.installs:
            _place(work / "in" / source_name / path, part / "home" / target)
    return made


def unpack(packages: Sequence[Package], blobs: Mapping[str, Path], root: Path) -> None:
    """Unpack packages into a root, without configuring any."""
    root.mkdir(parents=True, exist_ok=True)
    # base-files brings the links /bin, /lib, … that the others' files must be unpacked through.
    for package in sorted(packages, key=lambda package: package.name != "base-files"):
        run(["dpkg-deb", "--extract", blobs[package.sha256], root], step=f"unpacking {package.name}")


def mend(source: Path, edit: Edit) -> None:
    """Apply an edit. Raises BuilderError if the source is not what the edit was made for."""
    path = source / edit.path
    text = path.read_text() if path.is_file() else ""
    if text.count(edit.old) != 1:
        raise BuilderError(
            f"{edit.source}: {edit.path} has {text.count(edit.old)} of the places that are to be mended, not 1",
            hint="the edit belongs to another version: see the engine's module",
        )
    path.write_text(text.replace(edit.old, edit.new))


class _Build:
    """The build's root, with a home that its programs may write to and the sources under /mnt/in."""

    def __init__(self, root: Path, work: Path) -> None:
        self._root = root
        for name in ("home", "in"):
            (work / name).mkdir()
        self._binds = {"home": work / "home", "in": work / "in"}
        sandbox.mount_points(root)
        _trust(root)
        _compilers(root)

    def step(self, step: Step) -> None:
        """Run one step of a recipe."""
        at = f"/mnt/in/{step.source}/{step.at}"
        with console.step(step.what):
            self._run(step.argv, step.what, at=at, env=dict(step.env), network=step.network)

    def wheel(self, path: str, name: str, python: str) -> None:
        """Make a wheel of a source archive, or of a source, by its name below /mnt/in."""
        argv = [f"/usr/bin/python{python}", "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
        argv += ["--no-build-isolation", "--wheel-dir", "/mnt/in/wheels", f"/mnt/in/{path}"]
        with console.step(f"building {name}"):
            self._run(argv, f"building {name}", at="/mnt/in", env={}, network=False)

    def _run(self, argv: Sequence[str], step: str, *, at: str, env: Mapping[str, str], network: bool) -> None:
        everyone = {"HOME": "/mnt/home", "SOURCE_DATE_EPOCH": "1"}
        sandbox.inside(
            self._root, argv, step=step, binds=self._binds, at=at, env={**everyone, **env}, network=network
        )


def _trust(root: Path) -> None:
    """Gather the root's certificates in one file, as configuring ca-certificates would: pip wants it there."""
    certificates = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(path.read_bytes() for path in certificates))


def _compilers(root: Path) -> None:
    """The names that programs look for a compiler by, which are alternatives that no package holds."""
    for name, program in (("cc", "gcc"), ("c++", "g++")):
        if (root / "usr/bin" / program).exists() and not (root / "usr/bin" / name).exists():
            (root / "usr/bin" / name).symlink_to(program)


def _place(source: Path, target: Path) -> None:
    """Copy what a recipe installs; links stay links."""
    if not source.exists():
        raise BuilderError(f"the build did not make {source.name}, which is to be installed")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def built_wheels(made: Path) -> list[tuple[str, Path]]:
    """The wheels that were built: file name and path."""
    return [(path.name, path) for path in sorted((made / "wheels").glob("*.whl"))]


def is_pinned(wheel: Wheel, recipe: Recipe | None) -> bool:
    """Whether a locked file is laid out as it came, and nothing is built in its place."""
    return wheel.is_built and not (recipe and wheel.name in recipe.wheels)
