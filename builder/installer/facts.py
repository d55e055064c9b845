"""Reads what the machine is: its disks (lsblk, udev's links, sysfs) and its identifiers (DMI, NICs)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from . import commands
from .model import Child, Disk, Machine, Nic

TYPE_CHECKING = False  # typing itself costs an import; type checkers know this name
if TYPE_CHECKING:
    from typing import Any

COLUMNS = (
    "NAME,KNAME,PATH,TYPE,SIZE,LOG-SEC,RO,RM,HOTPLUG,TRAN,SERIAL,WWN,VENDOR,MODEL,"
    "PTTYPE,FSTYPE,LABEL,PARTLABEL,MOUNTPOINTS"
)
_PROBES = 64  # places looked at for zeros
_PROBE_SIZE = 4096
_EDGE = 1 << 20

# What firmware vendors leave in DMI when they forget to fill it in; it identifies no machine.
_PLACEHOLDER = re.compile(
    r"(to be filled.*|default string|system serial number|not (specified|applicable|available)|none|n/?a|oem|"
    r"o\.e\.m\.|unknown|invalid|empty|chassis.*|[0.\- ]+|[xf\- ]+|0?123456789|1234567890?|"
    r"03000200-0400-0500-0006-000700080009)?",
    re.IGNORECASE,
)


def read_disks(log: commands.Log = commands.quiet) -> tuple[Disk, ...]:
    """Every block device at the top of lsblk's tree. Raises InstallError if lsblk fails."""
    commands.settle(log)
    out = commands.run(["lsblk", "--json", "--bytes", "--output", COLUMNS], step="listing disks", log=log)
    return parse_lsblk(json.loads(out), links=read_links(), holders=read_holders(), zeros=reads_as_zeros)


def parse_lsblk(
    tree: Mapping[str, Any],
    *,
    links: Mapping[str, tuple[str, ...]],
    holders: Mapping[str, tuple[str, ...]],
    zeros: Callable[[str], bool],
) -> tuple[Disk, ...]:
    """The disks of lsblk's JSON. ``links`` and ``holders`` are by kernel name; ``zeros`` is asked by path,
    and only about disks on which nothing was recognised."""
    disks = []
    for entry in tree["blockdevices"]:
        children = tuple(_children(entry, holders))
        path, name = _text(entry, "path"), _text(entry, "kname")
        table, fstype = _text(entry, "pttype"), _text(entry, "fstype")
        known = bool(table or fstype or children)
        disks.append(
            Disk(
                name=name,
                path=path,
                type=_text(entry, "type"),
                size=int(entry["size"] or 0),
                sector=int(entry.get("log-sec") or 512),
                read_only=_flag(entry, "ro"),
                removable=_flag(entry, "rm"),
                hotplug=_flag(entry, "hotplug"),
                transport=_text(entry, "tran"),
                serial=_text(entry, "serial"),
                wwn=_text(entry, "wwn"),
                model=" ".join(filter(None, (_text(entry, "vendor"), _text(entry, "model")))),
                links=links.get(name, ()),
                table=table,
                fstype=fstype,
                label=_text(entry, "label"),
                mountpoints=_mountpoints(entry),
                holders=holders.get(name, ()),
                zeros=known or _text(entry, "type") != "disk" or zeros(path),
                children=children,
            )
        )
    return tuple(disks)


def _children(entry: Mapping[str, Any], holders: Mapping[str, tuple[str, ...]]) -> list[Child]:
    found = []
    for child in entry.get("children") or ():
        name = _text(child, "kname")
        found.append(
            Child(
                name=name,
                path=_text(child, "path"),
                type=_text(child, "type"),
                size=int(child["size"] or 0),
                fstype=_text(child, "fstype"),
                label=_text(child, "label"),
                partlabel=_text(child, "partlabel"),
                mountpoints=_mountpoints(child),
                holders=holders.get(name, ()),
            )
        )
        found += _children(child, holders)
    return found


def _text(entry: Mapping[str, Any], key: str) -> str:
    return str(entry.get(key) or "").strip()


