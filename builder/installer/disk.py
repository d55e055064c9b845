"""Changes a disk: clears it, partitions it, makes file systems, mounts them, and lets go of them for good.

The functions take paths and do not care whether a path is a device or a plain file, so the tests run them on
image files.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from . import commands, layout
from .commands import Log, quiet
from .model import Disk, InstallError

PROGRAMS = (
    "blkid",
    "chroot",
    "e2fsck",
    "mkfs.ext4",
    "mkfs.vfat",
    "mount",
    "sfdisk",
    "umount",
    "unsquashfs",
    "wipefs",
)
FILE_SYSTEMS = ("ext4", "vfat")

_BLKFLSBUF = 0x1261  # linux/fs.h: drop the device's cached blocks


@dataclass(frozen=True)
class Volume:
    """A file system of the node: its device, the UUID that fstab names it by, and its type."""

    path: str
    uuid: str
    fs: str = "ext4"


@dataclass(frozen=True)
class Volumes:
    """The node's file systems; ``models`` is None when the layout has no such partition."""

    esp: Volume
    root: Volume
    models: Volume | None


def require(log: Log = quiet) -> None:
    """See that all that an install needs is in the boot image, before a disk pays for what is not.

    Raises InstallError naming the programs and file systems that are missing.
    """
    folders = [Path(folder) for folder in commands.PATH.split(":")]
    missing = [name for name in PROGRAMS if not any((folder / name).exists() for folder in folders)]
    for fs in FILE_SYSTEMS:
        if not _supported(fs):
            with suppress(InstallError):
                commands.run(["modprobe", fs], step=f"loading {fs}", log=log)
        if not _supported(fs):
            missing.append(f"the {fs} driver")
    if missing:
        raise InstallError(f"the boot image lacks {', '.join(missing)}")


def _supported(fs: str) -> bool:
    return fs in Path("/proc/filesystems").read_text().split()


def clear(disk: Disk, log: Log = quiet, *, kept: str = "") -> None:
    """Erase the signatures of the disk's partitions, then of the disk, so that nothing old is found again; those
    of the partition ``kept`` stay, and then the disk's own do.

    Each device is claimed first: should something have mounted one since the guard looked, the kernel
    refuses. wipefs needs --force for partition tables inside partitions, and asks nobody then.
    Raises InstallError.
    """
    paths = [*(child.path for child in disk.children), disk.path]
    for path in paths:
        release(path, seconds=10)
    for path in paths:
        if not kept or path not in (kept, disk.path):
            commands.run(["wipefs", "--all", "--force", path], step=f"clearing {path}", log=log)
    commands.settle(log)


def partition(path: str, plan: layout.Layout, sector: int, log: Log = quiet, *, keep: bool = False) -> None:
    """Write the partition table. ``--lock`` keeps udev from probing a table that is half written. With ``keep``
    nothing is erased inside the partitions: what one begins with may be wanted."""
    wipe = "never" if keep else "always"
    commands.run(
        ["sfdisk", "--quiet", "--lock=yes", "--wipe=always", f"--wipe-partitions={wipe}", path],
        step=f"partitioning {path}",
        stdin=layout.sfdisk_script(plan, sector),
        log=log,
    )


def partition_path(path: str, number: int) -> str:
    """The kernel's name for a partition: a p goes between when the disk's own name ends in a digit."""
    return f"{path}p{number}" if path[-1].isdigit() else f"{path}{number}"


def partition_devices(path: str, plan: layout.Layout, log: Log = quiet) -> dict[str, str]:
    """Each partition's device by its name, once udev has made them all. Raises InstallError after 30 s."""
    devices = {part.name: partition_path(path, part.number) for part in plan.partitions}
    commands.settle(log)
    if not commands.wait_for(lambda: all(Path(device).exists() for device in devices.values()), 30):
        missing = [device for device in devices.values() if not Path(device).exists()]
        raise InstallError(f"the kernel does not show the new partitions: {', '.join(missing)}")
    return devices


def make_file_systems(devices: dict[str, str], log: Log = quiet, *, keep: bool = False) -> Volumes:
    """Make the ESP, root and models file systems, and wait until udev knows their UUIDs. With ``keep`` the models'
    is taken as it is, if it can be repaired."""
    models = None
    if path := devices.get("builder-models"):
        models = (keep_models(path, log) if keep else None) or make_models(path, log)
    volumes = Volumes(
        esp=make_esp(devices["builder-esp"], log), root=make_root(devices["builder-root"], log), models=models
    )
    commands.settle(log)
    return volumes


