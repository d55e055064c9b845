"""Documents: the fragments ``cloud-init/autoinstall*.yaml``, filled in and checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from builder import render, resources
from builder.autoinstall import check
from builder.autoinstall import storage as disks
from builder.autoinstall.releases import RELEASES
from builder.lock import target_of
from builder.spec.model import Cluster, Node

LIVE = "/cdrom/builder/live"  # on the live system: what it runs of ours; no trailing slash
# The script gives a person time to read; should the medium be gone, and the script with it, a minute has to do.
FAILED = (("sh", f"{LIVE}/failed.sh"), ("sleep", "60"), ("systemctl", "poweroff"))


def document(
    cluster: Cluster, node: Node, seed: Mapping[str, bytes], storage: Mapping[str, int | None]
) -> dict[str, Any]:
    """What installs one node. ``seed``: its NoCloud seed; ``storage``: as :mod:`builder.nodefacts` has it.

    It can install nowhere as it is: the picker fills in the disk, and where the boot loader goes. It is JSON data,
    and holds the passphrase if the disk is to be encrypted. Raises BuilderError (BUG) if it is not sound.
    """
    target = target_of(cluster)
    accepts = RELEASES[target.codename]
    luks = cluster.storage.luks
    passphrase = luks.passphrase.get_secret_value() if luks and luks.passphrase else None
    if luks and passphrase is None:
        raise ValueError("the spec was not loaded whole: the passphrase is missing")
    context = {
        "cluster": cluster,
        "target": target,
        "accepts": accepts,
        "network": yaml.safe_load(seed["network-config"]),
        "storage": disks.section(cluster.storage.layout, passphrase, storage),
        "user_data": yaml.safe_load(seed["user-data"]),
        **_commands(),
    }
    made: dict[str, Any] = render.document("autoinstall.yaml", context)
    check.document(made, target.codename, what=f"the autoinstall document of {node.name}")
    return made


def bootstrap(cluster: Cluster) -> dict[str, Any]:
    """What every machine gets first, the same for all: it runs the picker, which puts a node's document in place.

    Raises BuilderError (BUG) if it is not sound.
    """
    made: dict[str, Any] = render.document("autoinstall-bootstrap.yaml", _commands())
    check.bootstrap(made, target_of(cluster).codename, what="the autoinstall document that runs the picker")
    return made


def live_seed(cluster: Cluster) -> Mapping[str, bytes]:
    """The files of :data:`LIVE`, by name: the live system's NoCloud seed, and what is run when an install fails.

    The spec's keys may log in to the live system as well, to look at what went wrong.
    """
    user_data: dict[str, Any] = {"autoinstall": bootstrap(cluster)}
    if cluster.access.ssh_keys:
        user_data["ssh_authorized_keys"] = list(cluster.access.ssh_keys)
    return {
        "user-data": render.dump_yaml(user_data, header="#cloud-config\n"),
        "meta-data": render.dump_yaml({"instance-id": f"{cluster.name}-live"}),
        "failed.sh": (resources.root() / "templates/live/failed.sh").read_bytes(),
    }


def _commands() -> dict[str, Any]:
    return {"live": LIVE, "failed": [list(command) for command in FAILED]}
