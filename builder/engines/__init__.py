"""What makes the nodes one cluster: one same-shaped module an engine.

A module offers one :class:`~builder.engines.kind.Kind`. Spec, firewall, layers, units, checks and tests read from
it; adding an engine is adding a module here, its overlay ``overlays/engine-<name>``, and its name below. What the
node's tools have to know of it (units, ports, who is a member) is a module of the same name in that overlay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.engines import dask, exo, llamacpp, none, ray
from builder.engines.kind import Kind, Minimum, Port

if TYPE_CHECKING:
    from builder.spec.model import Cluster

__all__ = ["ENGINES", "JOIN", "Kind", "Minimum", "Port", "of", "ports"]

ENGINES: dict[str, Kind] = {kind.name: kind for kind in (none.KIND, llamacpp.KIND, exo.KIND, ray.KIND, dask.KIND)}


# The nodes' own talk: what each knows of its membership, its plan and its clock, served by builder-join.
JOIN = Port("tcp", "50051", "cluster", "builder-join")


def ports(cluster: Cluster) -> tuple[Port, ...]:
    """Everything that the chosen engine needs opened, on every node; nothing where there is no engine."""
    kind = of(cluster)
    return () if kind is none.KIND else (JOIN, *kind.ports(cluster))


def of(cluster: Cluster) -> Kind:
    """The engine that the spec chose."""
    return ENGINES[cluster.engine.name]
