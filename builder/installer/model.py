"""The values that the installer's decisions are made of: the machine's facts and the medium's manifest.

Everything is frozen. Sizes and offsets are bytes. Nothing here reads or writes anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class InstallError(Exception):
    """An install cannot go on. ``reason`` is one line; ``details`` are further lines for the console."""

    def __init__(self, reason: str, details: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.reason = " ".join(reason.split())
        self.details = details


@dataclass(frozen=True)
class Nic:
    """A network interface. ``physical``: a device of the machine backs it (not lo, a bridge, a bond …)."""

    name: str
    mac: str
    physical: bool = True
    driver: str = ""


@dataclass(frozen=True)
class Child:
    """A block device on top of a disk: a partition, or what md, lvm or dm made of one (``type``)."""

    name: str
    path: str
    type: str = "part"
    size: int = 0
    fstype: str = ""
    label: str = ""
    partlabel: str = ""
    mountpoints: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Disk:
    """A whole block device as lsblk and sysfs show it; ``children`` are all its descendants, flattened.

    ``links`` are the /dev/disk/by-id and by-path names of the device itself. ``zeros``: the places probed at
    the start, the end and in between read as zeros, so that data without a known signature is not taken for
    a blank disk.
    """

    name: str
    path: str
    type: str = "disk"
    size: int = 0
    sector: int = 512
    read_only: bool = False
    removable: bool = False
    hotplug: bool = False
    transport: str = ""
    serial: str = ""
    wwn: str = ""
    model: str = ""
    links: tuple[str, ...] = ()
    table: str = ""
    fstype: str = ""
    label: str = ""
    mountpoints: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    zeros: bool = True
    children: tuple[Child, ...] = ()


@dataclass(frozen=True)
class Machine:
    """Who this machine is. DMI values that vendors leave as placeholders are empty here."""

    nics: tuple[Nic, ...] = ()
    serial: str = ""
    uuid: str = ""
    vendor: str = ""
    product: str = ""


@dataclass(frozen=True)
class Want:
    """Which disk the spec asks for: one of serial, wwn, path (a glob over ``Disk.links``) or largest."""

    serial: str = ""
    wwn: str = ""
    path: str = ""
    largest: bool = False
    min_size: int = 0
    overwrite: bool = False

    @property
    def named(self) -> bool:
        """Whether the spec points at one disk, which is also the consent that removable media need."""
        return bool(self.serial or self.wwn or self.path)


@dataclass(frozen=True)
class Match:
    """How a node is recognised; empty means not asked for."""

    mac: str = ""
    serial: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class Node:
    """One node of the cluster; ``seed`` is a folder of the payload, and ``autoinstall`` the file there that
    subiquity installs the node by, empty on media without subiquity."""

    name: str
    match: Match
    disk: Want
    seed: str
    autoinstall: str = ""


@dataclass(frozen=True)
class File:
    """One payload file; ``path`` is relative to the payload's folder."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """A model file: its path below the node's folder of models, and where it is in the payload."""

    name: str
    path: str


@dataclass(frozen=True)
class Storage:
    """Sizes of the partitions. ``None`` is the rest of the disk; ``models`` 0 is no such partition.

    ``keep`` is the wish that a models partition of an earlier install stays.
    ``besides``: what else of the disk subiquity needs, for encryption and LVM; nothing with the direct installer.
    """

    esp: int
    root: int | None
    models: int | None
    besides: int = 0
    keep: bool = False


@dataclass(frozen=True)
class Manifest:
    """What the medium carries; see the payload's manifest.json."""

    cluster: str
    plan: str
    files: tuple[File, ...]
    layers: tuple[str, ...]
    models: tuple[Model, ...]
    nodes: tuple[Node, ...]
    storage: Storage
    after: str = "reboot"
    index: dict[str, File] = field(default_factory=dict, compare=False)

    def file(self, path: str) -> File:
        """The entry for ``path``. Raises InstallError if the manifest does not list it."""
        if path not in self.index:
            raise InstallError(f"the manifest names {path} but does not list it among its files")
        return self.index[path]

    @property
    def layer_bytes(self) -> int:
        """The layers as they are on the medium, compressed."""
        return sum(self.file(path).size for path in self.layers)

    @property
    def model_sizes(self) -> tuple[int, ...]:
        """The size of each model."""
        return tuple(self.file(model.path).size for model in self.models)


def human(size: float) -> str:
    """A size for people, in powers of 1024: ``20.0 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
