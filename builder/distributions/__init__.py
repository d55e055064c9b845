"""What differs by distribution, one same-shaped module each; nobody else compares releases.

A module here offers ``RELEASES`` (every accepted name → codename), ``KEYRING``, ``COMPONENTS``,
``suites(codename)`` and ``packages(kernel)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from builder.distributions import debian
from builder.errors import BuilderError, Exit

_ALL: dict[str, ModuleType] = {"debian": debian}


@dataclass(frozen=True)
class Distribution:
    """One release of one distribution, as the rest of the builder needs it."""

    name: str
    codename: str
    architecture: str
    keyring: Path
    components: tuple[str, ...]
    suites: tuple[tuple[str, str], ...]  # (archive label, suite), e.g. ("security", "trixie-security")
    packages: tuple[str, ...]  # what every node has, before the spec adds its own


def other_release(target: Distribution, codename: str) -> Distribution:
    """Another release of the same distribution, as a source of a few packages: its main suite alone."""
    return replace(target, codename=codename, suites=(("main", codename),), packages=())


def distribution(name: str, release: str, kernel: str) -> Distribution:
    """Look a release up. Raises BuilderError (SPEC) naming the releases that are known."""
    module = _ALL[name]
    if release not in module.RELEASES:
        known = ", ".join(f'"{number}" ({codename})' for codename, number in module.NUMBERS.items())
        raise BuilderError(
            f"distribution.release: {name} {release} is not known", hint=f"known: {known}", code=Exit.SPEC
        )
    codename = module.RELEASES[release]
    return Distribution(
        name=name,
        codename=codename,
        architecture="amd64",
        keyring=module.KEYRING,
        components=module.COMPONENTS,
        suites=module.suites(codename),
        packages=module.packages(kernel),
    )
