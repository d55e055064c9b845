"""What is allowed in a spec, and likely to be regretted."""

from __future__ import annotations

from builder import engines
from builder.gpu.check import gpu_warnings
from builder.spec.model import Cluster


def warnings(cluster: Cluster) -> tuple[str, ...]:
    """One line for each thing that a person should know before building. Pure; takes a loaded cluster."""
    found = []
    access = cluster.access
    if not access.ssh_keys and access.password_hash is None:
        found.append("access: there is no ssh key and no password, so nobody can log in to the nodes")
    if access.password_hash is not None:
        found.append("access.password_hash: the medium holds the hash, so its owner can try passwords on it")
    if cluster.distribution.kernel == "cloud":
        found.append("distribution.kernel: cloud lacks the drivers of most real machines")
    wishes = [("storage.disk", cluster.storage.disk)]
    wishes += [(f"nodes[{i}].disk", node.disk) for i, node in enumerate(cluster.nodes) if node.disk]
    for path, disk in wishes:
        if disk.largest and disk.may_overwrite:
            found.append(f"{path}: the largest disk is wiped whatever it holds; naming it by serial is safer")
    if cluster.join.mixed_plans == "refuse" and not engines.ports(cluster):
        found.append("join.mixed_plans: without an engine nothing joins, so nothing is refused")
    if cluster.storage.luks is not None:
        found.append("storage.luks: the medium holds the passphrase, so its owner can open the disks")
        found.append("storage.luks: a node waits at every boot until somebody types the passphrase at its console")
    iso = cluster.media.base_iso
    if iso is not None and iso.url and iso.url.startswith("http:") and iso.sha256 is None:
        found.append("media.base_iso: the ISO comes by plain http, and no sha256 guards it")
    for i, model in enumerate(cluster.models):
        if model.url and model.url.startswith("http:") and model.sha256 is None:
            found.append(f"models[{i}]: {model.name} comes by plain http, and no sha256 guards it")
    found += gpu_warnings(cluster)
    return tuple(found)
