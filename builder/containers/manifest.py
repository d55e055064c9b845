"""What an image is made of, by the documents of a registry or an archive. Pure.

Facts: the OCI image spec (image-index.md, manifest.md, config.md) and Docker's older schema 2, which differs in
the names of its types only. Schema 1 is refused: its digest is not that of its bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
PLATFORM = {"os": "linux", "architecture": "amd64"}


@dataclass(frozen=True)
class Blob:
    """Bytes by their digest; ``size`` in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class LockedImage:
    """An image that is pinned.

    ``name``: as in the spec. ``digest``: in hex, of the document that its tag or the spec's digest means, which
    may be an index of several platforms. The rest is our platform's.
    """

    name: str
    digest: str
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def id(self) -> str:
        """What Docker calls the loaded image: the digest of its config, which holds those of its layers."""
        return f"sha256:{self.config.sha256}"

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """Everything that an archive of it holds, each once."""
        return tuple(dict.fromkeys((self.manifest, self.config, *self.layers)))

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(blob.size for blob in self.blobs)


def of_json(raw: Mapping[str, Any]) -> LockedImage:
    """The image that ``dataclasses.asdict`` made ``raw`` of. Raises KeyError or TypeError."""
    return LockedImage(
        name=raw["name"],
        digest=raw["digest"],
        manifest=Blob(**raw["manifest"]),
        config=Blob(**raw["config"]),
        layers=tuple(Blob(**layer) for layer in raw["layers"]),
    )


def document(data: bytes) -> dict[str, Any]:
    """A JSON document. Raises ValueError if it is none."""
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def is_index(found: Mapping[str, Any]) -> bool:
    """Whether a document lists images rather than being one. The type may be left out; the list may not."""
    return found.get("mediaType") in INDEXES or ("manifests" in found and "config" not in found)


def ours(index: Mapping[str, Any]) -> Blob:
    """The manifest for our platform. Raises ValueError naming the platforms that there are."""
    entries = [entry for entry in index["manifests"] if isinstance(entry, dict)]
    for entry in entries:
        platform = entry.get("platform") or {}
        if all(platform.get(key) == value for key, value in PLATFORM.items()):
            return blob(entry)
    there = sorted({_platform(entry.get("platform") or {}) for entry in entries})
    raise ValueError(f"it is not for linux/amd64, but for {', '.join(there) or 'nothing'}")


def locked(name: str, digest: str, manifest: Blob, found: Mapping[str, Any]) -> LockedImage:
    """The image of a manifest. Raises ValueError for one that cannot be used."""
    if found.get("schemaVersion") != 2 or "config" not in found:
        raise ValueError("its manifest is of a kind that is not known (schema 1?)")
    if found.get("artifactType") or not found.get("layers"):
        raise ValueError("it is no image that can be run")
    return LockedImage(name, digest, manifest, blob(found["config"]), tuple(blob(one) for one in found["layers"]))


def require_platform(config: Mapping[str, Any]) -> None:
    """Raises ValueError if an image's config says that it is for other machines."""
    if any(config.get(key) != value for key, value in PLATFORM.items()):
        raise ValueError(f"it is not for linux/amd64, but for {_platform(config)}")


def blob(descriptor: Mapping[str, Any]) -> Blob:
    """What a descriptor describes. Raises ValueError unless it is by SHA-256."""
    digest, size = descriptor.get("digest"), descriptor.get("size")
    match = re.fullmatch("sha256:([0-9a-f]{64})", digest) if isinstance(digest, str) else None
    if match is None or not isinstance(size, int) or size < 0:
        raise ValueError(f"{digest!r} of {size!r} bytes is no descriptor that we can hold it to")
    return Blob(match[1], size)


def archive_documents(image: LockedImage, media_type: str) -> dict[str, bytes]:
    """What an archive of one image holds beside its blobs, by name.

    It is an OCI archive, and Docker's own format as well: until its store is containerd's, ``docker load`` reads
    ``manifest.json`` only (moby, image/tarexport/load.go), with the layers under any name and compression.
    """
    entry = {
        "mediaType": media_type,
        "digest": f"sha256:{image.manifest.sha256}",
        "size": image.manifest.size,
        "annotations": {
            "io.containerd.image.name": image.name,
            "org.opencontainers.image.ref.name": image.name.rpartition(":")[2],
        },
    }
    index = {"schemaVersion": 2, "mediaType": INDEXES[0], "manifests": [entry]}
    docker = {
        "Config": place(image.config),
        "RepoTags": [image.name],
        "Layers": [place(layer) for layer in image.layers],
    }
    return {
        "oci-layout": _bytes({"imageLayoutVersion": "1.0.0"}),
        "index.json": _bytes(index),
        "manifest.json": _bytes([docker]),
    }


def place(blob: Blob) -> str:
    """Where a blob is in an OCI archive."""
    return f"blobs/sha256/{blob.sha256}"


def _bytes(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _platform(found: Mapping[str, Any]) -> str:
    return f"{found.get('os', '?')}/{found.get('architecture', '?')}"
