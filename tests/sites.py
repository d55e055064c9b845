"""A site to serve, for tests that need one and build nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from builder.canonical import canonical
from builder.netboot import tree
from builder.netboot.configs import Dhcp, Site
from builder.netboot.live import Live
from builder.netboot.tree import Tree
from builder.nodefacts import Console
from builder.spec.model import Cluster


def site_of(
    cluster: Cluster,
    top: Path,
    *,
    address: str = "10.77.0.1",
    dhcp: Dhcp = "full",
    http_port: int = 8480,
    control_port: int = 8481,
    owner: tuple[str, str] = ("root", "root"),
    live: Live | None = None,
) -> Site:
    """A site whose tree would be ``top/pxe`` and whose state is in ``top/serve``."""
    arguments = "console=tty0 console=ttyS0,115200"
    tree = Tree(top / "pxe", cluster.name, "ab" * 32, "cd" * 32, arguments, Console(0, 115200), live)
    return Site(
        cluster, tree, top / "serve", "enp5s0", IPv4Address(address), dhcp, http_port, control_port, owner
    )  # fmt: skip


def make_tree(folder: Path, cluster: str, payload: Mapping[str, bytes]) -> Tree:
    """A tree that can be served and read, though nothing in it boots."""
    made = Tree(folder, cluster, "ab" * 32, "", "console=ttyS0,115200", Console(0, 115200))
    entries = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in payload.items()
    ]
    manifest = canonical({"files": entries})
    made = replace(made, manifest=hashlib.sha256(manifest).hexdigest())
    files = {f"boot/{name}": name.encode() for name in (*tree.BOOT, *tree.KERNEL)}
    files |= {f"builder/{path}": data for path, data in payload.items()}
    files |= {"builder/manifest.json": manifest, "builder/manifest.sig": b"s" * 64}
    files |= {"tree.json": canonical({"format": tree.FORMAT, **tree._facts(made)})}
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return made
