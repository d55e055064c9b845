"""What nodes, the installer and the templates are told of a cluster, worked out of the spec once. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from builder import autoinstall, engines, firewall
from builder.gpu import content as gpu
from builder.lock import Lock, LockedModel
from builder.spec.model import Cluster, Node

MIB = 1 << 20
ESP_SIZE = 256 * MIB


@dataclass(frozen=True)
class Console:
    """The serial console of a node: unit 0 is ttyS0; ``speed`` in baud."""

    unit: int
    speed: int

    @property
    def device(self) -> str:
        return f"ttyS{self.unit}"


def of_cluster(cluster: Cluster, lock: Lock | None) -> dict[str, Any]:
    """What every node knows of its cluster: ``/etc/builder/cluster.json``."""
    kind = engines.of(cluster)
    return {
        "cluster": cluster.name,
        "subnet": str(cluster.network.subnet),
        "nodes": [{"name": node.name, "address": str(node.address)} for node in cluster.nodes],
        "engine": {"name": kind.name, **kind.facts(cluster, lock.files if lock else None)},
        "gpu": gpu.facts(cluster),
        "join": {"port": int(engines.JOIN.ports), "mixed_plans": cluster.join.mixed_plans},
        "ports": [dataclasses.asdict(rule) for rule in firewall.rules(cluster)],
    }


def consoles(cluster: Cluster) -> str:
    """``console=`` arguments of every kernel we start; the last is /dev/console, so serial goes last."""
    found = serial(cluster)
    return "console=tty0" + (f" console={found.device},{found.speed}" if found else "")


def serial(cluster: Cluster) -> Console | None:
    if cluster.media.serial is None:
        return None
    device, _, speed = cluster.media.serial.partition(",")
    return Console(unit=int(device.removeprefix("ttyS")), speed=int(speed or 115200))


def disk(cluster: Cluster, node: Node) -> dict[str, Any]:
    """A node's disk rule as the installer takes it, with the overwrite rule decided."""
    rule = cluster.disk_of(node)
    return {**rule.model_dump(mode="json", exclude_none=True), "overwrite": rule.may_overwrite}


def storage(cluster: Cluster, models: tuple[LockedModel, ...]) -> dict[str, int | None]:
    """Partition sizes in bytes; None takes the rest of the disk, 0 is no partition.

    ``besides``: what encryption and LVM take of the disk, left out where neither is wanted. ``keep`` is there if
    the models partition of an earlier install is to stay.
    """
    wanted, size = cluster.storage, cluster.storage.models.size
    need = sum(model.size for model in models)
    # ext4's own tables, and some air; an inode takes a MiB (installer/layout.py, models_need)
    fit = max(need + need // 20 + 64 * MIB, (2 * len(models) + 16) * MIB) if need else 0
    besides = autoinstall.besides(wanted.layout, encrypted=wanted.luks is not None)
    return {
        "esp": ESP_SIZE,
        "root": None if wanted.root == "rest" else wanted.root,
        "models": {"rest": None, "fit": fit}[size] if isinstance(size, str) else size,
        **({"keep": True} if wanted.models.keep else {}),
        **({"besides": besides} if besides else {}),
    }
