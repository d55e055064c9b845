"""The placing: gives the node that subiquity has installed what makes it a node of the cluster.

    PYTHONPATH=/cdrom/builder/live python3 -B -m installer.place

subiquity runs it as a late command, when curtin has partitioned the disk, unpacked the layers and run our hook
(:mod:`.curthook`), and its own settings for cloud-init are written. Those go, and GRUB and the node's seed come:
the node is then the same node whichever way it was installed. The file systems and ``/etc/fstab`` are curtin's and
stay.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import commands, disk, facts, failure, live, net, payload, picked, system
from .console import Console, active_ttys
from .listener import Nobody
from .model import InstallError, Manifest, Node

# What subiquity and curtin leave beside the layers' files, as globs below the node's root, and what the layers
# bring for them alone. A node of ours has its seed instead, takes its network from there, and has cloud-init look
# at it at every boot. Sources: subiquity 24.04.4.1 and 26.04.1, models/subiquity.py (_cloud_init_files) and
# models/network.py (render), subiquitycore/models/network.py; their curtin, commands/apt_config.py
# (apply_preserve_sources_list) and net/__init__.py.
NOT_OURS = (
    # Ours, for the installer alone (overlays/subiquity).
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/cdrom.sources",
    "etc/cloud/clean.d/99-installer",
    "etc/cloud/cloud-init.disabled",
    "etc/cloud/cloud.cfg.d/20-disable-cc-dpkg-grub.cfg",
    "etc/cloud/cloud.cfg.d/50-curtin-networking.cfg",
    "etc/cloud/cloud.cfg.d/90-installer-network.cfg",
    "etc/cloud/cloud.cfg.d/95-cloudconfig-*.cfg",
    "etc/cloud/cloud.cfg.d/99-installer.cfg",
    "etc/cloud/cloud.cfg.d/*subiquity-disable-cloudinit-networking.cfg",
    "etc/cloud/cloud.cfg.d/curtin-*.cfg",
    "etc/cloud/ds-identify.cfg",
    # Says what our own /etc/default/grub says (curtin/commands/install_grub.py, write_grub_config).
    "etc/default/grub.d/50-curtin-settings.cfg",
    "etc/netplan/*installer-config*.yaml",
    # Made on the node, by sshd's first start or by cloud-init: a key that was made before is not its own.
    "etc/ssh/ssh_host_*",
)
HOOKS = "curtin"  # the folder with the hook that our layers bring for curtin
MACHINE_ID = "etc/machine-id"  # subiquity writes the live system's there; empty, systemd makes one at first boot


def place(console: Console, target: Path, order: str = "") -> tuple[Manifest, Node]:
    """Finish the node below ``target``, the marker last; ``order``: what asked for it over the network.

    Raises InstallError at the first thing that is wrong.
    """
    chosen = picked.read()
    found = payload.load(live.PAYLOAD, payload.argued_digest())
    manifest, source = found.manifest, live.source(console, found)
    node = next((node for node in manifest.nodes if node.name == chosen.node), None)
    if node is None:
        raise InstallError(f"the picker chose {chosen.node}, which is no node of this medium")
    volumes = read_volumes(console, target, manifest)
    require_on(chosen.disk, target)
    require_hooked(target)
    take_away(target)
    system.identity(target, source, node)
    system.boot_loader(target, chosen.disk, chosen.sector, volumes, console.log)
    system.seed(target, source, node, payload.used_by(manifest, node))
    with writable(target / system.MODELS, console):
        console.step("place", f"{len(manifest.models)} model files")
        system.models(target, source, manifest, console.progress)
    system.keep_log(target, console.log_path)
    # A power cut before this leaves no marker, and one after it finds all that was written.
    os.sync()
    system.marker(target / "boot/efi", manifest.plan, order)
    os.sync()
    return manifest, node


def read_volumes(console: Console, target: Path, manifest: Manifest) -> disk.Volumes:
    """The node's file systems as they are mounted. Raises InstallError if one is missing."""
    root, esp = mounted(target, console), mounted(target / "boot/efi", console)
    if not root.uuid:
        raise InstallError(f"the file system on {root.path} has no UUID that udev knows")
    return disk.Volumes(esp, root, mounted(target / system.MODELS, console) if manifest.models else None)


def mounted(point: Path, console: Console) -> disk.Volume:
    """The file system that is mounted at ``point``. Raises InstallError if none is."""
    argv = ["findmnt", "--json", "--output", "SOURCE,UUID,FSTYPE", "--mountpoint", str(point)]
    try:
        out = commands.run(argv, step=f"looking at {point}", log=console.log)
    except InstallError as error:
        raise InstallError(f"nothing is mounted at {point}", error.details) from error
    # Whatever is mounted over it counts.
    found = json.loads(out)["filesystems"][-1]
    return disk.Volume(found["source"] or "", found["uuid"] or "", found["fstype"] or "")


def require_on(path: str, target: Path) -> None:
    """Raises InstallError unless the node lies on the disk that the picker chose."""
    devices = facts.parent_devices(target.stat().st_dev)
    if Path(path).name not in devices:
        names = ", ".join(sorted(devices)) or "no disk"
        raise InstallError(f"{target} is on {names}, and the picker chose {path}")


def require_hooked(target: Path) -> None:
    """Raises InstallError unless curtin ran our hook: without it a node mounts nothing."""
    try:
        mounts = system.mounts_in((target / "etc/fstab").read_text(encoding="utf-8"))
    except OSError:
        mounts = []
    if "/" not in mounts:
        raise InstallError("the node's fstab mounts no /: curtin did not run the layers' /curtin/curtin-hooks")


def take_away(target: Path) -> None:
    """Remove what subiquity and curtin left for the first boot, our hook, and the live system's identity."""
    for pattern in NOT_OURS:
        for path in target.glob(pattern):
            path.unlink()
    shutil.rmtree(target / HOOKS, ignore_errors=True)
    machine_id = target / MACHINE_ID
    machine_id.unlink(missing_ok=True)
    machine_id.touch(mode=0o644)


@contextmanager
def writable(point: Path, console: Console) -> Iterator[None]:
    """Nobody may change the models on the node, so curtin may have mounted their file system read-only."""
    if not point.is_mount() or not os.statvfs(point).f_flag & os.ST_RDONLY:
        yield
        return
    commands.run(["mount", "-o", "remount,rw", str(point)], step=f"opening {point}", log=console.log)
    yield
    commands.run(["mount", "-o", "remount,ro", str(point)], step=f"closing {point}", log=console.log)


def touched(target: Path) -> str:
    """What a failure leaves half done, for people: the disk, as far as it is known."""
    try:
        return picked.read().disk
    except InstallError:
        return f"of {target}"


def main() -> int:
    """Place, or say why not: subiquity stops when a late command ends with 1."""
    os.umask(0o022)
    console = Console(active_ttys())
    target = Path(os.environ.get("TARGET_MOUNT_POINT") or "/target")
    console.step("place", f"making {target} a node of the cluster")
    listener = Nobody()
    try:
        listener = net.listener(console)
        manifest, node = place(console, target, listener.order)
    except Exception as error:
        failure.say(console, error, touched=touched(target))
        listener.failed(console.phase, failure.reason(error), touched(target))
        live.told()
        return 1
    if not listener.installed(node.name, f"{node.name} is installed"):
        console.step("place", "the server that ordered this does not answer; it hears of it at the next boot")
    console.say(f"builder-installed {node.name} {manifest.plan}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
