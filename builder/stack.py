"""The stack of layers that a node is made of, each named by all that decides its content. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from builder import engines, render
from builder.canonical import code_digest, digest
from builder.gpu import content as gpu
from builder.lock import Lock
from builder.spec.model import Cluster


@dataclass(frozen=True)
class Layer:
    """A squashfs of the node's stack. ``inputs`` is all that decides its content; ``digest`` names it."""

    name: str
    file: str
    inputs: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        return digest({"layer": self.name, **self.inputs})


def layers(cluster: Cluster, lock: Lock | None, site: tuple[render.File, ...]) -> tuple[Layer, ...]:
    """The stack, lowest first. The names grow by a word a layer, which is how Ubuntu's installer stacks them."""
    base = _base(cluster, lock)
    parts = {
        "base": base,
        "gpu": _gpu(cluster, lock, base),
        "engine": _engine(cluster, lock),
        "images": _images(cluster, lock),
        "site": _site(site, lock),
    }
    stem, found = "node", []
    for name, inputs in parts.items():
        if inputs is not None:
            stem += "" if name == "base" else f".{name}"
            found.append(Layer(name, f"{stem}.squashfs", inputs))
    return tuple(found)


def _gpu(cluster: Cluster, lock: Lock | None, base: dict[str, Any]) -> dict[str, Any] | None:
    """The driver's modules and what goes with them; they fit the kernels and libraries of one base only."""
    inputs = gpu.inputs(cluster)
    if inputs is None:
        return None
    packages = [package.sha256 for package in lock.gpu] if lock else None
    return {**inputs, "base": digest(base), "packages": packages, "epoch": lock.epoch if lock else 0}


def _engine(cluster: Cluster, lock: Lock | None) -> dict[str, Any] | None:
    """The engine's programs, where it has any that are not the node's own packages."""
    kind = engines.of(cluster)
    part = kind.part(cluster)
    if part is None:
        return None
    code = ("layers/engine.py", "layers/squashfs.py")
    return {
        "code": code_digest(
            *code, *(("layers/python.py", "layers/fromsource.py", "venv.py") if part.python else ())
        ),
        "part": dataclasses.asdict(part),
        "smoke": kind.smoke,
        "packages": [package.sha256 for package in lock.engine] if lock else None,
        "wheels": [wheel.sha256 for wheel in lock.wheels] if lock else None,
        "tools": [package.sha256 for package in lock.tools] if lock else None,
        "sources": [source.sha256 for source in lock.sources] if lock else None,
        "epoch": lock.epoch if lock else 0,
    }


def _images(cluster: Cluster, lock: Lock | None) -> dict[str, Any] | None:
    """The container images, where there are any."""
    if not cluster.images:
        return None
    return {
        "code": code_digest("layers/images.py", "layers/squashfs.py", "containers"),
        "images": [[image.name, image.manifest.sha256] for image in lock.images] if lock else None,
        "epoch": lock.epoch if lock else 0,
    }


def _base(cluster: Cluster, lock: Lock | None) -> dict[str, Any]:
    """Everything of the operating system: a change here costs a minute, so nothing of a node goes in."""
    return {
        "code": code_digest(
            "layers/base.py", "layers/squashfs.py", "sources/apt.py", "distributions", "gpu/packages.py"
        ),
        "overlay": [file.fingerprint for file in base_files(cluster)],
        "held": cluster.gpu is not None,
        "packages": [package.sha256 for package in lock.packages] if lock else None,
        "epoch": lock.epoch if lock else 0,
    }


def base_files(cluster: Cluster) -> tuple[render.File, ...]:
    """What the base layer has of ours."""
    return (*render.overlay("base", {}), *gpu.base_files(cluster))


def _site(files: tuple[render.File, ...], lock: Lock | None) -> dict[str, Any]:
    """What the spec renders: a change here costs seconds."""
    return {
        "code": code_digest("layers/site.py", "layers/squashfs.py"),
        "files": [file.fingerprint for file in files],
        "epoch": lock.epoch if lock else 0,
    }