def keep_models(path: str, log: Log = quiet) -> Volume | None:
    """The file system that is on ``path`` already; None if it is none of ours, or beyond repair.

    e2fsck exits 1 when it has mended something, which is well (e2fsck(8)).
    """
    with suppress(InstallError):
        commands.run(["e2fsck", "-f", "-p", path], step=f"mending {path}", log=log)
    try:
        commands.run(["e2fsck", "-f", "-n", path], step=f"checking {path}", log=log)
        argv = ["blkid", "--probe", "--output", "value", "--match-tag", "UUID", path]
        uuid = commands.run(argv, step=f"reading the UUID of {path}", log=log).strip()
    except InstallError as error:
        log(f"{path} is made anew: {error.reason}")
        return None
    return Volume(path, uuid) if uuid else None


def make_esp(path: str, log: Log = quiet) -> Volume:
    """FAT32, whatever the size: some firmware reads no FAT16 ESP."""
    serial = os.urandom(4).hex().upper()
    argv = ["mkfs.vfat", "-F", "32", "-n", "BUILDER-ESP", "-i", serial, path]
    commands.run(argv, step=f"making a file system on {path}", log=log)
    return Volume(path, f"{serial[:4]}-{serial[4:]}", "vfat")


def make_root(path: str, log: Log = quiet) -> Volume:
    """ext4 with the distribution's defaults."""
    return _make_ext4(path, "builder-root", [], log)


def make_models(path: str, log: Log = quiet) -> Volume:
    """ext4 for few, large, read-only files: few inodes, a small journal, nothing kept back for root.

    :func:`layout.models_need` counts on these options.
    """
    options = ["-m", "0", "-i", "1048576", "-I", "256", "-b", "4096", "-J", "size=16", "-O", "^resize_inode"]
    return _make_ext4(path, "builder-models", options, log)


def _make_ext4(path: str, label: str, options: list[str], log: Log) -> Volume:
    uuid = Path("/proc/sys/kernel/random/uuid").read_text().strip()
    argv = ["mkfs.ext4", "-q", "-F", "-L", label, "-U", uuid, *options, path]
    commands.run(argv, step=f"making a file system on {path}", log=log)
    return Volume(path, uuid)


def mount(volume: Volume, target: Path, log: Log = quiet) -> None:
    """Mount a file system for writing; the folder is made if it is missing."""
    target.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", volume.fs, volume.path, str(target)]
    commands.run(argv, step=f"mounting {volume.path}", log=log)


def unmount(target: Path, log: Log = quiet) -> None:
    """Flush and unmount ``target`` with all below it. Raises InstallError while anything is still in use.

    Each mount is made read-only first: from then on its file system is clean on the disk, and a file still
    open for writing fails here and not silently later (shared facts, pitfall 5).
    """
    os.sync()
    for point in reversed(mounts_below(target)):
        commands.run(["mount", "-o", "remount,ro", str(point)], step=f"flushing {point}", log=log)
        commands.run(["umount", str(point)], step=f"unmounting {point}", log=log)


def mounts_below(target: Path, table: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """The mounts of devices at and below ``target``, in the order in which they were made."""
    found = []
    for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        point = Path(fields[4].replace("\\040", " "))
        if point == target or target in point.parents:
            found.append(point)
    return found


def release(path: str, seconds: float = 20) -> None:
    """Write out a device's cache, and make sure that nothing holds it any more.

    umount returning is not enough: another mount namespace may keep the file system alive. An exclusive open
    is what the kernel refuses while any mount, dm or md device uses it. It is for reading: udev takes the end
    of every open for writing as a change, reads the partition table anew, and the partitions are gone for a
    moment.
    Raises InstallError when it is still in use after ``seconds``.
    """

    def free() -> bool:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_EXCL)
        except OSError:
            return False
        try:
            os.fsync(fd)
            if Path(path).is_block_device():
                fcntl.ioctl(fd, _BLKFLSBUF, 0)
        finally:
            os.close(fd)
        return True

    if not commands.wait_for(free, seconds):
        raise InstallError(f"{path} is still in use by something")


def check_clean(path: str) -> None:
    """Raises InstallError if an ext4 file system was not unmounted cleanly."""
    with Path(path).open("rb") as device:
        device.seek(1024)
        superblock = device.read(1024)
    if not ext4_is_clean(superblock):
        raise InstallError(f"the file system on {path} is not clean after it was unmounted")


def ext4_is_clean(superblock: bytes) -> bool:
    """From the 1024 bytes at offset 1024: s_state has the clean bit, and INCOMPAT_RECOVER is not set
    (Documentation/filesystems/ext4/super.rst)."""
    (magic, state) = struct.unpack_from("<HH", superblock, 0x38)
    (incompatible,) = struct.unpack_from("<I", superblock, 0x60)
    return magic == 0xEF53 and bool(state & 0x1) and not incompatible & 0x4
