"""Which disk may be written: a pure function of the machine's disks and the spec's wish.

The answer is one disk or a refusal that says why, disk by disk. When in doubt it refuses: the person who
wrote the spec can always name a disk, and naming it is the consent.

With ``largest`` the disks are first narrowed by *kind* (what sort of device it is), then the largest is
taken, and only then its *state* (mounted, held, what is on it) is judged. So a large disk full of data is
refused and never silently passed over for a smaller one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .model import Child, Disk, Want, human

PARTITIONS = ("builder-bios", "builder-esp", "builder-root", "builder-models")
BOOT = "builder-boot"  # beside them where subiquity has encrypted the disk, since GRUB has to read the kernel
_OURS = frozenset((*PARTITIONS, BOOT))
_REQUIRED = frozenset(PARTITIONS[:3])

# lsblk calls several of these "disk" (zram, nbd, floppies, the boot areas of an eMMC), so the kernel's name
# decides as well.
_NOT_A_DISK = re.compile(r"(loop|z?ram|nbd|fd|sr|dm-|md|mtd|rbd|drbd|mmcblk\d+(boot|rpmb|gp))")
_REMOVABLE_TRANSPORTS = ("usb", "ieee1394", "mmc")


@dataclass(frozen=True)
class Case:
    """What a disk is judged against: ``payload`` are the kernel names of the devices the payload is read
    from, ``need`` the bytes that the layout takes at least."""

    want: Want
    payload: frozenset[str]
    need: int


@dataclass(frozen=True)
class Chosen:
    """The disk to write, and why it is this one."""

    disk: Disk
    why: str


@dataclass(frozen=True)
class Refused:
    """No disk may be written: the reason, and (path, remark) for each disk of the machine."""

    reason: str
    disks: tuple[tuple[str, str], ...] = ()


Check = Callable[[Disk, Case], "str | None"]
"""Returns why the disk is not acceptable, or None."""


def not_a_disk(disk: Disk, case: Case) -> str | None:
    """Only real disks: no loop, rom, ram, zram, nbd, floppy, md or dm device."""
    if disk.type != "disk":
        return f"it is not a disk but of type {disk.type or 'unknown'}"
    return f"it is not a disk: {disk.name}" if _NOT_A_DISK.match(disk.name) else None


def no_medium(disk: Disk, case: Case) -> str | None:
    """An empty card reader is a disk of no size."""
    return "no medium is in it" if disk.size <= 0 else None


def payload_disk(disk: Disk, case: Case) -> str | None:
    """Never the disk that this installer reads from, whichever of its partitions holds the payload."""
    names = {disk.name, *(child.name for child in disk.children)}
    return "it is the medium that this installer runs from" if names & case.payload else None


def read_only(disk: Disk, case: Case) -> str | None:
    """A write-protected device."""
    return "it is read-only" if disk.read_only else None


def removable(disk: Disk, case: Case) -> str | None:
    """A stick or a USB disk may be somebody's back-up: only when the spec names it."""
    if case.want.named:
        return None
    if disk.transport in _REMOVABLE_TRANSPORTS:
        return f"it is attached by {disk.transport}; only a disk named by serial, wwn or path may be that"
    if disk.removable or disk.hotplug:
        return "it is removable; only a disk named by serial, wwn or path may be that"
    return None


def mounted(disk: Disk, case: Case) -> str | None:
    """Something of it is mounted or used as swap."""
    devices: tuple[Disk | Child, ...] = (disk, *disk.children)
    for device in devices:
        if device.mountpoints:
            return f"{device.path} is in use at {device.mountpoints[0]}"
    return None


def held(disk: Disk, case: Case) -> str | None:
    """An active md, lvm, crypt or other dm device is built on it."""
    devices: tuple[Disk | Child, ...] = (disk, *disk.children)
    for device in devices:
        if device.holders:
            return f"{device.path} is held by {', '.join(device.holders)}"
    for child in disk.children:
        if child.type != "part":
            return f"{child.path} ({child.type}) is active on it"
    return None


def below_minimum(disk: Disk, case: Case) -> str | None:
    """The spec's min_size."""
    if disk.size < case.want.min_size:
        return f"it has {human(disk.size)}, less than min_size {human(case.want.min_size)}"
    return None


