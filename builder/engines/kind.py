"""The shape of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from builder.spec.engine import Engine
from builder.spec.finding import Finding

if TYPE_CHECKING:
    from builder.spec.model import Cluster

__all__ = ["Finding", "Kind", "Part", "Port"]


@dataclass(frozen=True)
class Port:
    """What an engine needs opened. ``source``: "cluster" (the subnet), "any", or a network."""

    proto: str
    ports: str
    source: str
    why: str


@dataclass(frozen=True)
class Part:
    """A root of its own for programs that the node's release does not have.

    Packages of another release of ``distribution``, which the nodes must run as well, laid out under ``prefix``;
    ``names`` are asked of apt, and dependencies follow.
    """

    prefix: str
    release: str
    names: tuple[str, ...]
    distribution: str = "debian"


@dataclass(frozen=True)
class Kind:
    """An engine. All functions are pure.

    ``options``: its group in the spec. ``part``: its programs. ``formats``: endings of model files that it
    can load. ``ports``: what the firewall opens. ``facts``: what a node must know of it, for
    ``/etc/builder/cluster.json`` and the templates of its overlay. ``check``: what is wrong with a spec that
    chose it. ``smoke``: programs that must exit 0 inside the part when the layer is made.
    """

    options: type[Engine]
    part: Part | None
    formats: tuple[str, ...]
    ports: Callable[[Cluster], tuple[Port, ...]]
    facts: Callable[[Cluster], dict[str, Any]]
    check: Callable[[Cluster], tuple[Finding, ...]]
    smoke: tuple[tuple[str, ...], ...] = ()

    @property
    def name(self) -> str:
        """As the spec and the overlay's folder spell it."""
        return str(self.options.model_fields["name"].default)

    @property
    def overlay(self) -> str:
        """The name of its overlay below ``overlays/``."""
        return f"engine-{self.name}"
