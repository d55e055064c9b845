"""What becomes of an install when nobody touches a key: by a kernel line and the documents that it leads to. Pure.

Facts (subiquity 24.04 and 26.04, server.py): the autoinstall document is the first of these: what the kernel
argument ``subiquity.autoinstallpath`` names, ``autoinstall`` in cloud-init's user-data, and
``/cdrom/autoinstall.yaml``. The kernel argument ``autoinstall`` spares the question whether it may begin;
``interactive-sections`` ask their own. Where the document has no storage section, subiquity puts LVM on the
largest disk, and a layout that it does not know is a plain one. cloud-init (DataSourceNoCloud.py) wants user-data
and meta-data in the folder after ``s=`` of ``ds=nocloud``, and heeds a user-data only by its first line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import yaml

from builder.media.grubmenu import Entry
from builder.media.liveiso import CASPER

CDROM = "/cdrom"  # where the live system has its medium
DOCUMENT = "/autoinstall.yaml"
SEED = ("user-data", "meta-data")
OURS = "installs the node that the machine turns out to be, and leaves any other machine alone"
_PICKER = "installer.pick"


@dataclass(frozen=True)
class Seed:
    """The NoCloud seed that a kernel line names; ``here``: None if it is not a place on the medium."""

    place: str
    here: bool | None
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """An autoinstall document on the medium: ``picks`` is ours, which makes a node's own of itself."""

    place: str
    kind: Literal["picks", "installs", "asks", "broken"]
    says: str


@dataclass(frozen=True)
class Verdict:
    """``does`` in a sentence; ``asks`` is None where the medium alone does not decide it."""

    does: str
    asks: bool | None
    seed: Seed | None = None
    document: Document | None = None


def verdict(entry: Entry | None, texts: Mapping[str, bytes]) -> Verdict:
    """What follows from a kernel line; ``texts``: path on the medium → content of its small files."""
    if entry is None:
        return Verdict("cannot be told: it has no GRUB menu that starts a kernel", None)
    if entry.value("boot") == "builder":
        mode = entry.value("builder.mode")
        return Verdict(f"asks nobody: {OURS}", False) if mode == "install" else Verdict("a rescue shell", True)
    if not entry.kernel.startswith(f"{CASPER}/"):
        return Verdict(f"cannot be told: it starts {entry.kernel}, which is no installer that we know", None)
    seed, found = seed_of(entry, texts), _document(entry, texts)
    if found is None and seed is not None and seed.here is None:
        return Verdict(f"does what {seed.place} says, which is not on the medium", None, seed)
    does, asks = _sentence(found, confirmed="autoinstall" in entry.arguments)
    if found is None and seed is not None and not seed.here:
        does = f"asks a person; the seed of its kernel line is not there: {seed.place}"
    return Verdict(does, asks, seed, found)


def _sentence(found: Document | None, *, confirmed: bool) -> tuple[str, bool | None]:
    if found is None:
        return "asks a person; no autoinstall", True
    match found.kind:
        case "broken":
            return f"does not get far: {found.place} {found.says}", None
        case "asks":
            return f"asks a person about {found.says} ({found.place})", True
        case "picks":
            then = OURS
        case _:
            then = f"installs any machine, {found.says} ({found.place})"
    return (f"asks nobody: {then}", False) if confirmed else (f"asks for a yes, and then {then}", True)


def seed_of(entry: Entry, texts: Mapping[str, bytes]) -> Seed | None:
    """The seed that a kernel line names, and whether its files are on the medium."""
    kind, *settings = (entry.value("ds") or "").split(";")
    if kind not in ("nocloud", "nocloud-net"):
        return None
    named = [setting.partition("=")[2] for setting in settings if setting.split("=")[0] in ("s", "seedfrom")]
    if not named:
        return None
    folder = _on_medium(named[-1])
    if folder is None:
        return Seed(named[-1], None)
    lacks = tuple(name for name in SEED if f"{folder.rstrip('/')}/{name}" not in texts)
    return Seed(named[-1], not lacks, lacks)


def _document(entry: Entry, texts: Mapping[str, bytes]) -> Document | None:
    """The document that subiquity would take, of those on the medium."""
    given = entry.value("subiquity.autoinstallpath") or ""
    path = _on_medium(given)
    if path is not None and path in texts:
        return document(given, texts[path], user_data=False)
    seed = seed_of(entry, texts)
    if seed is not None and seed.here:
        place = f"{seed.place.rstrip('/')}/user-data"
        path = _on_medium(place)
        assert path is not None
        if found := document(place, texts[path], user_data=True):
            return found
    if DOCUMENT in texts:
        return document(f"{CDROM}{DOCUMENT}", texts[DOCUMENT], user_data=False)
    return None


@lru_cache(maxsize=64)  # a menu may have an entry a node, and all of them lead here
def document(place: str, text: bytes, *, user_data: bool) -> Document | None:
    """Read one document; None for a user-data without autoinstall in it."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError):
        return Document(place, "broken", "is not YAML")
    if user_data and not text.startswith(b"#cloud-config"):
        return Document(place, "broken", "does not begin with #cloud-config, so cloud-init takes no notice of it")
    if not isinstance(data, dict):
        return None if user_data else Document(place, "broken", "is not a mapping")
    if "autoinstall" in data:
        data = data["autoinstall"]
        if not isinstance(data, dict):
            return Document(place, "broken", "has an autoinstall that is not a mapping")
    elif user_data:
        return None
    if data.get("version") != 1:
        return Document(place, "broken", "has no version: 1")
    if sections := data.get("interactive-sections"):
        return Document(place, "asks", ", ".join(map(str, sections)).replace("*", "everything"))
    if _PICKER in str(data.get("early-commands", "")):
        return Document(place, "picks", OURS)
    return Document(place, "installs", _disk(data.get("storage")))


def _disk(storage: Any) -> str:
    """Which disk a document takes, in words."""
    if not isinstance(storage, dict) or not storage:
        return "with LVM on its largest disk"
    layout = storage.get("layout")
    if not isinstance(layout, dict):
        return "with partitions of its own"
    name = {"lvm": "LVM", "zfs": "ZFS", "dd": "an image"}.get(str(layout.get("name")), "plain partitions")
    match = layout.get("match")
    if not match:
        return f"with {name} on its largest disk"
    return f"with {name} on a disk like {yaml.safe_dump(match, default_flow_style=True).strip()}"


def _on_medium(place: str) -> str | None:
    """The path on the medium of a place in the live system, or None if it is elsewhere."""
    path = place.removeprefix("file://")
    return path.removeprefix(CDROM) if path.startswith(f"{CDROM}/") else None
