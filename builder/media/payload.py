"""The payload: everything that a medium brings besides its boot files, and the manifest that binds it.

The manifest lists every file with its size and SHA-256. Its own digest is put into the initramfs, so the
boot files accept this payload and no other; no signing key is needed, and same input gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import nodefacts
from builder.canonical import canonical, digest
from builder.files import sha256_of
from builder.plan import Layer, Plan, document_path

FORMAT = 1
FOLDER = "/builder"  # of the payload on a medium
_FILES = ("overlay", "files")  # what a layer's inputs call its rendered files, as their fingerprints


@dataclass(frozen=True)
class Payload:
    """``files``: path below the payload's folder → the file on this machine, or its bytes."""

    manifest: dict[str, Any]
    files: Mapping[str, Path | bytes]

    @property
    def manifest_bytes(self) -> bytes:
        return canonical(self.manifest)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.manifest_bytes).hexdigest()


def make(plan: Plan, layers: Mapping[str, Path], models: Mapping[str, Path]) -> Payload:
    """Gather the payload. ``layers``: file name → squashfs; ``models``: sha256 → file."""
    files: dict[str, Path | bytes] = {f"layers/{name}": path for name, path in layers.items()}
    files |= {f"models/{model.sha256}": models[model.sha256] for model in plan.models}
    files |= plan.texts
    known = {f"models/{model.sha256}": model.sha256 for model in plan.models}
    return Payload(manifest(plan, [_entry(path, file, known) for path, file in sorted(files.items())]), files)


def manifest(plan: Plan, files: list[dict[str, Any]]) -> dict[str, Any]:
    """The manifest of a plan whose payload files are known; the installer and the node both read it."""
    assert plan.lock is not None
    return {
        "format": FORMAT,
        "cluster": plan.cluster.name,
        "plan": plan.id,
        "volume": plan.cluster.volume,
        "files": files,
        "layers": [f"layers/{layer.file}" for layer in plan.layers],
        "models": [{"name": model.name, "path": f"models/{model.sha256}"} for model in plan.models],
        "nodes": [
            {
                "name": node.name,
                "match": node.match.model_dump(mode="json", exclude_none=True),
                "disk": nodefacts.disk(plan.cluster, node),
                "seed": f"seeds/{node.name}",
                **({"autoinstall": document_path(node.name)} if plan.documents else {}),
            }
            for node in plan.cluster.nodes
        ],
        "storage": nodefacts.storage(plan.cluster, plan.models),
        "after": plan.cluster.media.after,
        # Only for who asks why a medium is not what would be built now (against.py).
        "media": plan.cluster.media.model_dump(mode="json", exclude={"after", "base_iso", "volume"}),
        "made_of": {**{layer.name: _parts(layer) for layer in plan.layers}, "medium": plan.ours},
        **({"base_iso": dataclasses.asdict(plan.lock.iso)} if plan.lock.iso else {}),
        "packages": [
            {"name": p.name, "version": p.version, "architecture": p.architecture} for p in plan.lock.packages
        ],
    }


def _parts(layer: Layer) -> dict[str, str]:
    """What a layer is made of, by name, its rendered files one by one, each as the beginning of a digest."""
    parts = {name: value for name, value in layer.inputs.items() if name not in _FILES}
    files = {file[0]: file for name in _FILES for file in layer.inputs.get(name, ())}
    return {name: digest(value)[:16] for name, value in {**parts, **files}.items()}


def _entry(path: str, file: Path | bytes, known: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(file, bytes):
        return {"path": path, "size": len(file), "sha256": hashlib.sha256(file).hexdigest()}
    return {"path": path, "size": file.stat().st_size, "sha256": known.get(path) or sha256_of(file)}
