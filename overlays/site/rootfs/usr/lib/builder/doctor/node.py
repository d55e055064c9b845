"""Who this node is: the files that the installer and the site layer left, below a root folder."""

from __future__ import annotations

import json
from pathlib import Path

CLUSTER = "etc/builder/cluster.json"
NODE = "etc/builder/node"
MANIFEST = "usr/share/builder/manifest.json"
MODELS = "srv/models"
DEFAULT_PORT = 50051  # of builder-join, where cluster.json does not say


class UnknownError(Exception):
    """A file that every node has is missing or not what it should be."""


def cluster(root: Path) -> dict:
    """The cluster as data. Raises UnknownError."""
    return _json(root / CLUSTER)


def name(root: Path) -> str:
    """This node's name. Raises UnknownError."""
    try:
        return (root / NODE).read_text().strip()
    except OSError as error:
        raise UnknownError(f"{root / NODE}: {error.strerror}") from error


def manifest(root: Path) -> dict:
    """What this node was installed from. Raises UnknownError."""
    return _json(root / MANIFEST)


def address(cluster: dict, name: str) -> str:
    """A node's address. Raises UnknownError if the cluster has no such node."""
    for node in cluster["nodes"]:
        if node["name"] == name:
            return node["address"]
    raise UnknownError(f"cluster.json has no node {name}")


def join_port(cluster: dict) -> int:
    """Where every node's builder-join answers, to the cluster's subnet only."""
    return int(cluster.get("join", {}).get("port", DEFAULT_PORT))


def refuses_mixed_plans(cluster: dict) -> bool:
    """Whether the spec counts nodes of another plan as not joined."""
    return cluster.get("join", {}).get("mixed_plans") == "refuse"


def _json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UnknownError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UnknownError(f"{path}: not JSON: {error}") from error
