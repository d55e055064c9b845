"""What an engine is on a node: one module each, all of the same shape, brought by the engine's own overlay.

NAME
units(cluster, node)        the systemd units that run on that node
doors(cluster, node)        the TCP ports that node offers (model.Door)
url(cluster)                where people reach it, or ""
members(cluster, look)      node → None if it is in the cluster, else the reason why not
mend(cluster, look)         units of this node to restart because their peers came back; called while watching
notes(cluster, root)        optional: lines for the banner and `builder status`: what it serves, how far it is

``cluster`` is cluster.json, whose key ``engine`` holds what the engine's module in the builder put there. Two
facts mean the same for every engine: ``version``, where nodes with different ones cannot form a cluster; and
``multicast``, {"group", "port", "instead"}, where nodes find each other by it (``instead`` is what to write
into the spec for a network that does not pass it, or "").
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from .. import node


def of(cluster: dict) -> ModuleType:
    """The module of the cluster's engine. Raises node.UnknownError for one that this image does not have."""
    name = f"{__name__}.{cluster['engine']['name']}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        what = f"{node.CLUSTER} names the engine {cluster['engine']['name']}"
        raise node.UnknownError(f"{what}, and this image has nothing of it") from error


def multicast(cluster: dict) -> dict | None:
    """The group and port that the engine's nodes find each other by."""
    return cluster["engine"].get("multicast")


def version(cluster: dict) -> str:
    """Name and version of an engine whose versions cannot be mixed; "" for the others."""
    engine = cluster["engine"]
    return f"{engine['name']} {engine['version']}" if engine.get("version") else ""


def notes(cluster: dict, root: Path) -> tuple[str, ...]:
    """What the engine says of itself beside who is in; most say nothing."""
    module = of(cluster)
    return tuple(module.notes(cluster, root)) if hasattr(module, "notes") else ()