def _flag(entry: Mapping[str, Any], key: str) -> bool:
    """JSON booleans since util-linux 2.33; a missing column counts as set, which refuses."""
    return entry.get(key) not in (False, 0, "0")


def _mountpoints(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(point for point in entry.get("mountpoints") or () if point)


def read_links(root: Path = Path("/dev/disk")) -> dict[str, tuple[str, ...]]:
    """udev's by-id and by-path links, by the kernel name of the device that they lead to."""
    links: dict[str, tuple[str, ...]] = {}
    for kind in ("by-id", "by-path"):
        for link in sorted((root / kind).iterdir()) if (root / kind).is_dir() else ():
            name = link.resolve().name
            links[name] = (*links.get(name, ()), str(link))
    return links


def read_holders(root: Path = Path("/sys/class/block")) -> dict[str, tuple[str, ...]]:
    """The devices built on each block device, by kernel name; only those that have some."""
    found = {}
    for device in root.iterdir() if root.is_dir() else ():
        folder = device / "holders"
        if folder.is_dir() and (names := sorted(holder.name for holder in folder.iterdir())):
            found[device.name] = tuple(names)
    return found


def reads_as_zeros(path: str) -> bool:
    """Whether the first and last MiB and 64 places in between are zeros; False if they cannot be read."""
    try:
        with Path(path).open("rb") as device:
            size = device.seek(0, os.SEEK_END)
            spots = [(0, _EDGE), (max(0, size - _EDGE), _EDGE)]
            spots += [(size * i // _PROBES // _PROBE_SIZE * _PROBE_SIZE, _PROBE_SIZE) for i in range(_PROBES)]
            for offset, length in spots:
                device.seek(offset)
                if any(device.read(length)):
                    return False
    except OSError:
        return False
    return True


def read_machine(sys: Path = Path("/sys")) -> Machine:
    """DMI identifiers and NICs; what cannot be read is empty."""
    dmi, net = sys / "class/dmi/id", sys / "class/net"
    return Machine(
        nics=tuple(_nic(path) for path in sorted(net.iterdir()) if (path / "address").exists()),
        serial=identifier(_read(dmi / "product_serial")),
        uuid=identifier(_read(dmi / "product_uuid")).lower(),
        vendor=_read(dmi / "sys_vendor"),
        product=_read(dmi / "product_name"),
    )


def identifier(text: str) -> str:
    """``text``, or nothing where it is a vendor's placeholder."""
    return "" if _PLACEHOLDER.fullmatch(text) else text


def _nic(path: Path) -> Nic:
    driver = path / "device/driver"
    return Nic(
        name=path.name,
        mac=_read(path / "address").lower(),
        physical=(path / "device").exists(),
        driver=driver.resolve().name if driver.exists() else "",
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def parent_devices(device: int, sys: Path = Path("/sys")) -> frozenset[str]:
    """The kernel names of a block device (``st_dev``) and of the disks below it; empty for a file system
    without a device, such as the initramfs itself."""
    node = sys / f"dev/block/{os.major(device)}:{os.minor(device)}"
    if os.major(device) == 0 or not node.exists():
        return frozenset()
    return _below(node.resolve(), sys)


def _below(path: Path, sys: Path) -> frozenset[str]:
    names = {path.name}
    if (path / "partition").exists():
        names |= _below(path.parent, sys)
    slaves = path / "slaves"
    for slave in slaves.iterdir() if slaves.is_dir() else ():
        names |= _below(slave.resolve(), sys)
    return frozenset(names) | _behind(path, sys)


def _behind(path: Path, sys: Path) -> frozenset[str]:
    """The devices that a loop device's file lies on, such as a stick with an ISO as a file."""
    try:
        file = Path((path / "loop/backing_file").read_text().rstrip("\n"))
        return parent_devices(file.stat().st_dev, sys)
    except OSError:
        return frozenset()


def kernel_argument(name: str, cmdline: Path = Path("/proc/cmdline")) -> str:
    """The value of a kernel argument, the last one if it is given more than once; empty if it is not given."""
    values = [word.partition("=")[2] for word in cmdline.read_text().split() if word.startswith(name + "=")]
    return values[-1] if values else ""