def below_layout(disk: Disk, case: Case) -> str | None:
    """The partitions must fit."""
    if disk.size < case.need:
        return f"it has {human(disk.size)}, and the partitions need {human(case.need)}"
    return None


def foreign(disk: Disk, case: Case) -> str | None:
    """Data that is not ours, unless the spec allows to overwrite it."""
    if case.want.overwrite or content(disk) != "foreign":
        return None
    by = f'name it by serial: "{disk.serial}"' if disk.serial else "name it by wwn or path"
    return f"it holds data: {contents(disk)}. To allow that it is wiped, {by}, or set overwrite: true"


KIND: tuple[Check, ...] = (not_a_disk, no_medium, payload_disk, read_only, removable)
STATE: tuple[Check, ...] = (mounted, held, below_minimum, below_layout, foreign)


def content(disk: Disk) -> str:
    """``blank``, ``ours`` (a node of ours is on it, or half of one) or ``foreign`` (anything else)."""
    if not (disk.table or disk.fstype or disk.children or not disk.zeros):
        return "blank"
    names = [child.partlabel for child in disk.children]
    only_ours = len(names) == len(set(names)) and _REQUIRED <= set(names) <= _OURS
    return "ours" if disk.table == "gpt" and only_ours else "foreign"


def contents(disk: Disk) -> str:
    """What is on the disk, in words."""
    found = [f"{disk.table} partition table"] if disk.table else []
    if disk.fstype:
        found.append(f"{disk.fstype} {disk.label!r}" if disk.label else disk.fstype)
    for child in disk.children:
        name = child.label or child.partlabel
        found.append(" ".join(filter(None, (child.path, child.fstype, repr(name) if name else ""))))
    if not found:
        return "nothing" if disk.zeros else "data without a known signature"
    return ", ".join(found)


def ambiguous(disks: tuple[Disk, ...], what: str) -> str | None:
    """A wish must point at one disk; two paths to one disk (multipath) are two as well."""
    if len(disks) < 2:
        return None
    return f"{what} is ambiguous: {', '.join(disk.path for disk in disks)}"


def decide(disks: tuple[Disk, ...], want: Want, *, payload: frozenset[str], need: int) -> Chosen | Refused:
    """Choose the disk to write, or refuse."""
    case = Case(want, payload, need)
    remarks = tuple((disk.path, _first(KIND + STATE, disk, case) or content(disk)) for disk in disks)
    if want.named:
        what = _wish(want)
        found = tuple(disk for disk in disks if _is_named(disk, want))
        if not found:
            return Refused(f"no disk has {what}", remarks)
    elif want.largest:
        what = "the largest disk"
        able = [disk for disk in disks if _first(KIND, disk, case) is None]
        if not able:
            return Refused("the machine has no disk that may be written", remarks)
        top = max(disk.size for disk in able)
        found = tuple(disk for disk in able if disk.size == top)
    else:
        return Refused("the spec does not say which disk to use", remarks)
    if reason := ambiguous(found, what):
        return Refused(f"{reason}; name one by serial, wwn or path", remarks)
    disk = found[0]
    if reason := _first(KIND + STATE, disk, case):
        return Refused(f"{disk.path} ({what}): {reason}", remarks)
    return Chosen(disk, f"{what}, {human(disk.size)}, {content(disk)}: {contents(disk)}")


def _first(checks: tuple[Check, ...], disk: Disk, case: Case) -> str | None:
    return next(filter(None, (check(disk, case) for check in checks)), None)


def _wish(want: Want) -> str:
    pairs = (("serial", want.serial), ("wwn", want.wwn), ("path", want.path))
    return " and ".join(f"{key} {value}" for key, value in pairs if value)


def _is_named(disk: Disk, want: Want) -> bool:
    """Whether all that the wish names is true of the disk. What the disk does not have is never equal, so a
    wish for " " or "0x" does not find the disks without a serial or WWN."""
    if want.serial and not (disk.serial and want.serial.strip().lower() == disk.serial.strip().lower()):
        return False
    if want.wwn and not (disk.wwn and _wwn(want.wwn) == _wwn(disk.wwn)):
        return False
    if want.path:
        return any(
            fnmatchcase(link, want.path) or fnmatchcase(link.rpartition("/")[2], want.path) for link in disk.links
        )
    return True


def _wwn(text: str) -> str:
    return text.strip().lower().removeprefix("0x")
