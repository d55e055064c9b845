"""From a spec and its medium to the boot test of one node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder import firewall, nodefacts, plan, resources
from builder.errors import BuilderError, Exit
from builder.lock import Lock
from builder.spec.model import Cluster, Node
from builder.verify.firmware import FirmwareKind
from builder.verify.machine import MediumKind
from builder.verify.request import BootTest, read_manifest

LIVE_MEMORY = 4096  # MiB


def boot_test_of(
    cluster: Cluster,
    lock: Lock,
    node: Node,
    iso: Path,
    out: Path,
    *,
    firmware: FirmwareKind,
    medium: MediumKind,
) -> BootTest:
    """The boot test of ``node`` from ``iso``, with everything that the spec promises of the node.

    Raises BuilderError (MEDIUM) if the ISO is not what this spec would build now.
    """
    manifest = read_manifest(iso)
    planned = plan.make(cluster, lock)
    if manifest["plan"] != planned.id:
        raise BuilderError(
            f"{iso} was built from another plan than {cluster.name} has now\n"
            f"  the medium's plan {manifest['plan']}\n  the spec's plan   {planned.id}",
            hint="build it anew: builder iso",
            code=Exit.MEDIUM,
        )
    others = tuple(n.address for n in cluster.nodes if n.name != node.name and n.address != "dhcp")
    return BootTest(
        iso=iso,
        out=out,
        node=node.name,
        address=node.address,
        subnet=cluster.network.subnet,
        gateway=cluster.network.gateway,
        taken=(*others, *cluster.network.dns),
        manifest=manifest,
        firmware=firmware,
        medium=medium,
        facts=facts(planned),
        checks=checks(cluster),
        # Ubuntu's live system keeps its snaps and its writes in memory.
        memory=LIVE_MEMORY if cluster.base_iso else BootTest.memory,
    )


def checks(cluster: Cluster) -> tuple[Path, ...]:
    """The checks of every overlay that the node is made of."""
    folder = resources.root() / "overlays"
    names = ("base", *(["gpu"] if cluster.gpu else []), *plan.overlays(cluster))
    return tuple(path for name in names for path in sorted((folder / name).glob("test_*.py")))


def facts(planned: plan.Plan) -> dict[str, Any]:
    """What the overlays' checks expect of every node of the plan."""
    cluster = planned.cluster
    return {
        "cluster": cluster.name,
        "release": planned.target.codename,
        "user": cluster.access.user,
        "ssh_keys": list(cluster.access.ssh_keys),
        "models": [{"name": m.name, "size": m.size, "sha256": m.sha256} for m in planned.models],
        "images": [{"name": image.name, "id": image.id} for image in planned.images],
        "engine": nodefacts.of_cluster(cluster, planned.lock)["engine"],
        "gpu": nodefacts.of_cluster(cluster, planned.lock)["gpu"],
        "openings": [rule.as_nft for rule in firewall.rules(cluster)],
    }
