"""The virtual disks of a boot test: made, hashed, and looked into from outside.

Raw files, as e2fsprogs reads a file system inside one at ``file?offset=N``. They are sparse: only what the
guest writes takes room.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import BuilderError, Exit
from builder.run import run
from builder.verify.machine import Disk, DiskBus
from builder.verify.report import StepFailed

MIB = 1024 * 1024
GIB = 1024 * MIB
SMALLEST_TARGET = 8 * GIB
BYSTANDER_SIZE = 64 * MIB
BYSTANDER_SERIAL = "BYSTANDER"
_SECTOR = 512
_EXT_MAGIC_AT = 1024 + 0x38  # superblock at 1024, s_magic at 0x38: kernel Documentation/filesystems/ext4
_EXT_MAGIC = b"\x53\xef"


@dataclass(frozen=True)
class Target:
    """The disk to install to: size in bytes and what the guest sees of it."""

    size: int
    serial: str = "TARGET"
    bus: DiskBus = "virtio"
    wwn: int | None = None

    def disk(self, path: Path, bootindex: int | None) -> Disk:
        return Disk(path, self.serial, bus=self.bus, wwn=self.wwn, bootindex=bootindex)


def target_for(selector: Mapping[str, Any], storage: Mapping[str, Any], models: int) -> Target:
    """A disk that a node's ``disk`` selector of the manifest picks, large enough for ``storage``.

    ``models`` is the sum of the model files in bytes, for a models partition without a size. Raises
    BuilderError for a selector that no virtual disk can satisfy.
    """
    partitions = (storage.get("esp") or 0) + (storage.get("root") or 6 * GIB) + (storage.get("besides") or 0)
    sized = storage.get("models")
    partitions += models + models // 10 + 256 * MIB if sized is None else sized
    wanted = max(SMALLEST_TARGET, int(selector.get("min_size") or 0), partitions + 64 * MIB)
    size = -(-wanted // MIB) * MIB
    if "serial" in selector:
        return Target(size, serial=str(selector["serial"]))
    if "wwn" in selector:
        digits = str(selector["wwn"]).lower().removeprefix("naa.").removeprefix("wwn-").removeprefix("0x")
        try:
            return Target(size, bus="scsi", wwn=int(digits, 16))
        except ValueError as error:
            raise _no_such_disk(f"wwn {selector['wwn']}") from error
    if "path" in selector:
        return _target_at(str(selector["path"]), size)
    return Target(size)


def _target_at(glob: str, size: int) -> Target:
    """virtio-SERIAL is the one name under /dev/disk/by-id that holds nothing but what we may choose."""
    name = glob.rsplit("/", 1)[-1]
    serial = name.removeprefix("virtio-").replace("*", "X").replace("?", "X")
    if not name.startswith("virtio-") or "[" in name:
        raise _no_such_disk(f"path {glob}")
    return Target(size, serial=serial)


def _no_such_disk(what: str) -> BuilderError:
    return BuilderError(
        f"the boot test has no virtual disk that matches {what}",
        hint="test with a copy of the spec whose node names its disk by serial, wwn or largest",
        code=Exit.SPEC,
    )


def make_blank(path: Path, size: int) -> None:
    """A sparse file of ``size`` zero bytes."""
    with path.open("wb") as file:
        file.truncate(size)


def make_copy(path: Path, content: Path, size: int) -> None:
    """A sparse copy of ``content``, at least ``size`` bytes long."""
    step = "copying the disk's content"
    run(["cp", "--sparse=always", "--reflink=auto", "--", content, path], step=step)
    with path.open("r+b") as file:
        file.truncate(max(size, content.stat().st_size))


def make_bystander(path: Path) -> None:
    """A disk of someone else's data that an install has to leave alone: ext4 with a file of known bytes.

    A real file system, since merely mounting one writes to it. Raises BuilderError if mke2fs is missing.
    """
    content = path.with_suffix(".content")
    content.mkdir(exist_ok=True)
    (content / "photos.bin").write_bytes(random.Random(path.name).randbytes(BYSTANDER_SIZE * 3 // 4))
    make_blank(path, BYSTANDER_SIZE)
    run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "bystander", "-d", content, path],
        step="making the second disk",
    )
    (content / "photos.bin").unlink()
    content.rmdir()


def digest(path: Path) -> str:
    """sha256 over what a disk holds: its size, then offset and bytes of every MiB that is not all zero.

    Holes and zeros count as the same, so a sparse disk is hashed in the time its data takes.
    """
    whole = hashlib.sha256()
    zeros = bytes(MIB)
    size = path.stat().st_size
    whole.update(struct.pack("<Q", size))
    with path.open("rb") as file:
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // MIB * MIB
            except OSError:  # ENXIO: only a hole is left
                break
            block = os.pread(file.fileno(), MIB, at)
            if block != zeros[: len(block)]:
                whole.update(struct.pack("<Q", at))
                whole.update(block)
            at += MIB
    return whole.hexdigest()


@dataclass(frozen=True)
class Partition:
    """One entry of a GPT: number from 1, first byte, length in bytes, name."""

    number: int
    offset: int
    size: int
    name: str


def partitions(disk: Path) -> tuple[Partition, ...]:
    """The used entries of the primary GPT (UEFI specification 5.3). Raises StepFailed if there is none."""
    with disk.open("rb") as file:
        file.seek(_SECTOR)
        header = file.read(_SECTOR)
        if header[:8] != b"EFI PART":
            raise StepFailed(f"{disk.name} has no GPT")
        (table_lba,) = struct.unpack_from("<Q", header, 72)
        count, entry_size = struct.unpack_from("<II", header, 80)
        if not (128 <= entry_size <= 4096 and 0 < count <= 1024):
            raise StepFailed(f"{disk.name} has a damaged GPT header")
        file.seek(table_lba * _SECTOR)
        table = file.read(count * entry_size)
    found = []
    for number in range(count):
        entry = table[number * entry_size : (number + 1) * entry_size]
        if len(entry) < 128 or entry[:16] == bytes(16):
            continue
        first, last = struct.unpack_from("<QQ", entry, 32)
        name = entry[56:128].decode("utf-16-le", errors="replace").split("\0")[0]
        found.append(Partition(number + 1, first * _SECTOR, (last - first + 1) * _SECTOR, name))
    return tuple(found)


def ext_partitions(disk: Path) -> tuple[Partition, ...]:
    """Those partitions that hold an ext2/3/4 file system. Raises StepFailed as :func:`partitions`."""
    with disk.open("rb") as file:
        return tuple(
            one for one in partitions(disk) if os.pread(file.fileno(), 2, one.offset + _EXT_MAGIC_AT) == _EXT_MAGIC
        )


def holder_partitions(disk: Path) -> tuple[tuple[Partition, str], ...]:
    """Those that hold others: (partition, LVM or LUKS). Raises StepFailed as :func:`partitions`."""
    found = []
    with disk.open("rb") as file:
        for one in partitions(disk):
            head = os.pread(file.fileno(), 4 * _SECTOR, one.offset)
            # LVM's label is in one of the first four sectors (lib/label/label.h), LUKS's magic in the first bytes.
            if any(head[at : at + 8] == b"LABELONE" for at in range(0, len(head), _SECTOR)):
                found.append((one, "LVM"))
            elif head[:6] == b"LUKS\xba\xbe":
                found.append((one, "LUKS"))
    return tuple(found)


def check_clean(disk: Path) -> str:
    """Every ext file system on ``disk`` was unmounted: no journal to replay. Returns what dumpe2fs said.

    An install whose disk still has ``needs_recovery`` was cut off before its last writes. What LVM or LUKS holds
    is not looked into, and said to be so. Raises StepFailed.
    """
    found, holders = ext_partitions(disk), holder_partitions(disk)
    if not found and not holders:
        raise StepFailed(f"{disk.name} has no ext4 file system after the install")
    evidence = [f"partition {one.number} ({one.name}): {kind}, not looked into" for one, kind in holders]
    for one in found:
        said = run(["dumpe2fs", "-h", f"{disk}?offset={one.offset}"], step="reading a superblock", check=False)
        wanted = ("Filesystem features:", "Filesystem state:", "Filesystem volume name:")
        facts = "; ".join(line for line in said.stdout.splitlines() if line.startswith(wanted))
        if said.returncode != 0:
            raise StepFailed(f"dumpe2fs cannot read partition {one.number} ({one.name})", said.stderr.strip())
        if "needs_recovery" in facts or not any(
            line.split(":", 1)[1].strip() == "clean"
            for line in said.stdout.splitlines()
            if line.startswith("Filesystem state:")
        ):
            raise StepFailed(f"partition {one.number} ({one.name}) was not unmounted by the installer", facts)
        evidence.append(f"partition {one.number} ({one.name}): {facts}")
    return "\n".join(evidence)


def read_file(disk: Path, inside: str, to: Path) -> bool:
    """Copy the file ``inside`` out of the first ext file system that has it; False if none has."""
    try:
        found = ext_partitions(disk)
    except StepFailed:
        return False
    for one in found:
        command = f'dump "{inside}" "{to}"'
        run(
            ["debugfs", "-R", command, f"{disk}?offset={one.offset}"],
            step="reading the install log",
            check=False,
        )
        if to.is_file() and to.stat().st_size > 0:
            return True
        to.unlink(missing_ok=True)
    return False
