"""How an engine is built from its source: data only. ``builder/layers/fromsource.py`` carries it out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A commit of a git repository.

    ``url``: where it is published; a path on this machine will do as well. ``variable``: names an environment
    variable that names another place to take the same commit from.
    """

    name: str
    url: str
    commit: str
    variable: str


@dataclass(frozen=True)
class Edit:
    """A mend of a source, before anything is built: ``old``, which must be there once, becomes ``new``."""

    source: str
    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Step:
    """A program of the build's root, run in the folder ``at`` of ``source``.

    Only a step with ``network`` has one: a package manager that brings in what the source's own lock file holds by
    digest, in the registry's own client, with the user's settings for it.
    """

    what: str
    source: str
    argv: tuple[str, ...]
    at: str = "."
    env: tuple[tuple[str, str], ...] = ()
    network: bool = False


@dataclass(frozen=True)
class Recipe:
    """``installs``: (source, path in it, path below the engine's home on the node).

    ``tools``: the packages of the build's root, asked of apt in the part's release. Nothing of it comes to the
    node. ``wheels``: sources that are Python packages themselves; each is made into a wheel and laid out with the
    others.
    """

    sources: tuple[Source, ...]
    tools: tuple[str, ...]
    steps: tuple[Step, ...]
    installs: tuple[tuple[str, str, str], ...]
    wheels: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()
