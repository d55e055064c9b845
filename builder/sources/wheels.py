"""Python packages for an engine: resolved to files with digests, and fetched by digest.

Two steps, both with the network, and neither on a node; what comes in is laid out by :mod:`builder.venv`:

1. :func:`resolve`, when a lock is made: uv decides which versions go together, for the nodes' Python and glibc and
   not for this machine's, and each comes down to one file with its SHA-256.
2. :func:`fetch`, when a layer is made: uv tells where its index keeps these files now, and they come in through
   the fetch door, held to the lock's digests. So the lock names no host.

Which index is asked is uv's or pip's own configuration on the building machine (``UV_DEFAULT_INDEX``,
``PIP_INDEX_URL``, ``pip.conf``), else uv's own default.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from builder import fetch as door
from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.run import run

# Debian 13, whose Python it is, has glibc 2.41; uv knows platforms up to this one.
GLIBC = (2, 40)
_PASSED_ON = ("NETRC", "PIP_CONFIG_FILE")
_HINT = "what was received is kept, and the next run resumes; if the index has dropped it: builder lock --update"


@dataclass(frozen=True)
class Wheels:
    """What an engine wants of a package index.

    ``python``: of the nodes, "3.13". ``requirements``, ``constraints``: as pip spells them. ``excluded``: names
    that are left out although something asks for them. ``from_source``: pins ("miniaudio==1.61") of packages that
    exist as source archives only, which the engine's layer has to build; what they need in turn must be among the
    requirements, as no code of theirs is run to find out. ``prereleases``: whether those count as versions.
    ``torch``: PyTorch's own index to take torch from ("cpu", "cu130"), in uv's words.
    """

    requirements: tuple[str, ...]
    python: str = "3.13"
    constraints: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    from_source: tuple[str, ...] = ()
    prereleases: bool = False
    torch: str | None = None


@dataclass(frozen=True, order=True)
class Wheel:
    """A pinned file of a package index: a wheel, or a source archive. ``size`` in bytes."""

    name: str
    version: str
    file: str
    size: int
    sha256: str

    @property
    def is_built(self) -> bool:
        return self.file.endswith(".whl")


def resolve(wanted: Wheels) -> tuple[Wheel, ...]:
    """Every package that ``wanted`` brings, sorted by name.

    Raises BuilderError: no versions that go together, no file for the nodes' Python (SPEC, quoting uv); an index
    that is out of reach (FETCH).
    """
    sources = Wheels(wanted.from_source, wanted.python, prereleases=True)
    built = replace(wanted, excluded=(*wanted.excluded, *(pin.partition("==")[0] for pin in wanted.from_source)))
    tags = supported(wanted.python)
    chosen = [_wheel(entry, tags, wanted.python) for entry in _compile(built)]
    chosen += [_source(entry) for entry in (_compile(sources, alone=True) if wanted.from_source else ())]
    return tuple(sorted(chosen))


def fetch(wheels: Sequence[Wheel], cache: Cache, *, python: str, torch: str | None = None) -> dict[str, Path]:
    """Bring every file into the cache; returns the path of each by its sha256.

    Raises BuilderError (FETCH): the index does not offer a file with the lock's digest, or it cannot be had.
    """
    missing = [wheel for wheel in wheels if not cache.blob(wheel.sha256).exists()]
    items = []
    if missing:
        pins = tuple(f"{wheel.name}=={wheel.version}" for wheel in missing)
        again = Wheels(pins, python, prereleases=True, torch=torch)
        urls = {sha256: url for entry in _compile(again, alone=True) for url, sha256 in _files(entry)}
        items = [
            door.Item(wheel.file, (_url(wheel, urls),), wheel.sha256, wheel.size, hint=_HINT) for wheel in missing
        ]
    door.fetch(items, cache, title="Python packages")
    return {wheel.sha256: cache.blob(wheel.sha256) for wheel in wheels}


def supported(python: str, glibc: tuple[int, int] = GLIBC) -> list[Tag]:
    """The tags of wheels that run on a node, best first."""
    version = tuple(int(part) for part in python.split("."))
    older = [f"manylinux_{glibc[0]}_{minor}_x86_64" for minor in range(glibc[1], 4, -1)]
    platforms = [*older, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    interpreter = f"cp{python.replace('.', '')}"
    return [*cpython_tags(version, platforms=platforms), *compatible_tags(version, interpreter, platforms)]


def argv(wanted: Wheels, folder: Path, *, alone: bool = False) -> list[str | Path]:
    """The whole command line of uv. Pure. ``folder`` holds the files that :func:`inputs` makes.

    ``alone``: without what the requirements ask for in turn.
    """
    command: list[str | Path] = [sys.executable, "-m", "uv", "pip", "compile", folder / "requirements"]
    command += ["--constraints", folder / "constraints", "--excludes", folder / "excluded"]
    command += ["--format", "pylock.toml", "--output-file", folder / "pylock.toml", "--quiet"]
    command += ["--python-version", wanted.python, "--no-python-downloads", "--no-sources"]
    command += ["--python-platform", f"x86_64-manylinux_{GLIBC[0]}_{GLIBC[1]}"]
    command += ["--prerelease", "allow" if wanted.prereleases else "if-necessary-or-explicit"]
    if wanted.torch is not None:
        command += ["--torch-backend", wanted.torch]
    return [*command, "--no-deps"] if alone else [*command, "--no-build"]


def inputs(wanted: Wheels) -> dict[str, str]:
    """The files that uv reads, by name. Pure."""
    lists = {
        "requirements": wanted.requirements,
        "constraints": wanted.constraints,
        "excluded": wanted.excluded,
    }
    return {name: "".join(f"{line}\n" for line in lines) for name, lines in lists.items()}


def _compile(wanted: Wheels, *, alone: bool = False) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="builder-wheels-") as name:
        folder = Path(name)
        for file, text in inputs(wanted).items():
            (folder / file).write_text(text)
        command = argv(wanted, folder, alone=alone)
        done = run(command, step="resolving Python packages", env=environment(), check=False)
        if done.returncode != 0:
            raise _refusal(done.stderr)
        packages: list[dict[str, Any]] = tomllib.loads((folder / "pylock.toml").read_text()).get("packages", [])
    return packages


def environment() -> dict[str, str]:
    """What uv may know of this machine's user: its own settings, and pip's where it has none of its own."""
    mine = {name: value for name, value in os.environ.items() if name.startswith("UV_") or name in _PASSED_ON}
    asked = {"UV_DEFAULT_INDEX": "index-url", "UV_INDEX": "extra-index-url"}
    if not any(name in mine for name in (*asked, "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")):
        settings = _of_pip()
        mine |= {name: settings[key] for name, key in asked.items() if key in settings}
    return {"UV_SYSTEM_CERTS": "1", "UV_NO_PROGRESS": "1", **mine}


def _of_pip() -> dict[str, str]:
    """pip's settings as pip itself reads them; its environment's come last, and win."""
    passed = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    listed = run([sys.executable, "-m", "pip", "config", "list"], step="reading pip's settings", env=passed)
    lines = (line.partition("=") for line in listed.stdout.splitlines())
    return {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, _, value in lines if value}


def _refusal(said: str) -> BuilderError:
    lines = "\n".join(f"  | {line}" for line in said.strip().splitlines()[-15:])
    unreachable = re.search(r"error sending request|Failed to fetch|dns error|Connection refused", said)
    if unreachable and "No solution found" not in said:
        hint = "is the package index reachable? UV_DEFAULT_INDEX or PIP_INDEX_URL names another one"
        return BuilderError(f"the Python packages could not be looked up\n{lines}", hint=hint, code=Exit.FETCH)
    return BuilderError(f"the Python packages do not go together\n{lines}", code=Exit.SPEC)


def _wheel(entry: Mapping[str, Any], tags: Sequence[Tag], python: str) -> Wheel:
    """The wheel of a package with the best tag for a node."""
    rank = {tag: number for number, tag in enumerate(tags)}
    fitting = []
    for file in entry.get("wheels", ()):
        try:
            offered = parse_wheel_filename(_name_of(file))[3]
        except InvalidWheelFilename:
            continue
        fitting += [(rank[tag], _name_of(file), file) for tag in offered if tag in rank]
    if not fitting:
        raise BuilderError(
            f"the Python package {entry['name']} {entry.get('version', '')} has no wheel for Python {python}",
            hint="ask for another version of it, or leave it out",
            code=Exit.SPEC,
        )
    return _pinned(entry, min(fitting, key=lambda found: found[:2])[2])


def _source(entry: Mapping[str, Any]) -> Wheel:
    if "sdist" not in entry:
        message = f"the Python package {entry['name']} {entry.get('version', '')} has no source archive"
        raise BuilderError(message, hint="ask for its wheel instead", code=Exit.SPEC)
    return _pinned(entry, entry["sdist"])


def _pinned(entry: Mapping[str, Any], file: Mapping[str, Any]) -> Wheel:
    name, version = canonicalize_name(entry["name"]), str(entry["version"])
    return Wheel(name, version, _name_of(file), int(file["size"]), str(file["hashes"]["sha256"]))


def _files(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """URL and SHA-256 of every file of a package."""
    for file in (*entry.get("wheels", ()), *([entry["sdist"]] if "sdist" in entry else ())):
        if "url" in file and "sha256" in file.get("hashes", {}):
            yield str(file["url"]), str(file["hashes"]["sha256"])


def _name_of(file: Mapping[str, Any]) -> str:
    return str(file.get("name") or str(file.get("url") or file["path"]).rpartition("/")[2].partition("#")[0])


def _url(wheel: Wheel, urls: Mapping[str, str]) -> str:
    if wheel.sha256 not in urls:
        raise BuilderError(
            f"the package index does not offer {wheel.file} with the lock's digest\n  sha256 {wheel.sha256}",
            hint="take what it offers now: builder lock --update; or name the index that the lock was made with",
            code=Exit.FETCH,
        )
    return urls[wheel.sha256]
