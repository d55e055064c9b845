"""The hook: what curtin runs in place of its own last steps, when disk and layers are done.

    OUTPUT_FSTAB=… TARGET_MOUNT_POINT=… PYTHONPATH=/cdrom/builder/live python3 -B -m installer.curthook

A node's layers bring ``/curtin/curtin-hooks``, which runs this on the live system. Where a node has that file,
curtin leaves to it all that makes the node boot (commands/curthooks.py and util.py, ``run_hook_if_exists``, in the
curtin of subiquity 24.04.4.1 and of 26.04.1). Its own steps would ask apt for GRUB's packages, of which BIOS and
UEFI want two that shut each other out, and in 26.04 have the kernel installed anew: they need a network.

What is left to do is little, as the layers are a configured system: the tables that curtin wrote, and an initramfs
that knows of an encrypted root. GRUB is the placing's, for both firmwares, as the direct installer does it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from . import commands, failure, place, system
from .console import Console, active_ttys
from .model import InstallError


def hook(console: Console, target: Path, fstab: Path) -> None:
    """Give the node below ``target`` the tables that curtin has written: ``fstab``, perhaps a crypttab beside it.

    Raises InstallError if they mount no root, if a file system of theirs is not mounted, or if a command fails.
    """
    try:
        tables = fstab.read_text(encoding="utf-8")
        crypttab = fstab.with_name("crypttab")
        encrypted = crypttab.read_text(encoding="utf-8") if crypttab.exists() else ""
    except OSError as error:
        raise InstallError(f"{error.filename} of curtin's cannot be read: {error.strerror}") from error
    if "/" not in system.mounts_in(tables):
        raise InstallError(f"{fstab} of curtin's mounts no /")
    tables = by_uuid(tables, lambda point: place.mounted(target / point.lstrip("/"), console).uuid)
    system.write(target / "etc/fstab", system.FSTAB_HEAD + tables, 0o644)
    if encrypted:
        system.write(target / "etc/crypttab", encrypted, 0o644)
        # The layer's own was made before there was a disk to open.
        argv = ["chroot", str(target), "update-initramfs", "-u", "-k", "all"]
        with system.entered(target, console.log):
            commands.run(argv, step="making the initramfs", log=console.log)


def by_uuid(fstab: str, uuid_of: Callable[[str], str]) -> str:
    """The rows with every device by its file system's UUID; ``uuid_of`` tells it by the mount point. Pure.

    curtin takes one of udev's links, and from systemd 256 on that may be one by the disk's place on the bus
    (``/dev/disk/by-path/pci-…-part/by-uuid/…``). That changes with a card more or less, or without the stick.
    Raises InstallError if a file system has no UUID.
    """
    rows = []
    for line in fstab.splitlines():
        source, *rest = line.split() or [""]
        if source.startswith("/dev/") and rest:
            uuid = uuid_of(rest[0])
            if not uuid:
                raise InstallError(f"the file system at {rest[0]} has no UUID that udev knows")
            line = "\t".join([f"UUID={uuid}", *rest])
        rows.append(line + "\n")
    return "".join(rows)


def main() -> int:
    """curtin, and subiquity with it, stops when this ends with 1."""
    os.umask(0o022)
    console = Console(active_ttys())
    target, fstab = os.environ.get("TARGET_MOUNT_POINT"), os.environ.get("OUTPUT_FSTAB")
    console.step("tables", f"the file systems of {target}")
    try:
        if not target or not fstab:
            raise InstallError("curtin said no TARGET_MOUNT_POINT, or no OUTPUT_FSTAB")
        hook(console, Path(target), Path(fstab))
    except Exception as error:
        failure.say(console, error, touched=f"of {target}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
