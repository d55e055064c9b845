"""What differs by distribution, one same-shaped module each; nobody else compares releases.

A module here offers one :class:`~builder.distributions.family.Family`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.distributions.debian import DEBIAN
from builder.distributions.ubuntu import UBUNTU
from builder.errors import BuilderError, Exit

_FAMILIES = {family.name: family for family in (DEBIAN, UBUNTU)}


@dataclass(frozen=True)
class Foreign:
    """Somebody else's flat archive, for a few packages: its label in the mirrors, and the key it is held to.

    ``branch``: the first number of the versions that are taken of packages whose names match ``names``, where the
    archive has several branches under the same names. ``apart``: names that match as well, and are of no branch.
    """

    label: str
    key: bytes
    branch: str = ""
    names: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class Distribution:
    """One release of one distribution, as the rest of the builder needs it.

    ``known_of_old``: a release of it that every mmdebstrap knows. ``kernel``: the kernel's metapackage, which is
    among ``packages``.
    """

    name: str
    codename: str
    number: str
    architecture: str
    keyring: Path
    keyring_package: str
    known_of_old: str
    components: tuple[str, ...]
    suites: tuple[tuple[str, str], ...]  # (archive label, suite), e.g. ("security", "trixie-security")
    kernel: str
    packages: tuple[str, ...]  # what every node has, before the spec adds its own
    foreign: tuple[Foreign, ...] = ()


def source_of_packages(name: str, codename: str, components: Sequence[str] = ()) -> Distribution:
    """A release as the source of a few packages: its main suite alone. It need not be one that nodes can run.

    ``components``: what to take in place of the distribution's own.
    """
    family = _FAMILIES[name]
    return Distribution(
        name=name,
        codename=codename,
        number=family.numbers.get(codename, codename),
        architecture="amd64",
        keyring=family.keyring,
        keyring_package=family.keyring_package,
        known_of_old=family.known_of_old,
        components=tuple(components) or family.components,
        suites=(("main", codename),),
        kernel="",
        packages=(),
    )


def codename_of(name: str, release: str) -> str | None:
    """The codename of a release that is given by number or codename; None for one that is not known."""
    return _FAMILIES[name].releases.get(release)


def kernels(name: str) -> tuple[str, ...]:
    """The kernel flavours that a distribution has."""
    return tuple(_FAMILIES[name].kernels)


def distribution(name: str, release: str, kernel: str, features: Collection[str] = ()) -> Distribution:
    """Look a release up. ``features``: what a node needs for its disks, "lvm" and "luks", and for
    containers, "docker".

    Raises BuilderError (SPEC) naming the releases, or the kernels, that are known.
    """
    family = _FAMILIES[name]
    codename = codename_of(name, release)
    if codename is None:
        known = ", ".join(f'"{number}" ({codename})' for codename, number in family.numbers.items())
        raise BuilderError(
            f"distribution.release: {name} {release} is not known", hint=f"known: {known}", code=Exit.SPEC
        )
    if kernel not in family.kernels:
        raise BuilderError(
            f"distribution.kernel: {name} has no kernel called {kernel}",
            hint=f"known: {', '.join(family.kernels)}",
            code=Exit.SPEC,
        )
    return Distribution(
        name=name,
        codename=codename,
        number=family.numbers[codename],
        architecture="amd64",
        keyring=family.keyring,
        keyring_package=family.keyring_package,
        known_of_old=family.known_of_old,
        components=family.components,
        suites=family.suites(codename),
        kernel=family.kernel(codename, kernel),
        packages=family.packages(codename, kernel, features),
    )
