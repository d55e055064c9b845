"""A site to serve, for tests that need one and build nothing."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from builder.netboot.configs import Dhcp, Site
from builder.netboot.tree import Tree
from builder.plan import Console
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
) -> Site:
    """A site whose tree would be ``top/pxe`` and whose state is in ``top/serve``."""
    tree = Tree(
        top / "pxe", cluster.name, "ab" * 32, "cd" * 32, "console=tty0 console=ttyS0,115200", Console(0, 115200)
    )
    return Site(
        cluster, tree, top / "serve", "enp5s0", IPv4Address(address), dhcp, http_port, control_port, owner
    )  # fmt: skip
