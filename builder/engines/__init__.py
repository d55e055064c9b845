"""What makes the nodes one cluster: one same-shaped module an engine.

A module offers one :class:`~builder.engines.kind.Kind`. Spec, firewall, layers, units and checks read from it;
adding an engine is adding a module here, its overlay ``overlays/engine-<name>``, and its name below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.engines import llamacpp, none
from builder.engines.kind import Kind, Port

if TYPE_CHECKING:
    from builder.spec.model import Cluster

ENGINES: dict[str, Kind] = {kind.name: kind for kind in (none.KIND, llamacpp.KIND)}


# The nodes' own talk: what each knows of its membership, its plan and its clock, served by builder-join.
JOIN = Port("tcp", "50051", "cluster", "builder-join")


def ports(cluster: Cluster) -> tuple[Port, ...]:
    """Everything that the chosen engine needs opened, on every node; nothing where there is no engine."""
    kind = of(cluster)
    return (JOIN, *kind.ports(cluster)) if kind.part or kind.formats else ()


def of(cluster: Cluster) -> Kind:
    """The engine that the spec chose."""
    return ENGINES[cluster.engine.name]
