"""How exo's layer is made: its root's packages, its recipe, and what it wants of the package index. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from builder.engines.exo.versions import URL, Gpu, Version
from builder.engines.kind import Part, Read, Wheels
from builder.engines.recipe import Edit, Recipe, Source, Step
from builder.venv import site_of

PREFIX = "/opt/exo"
PYTHON = "3.13"  # pyproject.toml, requires-python
SOURCE = "exo"
VARIABLE = "EXO_SOURCE"

# What runs exo. libgomp and libstdc++ are what its wheels expect of every system.
_ROOT = ("base-files", "dash", "coreutils", "libgomp1", "libstdc++6", f"python{PYTHON}", "tzdata")
# What builds it. The rest of npm's dependencies is all JavaScript.
_TOOLS = (
    *("base-files", "bash", "coreutils", "dash", "findutils", "grep", "sed"),
    *("cargo", "g++", "gcc", f"libpython{PYTHON}-dev", "libc6-dev", "nodejs", "npm", "rustc"),
    *(f"python{PYTHON}", "python3-cffi", "python3-pip", "python3-setuptools", "python3-wheel"),
)
_TRIPLE = "x86_64-unknown-linux-gnu"


def overridden(overrides: tuple[str, ...]) -> dict[str, str | None]:
    """Package → the release to take ("mlx-lm==0.31.3"), or None to leave it out."""
    found: dict[str, str | None] = {}
    for text in overrides:
        name = canonicalize_name(text.lstrip("-").partition("==")[0])
        found[name] = None if text.startswith("-") else text
    return found


def part(version: Version, source: str | None, overrides: tuple[str, ...], gpu: Gpu | None) -> Part:
    """``source``: where the spec says that exo's repository is; ``gpu``: None runs it on processors."""
    asks = (version.name, version.commit, gpu.extra if gpu else version.cpu, *sorted(overrides))
    return Part(
        prefix=PREFIX,
        release="trixie",
        names=_ROOT,
        python=PYTHON,
        asks=asks,
        recipe=recipe(version, source, overrides),
    )


def recipe(version: Version, source: str | None, overrides: tuple[str, ...]) -> Recipe:
    """The Rust extension, the dashboard, and forks that no override replaces."""
    changed = overridden(overrides)
    forks = {name: fork for name, fork in version.forks.items() if name not in changed}
    site = site_of(PYTHON)
    cargo = ("--locked", "--offline", "--release", "--lib", "-p", version.crate)
    features = ("--features", "pyo3/extension-module,pyo3/experimental-async")
    settings = (("CARGO_PROFILE_RELEASE_STRIP", "true"), ("PYO3_PYTHON", f"/usr/bin/python{PYTHON}"))
    npm = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
    return Recipe(
        sources=(
            Source(SOURCE, source or URL, version.commit, VARIABLE),
            *(Source(name, fork.url, fork.commit, _variable(name)) for name, fork in forks.items()),
        ),
        tools=_TOOLS,
        steps=(
            Step("exo's crates", SOURCE, ("cargo", "fetch", "--locked", "--target", _TRIPLE), network=True),
            Step("the dashboard's packages", SOURCE, npm, at="dashboard", network=True),
            Step("building exo's Rust extension", SOURCE, ("cargo", "build", *cargo, *features), env=settings),
            Step("building exo's dashboard", SOURCE, ("npm", "run", "build"), at="dashboard"),
        ),
        installs=(
            (SOURCE, "src/exo", f"{site}/exo"),
            (SOURCE, f"target/release/lib{version.crate}.so", f"{site}/{version.module}.so"),
            (SOURCE, "resources", "resources"),
            (SOURCE, "dashboard/build", "dashboard/build"),
            (SOURCE, "LICENSE", "share/doc/exo/LICENSE"),
        ),
        wheels=tuple(forks),
        edits=tuple(Edit(SOURCE, *edit) for edit in version.edits),
    )


def _variable(name: str) -> str:
    """Names another place for a fork's repository, as EXO_SOURCE does for exo's: EXO_SOURCE_MLX_LM."""
    return f"{VARIABLE}_{re.sub('[^A-Z0-9]', '_', name.upper())}"


def wheels(version: Version, overrides: tuple[str, ...], gpu: Gpu | None, read: Read) -> Wheels:
    """What exo asks for, at the versions of its own lock, as far as an override does not say otherwise.

    ``read`` reads a file of the source. Raises KeyError or ValueError if it is not what it was for the versions in
    the table.
    """
    changed = overridden(overrides)
    project = tomllib.loads(read(SOURCE, "pyproject.toml"))["project"]
    pins = pinned(tomllib.loads(read(SOURCE, "uv.lock")))
    wanted: list[str] = []
    for text in asked(project, gpu.extra if gpu else version.cpu):
        name = canonicalize_name(Requirement(text).name)
        if name == version.distribution or name in changed or name in version.forks:
            continue
        wanted.append(text)
    wanted += [release for release in changed.values() if release]
    wanted += [f"{name}=={fork.like}" for name, fork in version.forks.items() if name not in changed]
    stuck = tuple(f"{name}=={pins[name]}" for name in version.stuck if name not in changed)
    wanted += ["cffi"] if stuck else []
    wanted += [gpu.headers] if gpu else []
    free = {*changed, *version.forks}
    return Wheels(
        requirements=tuple(wanted),
        python=PYTHON,
        constraints=tuple(f"{name}=={pin}" for name, pin in pins.items() if name not in free),
        excluded=tuple(name for name, release in changed.items() if release is None),
        from_source=stuck,
        prereleases=True,  # exo's lock holds some
        torch=None if "torch" in changed else (gpu.torch if gpu else "cpu"),
    )


def asked(project: Mapping[str, Any], extra: str) -> Iterator[str]:
    """The requirements of a project with one of its extras, which may ask for other extras of the same project."""
    yield from project["dependencies"]
    waiting = [extra]
    while waiting:
        for text in project["optional-dependencies"][waiting.pop()]:
            try:
                requirement = Requirement(text)
            except InvalidRequirement as error:
                raise ValueError(f"pyproject.toml: {text}: {error}") from error
            if canonicalize_name(requirement.name) == canonicalize_name(project["name"]):
                waiting += requirement.extras
            else:
                yield text


def pinned(lock: Mapping[str, Any]) -> dict[str, str]:
    """Package → version of all that uv.lock takes from an index, in one version only."""
    seen: dict[str, set[str]] = {}
    for package in lock["package"]:
        if "registry" in package["source"]:
            seen.setdefault(canonicalize_name(package["name"]), set()).add(package["version"])
    return {name: versions.pop() for name, versions in seen.items() if len(versions) == 1}
