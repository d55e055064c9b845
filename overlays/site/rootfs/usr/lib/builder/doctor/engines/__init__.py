"""What an engine is on a node: one module each, all of the same shape, brought by the engine's own overlay.

NAME, MULTICAST             whether it needs multicast on the cluster's network
units(cluster, node)        the systemd units that run on that node
doors(cluster, node)        the TCP ports that node offers (model.Door)
url(cluster)                where people reach it, or ""
members(cluster, look)      node → None if it is in the cluster, else the reason why not
mend(cluster, look)         units of this node to restart because their peers came back; called while watching
notes(cluster, root)        optional: lines for the banner and `builder status`, what it serves and how far that is

``cluster`` is cluster.json, whose key ``engine`` holds what the engine's module in the builder put there.
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


def notes(cluster: dict, root: Path) -> tuple[str, ...]:
    """What the engine says of itself beside who is in; most say nothing."""
    module = of(cluster)
    return tuple(module.notes(cluster, root)) if hasattr(module, "notes") else ()
