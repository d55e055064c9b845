"""Seeds: what differs from node to node, as a cloud-init NoCloud seed. Pure.

File formats: cloud-init's "NoCloud" datasource and "Networking config Version 2" documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder import render
from builder.spec.model import Cluster, Node

FOLDER = "/var/lib/cloud/seed/nocloud"  # where cloud-init looks for a seed on the node
FILES = ("user-data", "meta-data", "network-config")


def user_data(cluster: Cluster) -> bytes:
    """The same for every node: account, keys, and what cloud-init leaves alone."""
    return render.dump_yaml(render.document("user-data.yaml", {"cluster": cluster}), header="#cloud-config\n")


def seed(cluster: Cluster, node: Node, shared: bytes) -> Mapping[str, bytes]:
    """The three files of one node's seed; ``shared`` is :func:`user_data`."""
    context: dict[str, Any] = {"cluster": cluster, "node": node}
    return {
        "user-data": shared,
        "meta-data": render.dump_yaml(render.document("meta-data.yaml", context)),
        "network-config": render.dump_yaml(render.document("network-config.yaml", context)),
    }
