"""A live-server ISO of Ubuntu: what it offers, and a plain refusal of everything that is not one.

Facts: ``.disk/info`` reads ``Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release amd64 (20250805.1)``, where casper
and subiquity take the first two words; ``casper/install-sources.yaml`` is a list of sources, or from 25.04 on a
mapping with the list under ``sources`` (subiquity, models/source.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from builder.errors import BuilderError, Exit
from builder.media import grubmenu, isoimage
from builder.media.grubmenu import Entry
from builder.media.isoimage import IsoImage
from builder.media.ubunturelease import CODENAMES

INFO = "/.disk/info"
CASPER = "/casper"
CATALOGUE = f"{CASPER}/install-sources.yaml"
MENUS = ("/boot/grub/grub.cfg", "/boot/grub/loopback.cfg")
SERVER = "Ubuntu-Server"
OURS = "/builder/manifest.json"  # a medium of ours has it; payload.py is not asked, as the lock comes before it
_TAKE = 'take "Ubuntu Server", ubuntu-…-live-server-amd64.iso; release: "24.04" fetches it'


@dataclass(frozen=True)
class Info:
    """``.disk/info``, taken apart: ``Ubuntu-Server``, ``24.04.3``, ``amd64`` (empty where it does not say)."""

    product: str
    point: str
    architecture: str

    @property
    def release(self) -> str:
        """``24.04`` of ``24.04.3``."""
        return ".".join(self.point.split(".")[:2])


@dataclass(frozen=True)
class Source:
    """An entry of the catalogue; ``path`` below casper/, ``size`` in bytes once it is unpacked."""

    id: str
    path: str
    type: str
    variant: str
    size: int
    default: bool


@dataclass(frozen=True)
class LiveIso:
    """A live-server ISO that can be edited.

    ``menus``: path → text of each GRUB menu, and ``entries`` their kernel lines; ``catalogue`` is the text of
    install-sources.yaml, and ``sources`` what it lists; ``layers``: file name in casper/ → bytes.
    """

    image: IsoImage
    info: Info
    menus: Mapping[str, str]
    entries: tuple[Entry, ...]
    catalogue: str
    sources: tuple[Source, ...]
    layers: Mapping[str, int]


def read(path: Path) -> LiveIso:
    """Read a live-server ISO of a release that we know.

    Raises BuilderError (MEDIUM): no ISO, cut short, a desktop's or a medium of ours, for another processor, of a
    release that we do not know, or damaged.
    """
    image = isoimage.read(path)
    info = _require_server(image)
    _require_known(path, info)
    catalogue = _text(image, CATALOGUE)
    sources = parse_catalogue(catalogue)
    if not sources:
        raise BuilderError(
            f"{path}: {CATALOGUE} is not a catalogue that can be read", hint="get it again", code=Exit.MEDIUM
        )
    menus = {name: _text(image, name) for name in MENUS if name in image.files}
    entries = tuple(entry for text in menus.values() for entry in grubmenu.entries(text))
    if not any(entry.kernel.startswith(f"{CASPER}/") for entry in entries):
        raise BuilderError(
            f"{path}: {MENUS[0]} starts no kernel of {CASPER}",
            hint=f"somebody has edited it; {_TAKE}",
            code=Exit.MEDIUM,
        )
    return LiveIso(image, info, menus, entries, catalogue, sources, layers(image.files))


def require_release(live: LiveIso, release: str) -> None:
    """Hold an ISO to the release (``24.04``) that the nodes are to run. Raises BuilderError (MEDIUM)."""
    if live.info.release != release:
        raise BuilderError(
            f"{live.image.path} is Ubuntu {live.info.point}, and the nodes are to run {release}",
            hint="mend distribution.release or media.base_iso: they go together",
            code=Exit.MEDIUM,
        )


def layers(files: Mapping[str, isoimage.Place]) -> dict[str, int]:
    """The squashfs images in casper/, by file name, with their sizes in bytes. Pure."""
    found = {name.removeprefix(f"{CASPER}/"): extent.size for name, extent in files.items()}
    return {name: size for name, size in found.items() if name.endswith(".squashfs") and "/" not in name}


def parse_info(text: str) -> Info | None:
    """``.disk/info``, or None if it is of another form. Pure."""
    found = re.match(r"(\S+) (\d{2}\.\d{2}(?:\.\d+)?)(?= |$)", text)
    if not found:
        return None
    machine = re.search(r" - .*?\b(amd64|arm64|i386|ppc64el|riscv64|s390x|armhf)\b", text)
    return Info(found[1], found[2], machine[1] if machine else "")


def parse_catalogue(text: str) -> tuple[Source, ...]:
    """The sources of a catalogue of either form; empty if it is of neither. Pure."""
    try:
        data = yaml.safe_load(text)
        listed = data["sources"] if isinstance(data, dict) else data
        return tuple(_source(entry) for entry in listed)
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return ()


def _source(entry: Mapping[str, Any]) -> Source:
    return Source(
        id=str(entry["id"]),
        path=str(entry["path"]),
        type=str(entry["type"]),
        variant=str(entry.get("variant", "")),
        size=int(entry["size"]),
        default=entry.get("default", False) is True,
    )


def _require_server(image: IsoImage) -> Info:
    """Refuse what is not a live-server ISO, by what it is."""
    path = image.path
    if OURS in image.files:
        raise BuilderError(
            f"{path} is a medium that this builder made", hint="take the ISO that Ubuntu made", code=Exit.MEDIUM
        )
    info = parse_info(_text(image, INFO)) if INFO in image.files else None
    if info is None:
        raise BuilderError(f"{path} is not an ISO of Ubuntu: no {INFO} says so", hint=_TAKE, code=Exit.MEDIUM)
    if info.product != SERVER and layers(image.files):
        raise BuilderError(f"{path} is a desktop ISO: {info.product} {info.point}", hint=_TAKE, code=Exit.MEDIUM)
    if info.product != SERVER or CATALOGUE not in image.files:
        raise BuilderError(f"{path} is not a live-server ISO: it has no {CATALOGUE}", hint=_TAKE, code=Exit.MEDIUM)
    return info


def _require_known(path: Path, info: Info) -> None:
    if info.architecture not in ("amd64", ""):
        raise BuilderError(f"{path} is for {info.architecture}, and nodes are amd64", hint=_TAKE, code=Exit.MEDIUM)
    if info.release in CODENAMES:
        return
    why = "not a release whose installer this builder knows"
    oldest = next(iter(CODENAMES))
    if [int(part) for part in info.release.split(".")] < [int(part) for part in oldest.split(".")]:
        why = f"too old: {oldest} is the first whose installer has every key that we need"
    raise BuilderError(
        f"{path} is Ubuntu {info.point}, {why}", hint=f"known: {', '.join(CODENAMES)}", code=Exit.MEDIUM
    )


def _text(image: IsoImage, name: str) -> str:
    return image.read(name).decode(errors="replace")
