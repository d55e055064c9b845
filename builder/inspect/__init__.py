"""What a medium does to a machine that is started from it: one of ours, or any other ISO of Ubuntu.

Pure but for :func:`gather`: what was read of a medium in, what it would do out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from builder.errors import BuilderError, Exit
from builder.inspect import installed
from builder.inspect.installed import Account, NodeRow, Partitions
from builder.inspect.unattended import Document, Seed, verdict
from builder.installer.model import InstallError
from builder.installer.payload import parse_manifest
from builder.media import grubmenu, liveiso
from builder.media.grubmenu import Entry
from builder.media.isoimage import IsoImage
from builder.media.liveiso import CASPER, CATALOGUE, INFO, MENUS, Source
from builder.media.payload import FOLDER, Payload

MANIFEST = liveiso.OURS
INITRAMFS = "/boot/initramfs.img"
SMALL = 1 << 20  # bytes; a larger file tells nothing that a person would read
_PIN = re.compile(rb"etc/builder/manifest\.sha256\0+([0-9a-f]{64})\n")


@dataclass(frozen=True)
class Content:
    """What was read of a medium. Paths are absolute, ``files`` has every size in bytes, ``texts`` small files.

    ``pin`` is the digest of the only manifest that our own initramfs accepts, where there is one.
    """

    name: str
    volume: str
    size: int
    files: Mapping[str, int]
    texts: Mapping[str, bytes]
    pin: str | None = None


@dataclass(frozen=True)
class Blob:
    """A layer or a model; ``size`` in bytes, None if it is not listed; ``sha256`` where a manifest says it."""

    name: str
    size: int | None
    sha256: str | None = None


@dataclass(frozen=True)
class Inspection:
    """What there is to say of a medium.

    ``does``: in a sentence, what happens when a machine is started from it and nobody touches a key. ``asks``:
    whether a person must answer something; None if that is not decided on the medium. ``problems``: what is
    damaged or can never work. ``base_iso``: what it was remastered from, if it says. ``after``: what a machine
    does when it is installed. ``secrets``: what anyone can read who holds the medium, in words.
    """

    medium: str
    size: int
    volume: str
    system: str | None
    does: str
    asks: bool | None
    cluster: str | None
    plan: str | None
    manifest: str | None
    after: str | None
    base_iso: Blob | None
    kernels: tuple[Entry, ...]
    seeds: tuple[Seed, ...]
    documents: tuple[Document, ...]
    nodes: tuple[NodeRow, ...]
    storage: Partitions | None
    accounts: tuple[Account, ...]
    secrets: tuple[str, ...]
    sources: tuple[Source, ...]
    layers: tuple[Blob, ...]
    models: tuple[Blob, ...]
    packages: int
    problems: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        """For ``--json``."""
        return asdict(self)


def gather(image: IsoImage) -> Content:
    """Read what tells: menus, catalogue, seeds, documents, manifest. Raises BuilderError (MEDIUM) if cut short."""
    texts = {
        name: image.read(name)
        for name, extent in image.files.items()
        if name == MANIFEST or (extent.size <= SMALL and _tells(name))
    }
    pin = _PIN.search(image.end(INITRAMFS, 4096)) if INITRAMFS in image.files else None
    sizes = {name: extent.size for name, extent in image.files.items()}
    return Content(image.path.name, image.volume, image.size, sizes, texts, pin[1].decode() if pin else None)


def _tells(name: str) -> bool:
    last = name.rpartition("/")[2]
    return (
        name in (INFO, CATALOGUE, *MENUS)
        or name.startswith((f"{FOLDER}/seeds/", f"{FOLDER}/autoinstall/"))
        or last in ("user-data", "meta-data")
        or (last.endswith((".yaml", ".yml")) and "autoinstall" in last)
    )


def carried(content: Content) -> Payload | None:
    """The payload's manifest and small files, if the medium is one of ours.

    Raises BuilderError (MEDIUM) if there is a manifest that cannot be understood.
    """
    if MANIFEST not in content.texts:
        return None
    try:
        parse_manifest(content.texts[MANIFEST])
    except InstallError as error:
        raise BuilderError(
            f"{content.name}: {MANIFEST}: {error.reason}",
            hint="it is damaged, or another version of this builder made it",
            code=Exit.MEDIUM,
        ) from None
    prefix = f"{FOLDER}/"
    files = {name.removeprefix(prefix): text for name, text in content.texts.items() if name.startswith(prefix)}
    return Payload(json.loads(content.texts[MANIFEST]), files)


def inspect(content: Content) -> Inspection:
    """Say what a medium is and does. Pure. Raises BuilderError (MEDIUM) as :func:`carried`."""
    ours = carried(content)
    manifest: Mapping[str, Any] = ours.manifest if ours else {}
    kernels = grubmenu.entries(_text(content, MENUS[0]))
    verdicts = [verdict(entry, content.texts) for entry in kernels]
    first = verdicts[0] if verdicts else verdict(None, content.texts)
    seeds = tuple(dict.fromkeys(each.seed for each in verdicts if each.seed))
    documents = tuple(dict.fromkeys(each.document for each in verdicts if each.document))
    sources = liveiso.parse_catalogue(_text(content, CATALOGUE))
    listed = {entry["path"]: entry for entry in manifest.get("files", ())}
    return Inspection(
        medium=content.name,
        size=content.size,
        volume=content.volume,
        system=_text(content, INFO).strip() or None,
        does=first.does,
        asks=first.asks,
        cluster=manifest.get("cluster"),
        plan=manifest.get("plan"),
        manifest=hashlib.sha256(content.texts[MANIFEST]).hexdigest() if ours else None,
        after=manifest.get("after"),
        base_iso=Blob(**manifest["base_iso"]) if manifest.get("base_iso") else None,
        kernels=kernels,
        seeds=seeds,
        documents=documents,
        nodes=installed.nodes(ours) if ours else (),
        storage=installed.storage(ours) if ours else None,
        accounts=installed.accounts(ours) if ours else (),
        secrets=installed.secrets(ours) if ours else (),
        sources=sources,
        layers=(*_listed(manifest.get("layers", ()), listed), *_of_ubuntu(content, listed)),
        models=tuple(
            Blob(model["name"], listed[model["path"]]["size"], listed[model["path"]]["sha256"])
            for model in manifest.get("models", ())
            if model["path"] in listed
        ),
        packages=len(manifest.get("packages", ())),
        problems=(
            *_lost(kernels),
            *(f"the seed {seed.place} lacks {', '.join(seed.lacks)}" for seed in seeds if seed.lacks),
            *(f"{found.place} {found.says}" for found in documents if found.kind == "broken"),
            *_sourceless(content, sources),
            *(_damaged(content, ours, kernels) if ours else ()),
        ),
    )


def _listed(paths: Iterable[str], listed: Mapping[str, Any]) -> Iterator[Blob]:
    for path in paths:
        entry = listed.get(path, {})
        yield Blob(path.rpartition("/")[2], entry.get("size"), entry.get("sha256"))


def _of_ubuntu(content: Content, listed: Mapping[str, Any]) -> Iterator[Blob]:
    """The squashfs images in casper/ that are not ours as well."""
    mine = {path.rpartition("/")[2] for path in listed}
    for name, size in content.files.items():
        folder, _, last = name.rpartition("/")
        if folder == CASPER and last.endswith(".squashfs") and last not in mine:
            yield Blob(last, size)


def _lost(kernels: Iterable[Entry]) -> Iterator[str]:
    for entry in kernels:
        if entry.lost:
            yield f"{entry.title}: GRUB ends its kernel line at a ; and drops {entry.lost!r}; write \\;"


def _sourceless(content: Content, sources: Iterable[Source]) -> Iterator[str]:
    for source in sources:
        if source.variant == "server" and source.path and f"{CASPER}/{source.path}" not in content.files:
            yield f"the source {source.id} is not there: {CASPER}/{source.path}"


def _damaged(content: Content, ours: Payload, kernels: Iterable[Entry]) -> Iterator[str]:
    """What our own boot files would refuse, but for the digests of large files, which take minutes."""
    manifest = hashlib.sha256(content.texts[MANIFEST]).hexdigest()
    if INITRAMFS in content.files and content.pin != manifest:
        yield f"{INITRAMFS} accepts {_other(content.pin)}"
    for entry in kernels:
        wanted = entry.value("builder.manifest")
        if "autoinstall" in entry.arguments and wanted != manifest:
            yield f"{entry.title}: its kernel line accepts {_other(wanted)}"
    for file in ours.manifest["files"]:
        path, size = f"{FOLDER}/{file['path']}", file["size"]
        if path not in content.files:
            yield f"{path} is missing"
        elif content.files[path] != size:
            yield f"{path} has {content.files[path]:,} bytes, and the manifest says {size:,}"
        elif path in content.texts and hashlib.sha256(content.texts[path]).hexdigest() != file["sha256"]:
            yield f"{path} is not what the manifest says: its sha256 differs"


def _other(manifest: str | None) -> str:
    return f"another manifest, {manifest[:16]}…" if manifest else "no manifest at all"


def _text(content: Content, name: str) -> str:
    return content.texts.get(name, b"").decode(errors="replace")
