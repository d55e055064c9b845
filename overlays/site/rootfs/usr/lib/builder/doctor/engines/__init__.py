"""One module an engine, all of the same shape:

NAME, MULTICAST             whether it needs multicast on the cluster's network
units(cluster, node)        the systemd units that run on that node
doors(cluster, node)        the TCP ports that node offers (model.Door)
url(cluster)                where people reach it, or ""
members(cluster, look)      node → None if it is in the cluster, else the reason why not
mend(cluster, look)         units of this node to restart because their peers came back; called while watching
complete(cluster, prompt)   one real completion; raises OSError
"""

from __future__ import annotations

import importlib
from types import ModuleType


def of(cluster: dict) -> ModuleType:
    """The module of the cluster's engine. Raises ModuleNotFoundError for one that this image does not know."""
    return importlib.import_module(f".{cluster['engine']['name']}", __name__)
