"""The lock: what "latest" meant when it was made. It stands beside the spec, as ``<spec>.lock``.

It pins every package (version, size, SHA-256, place in the archive), the commit of every model's repository, the
digest of every model's file, and the ISO that is remastered, if one is. It holds no host name and no token: which
mirror or hub serves the bytes, and to whom, is the business of whoever builds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder import engines
from builder.containers import manifest as containers
from builder.containers.manifest import LockedImage
from builder.distributions import Distribution, distribution
from builder.errors import BuilderError, Exit
from builder.fetch import Item
from builder.files import complete_or_absent
from builder.gpu import sources as gpu_sources
from builder.media import baseiso
from builder.media.baseiso import LockedIso
from builder.sources import apt, hub
from builder.sources.git import LockedSource
from builder.sources.wheels import Wheel
from builder.spec.local import folder_files
from builder.spec.model import Cluster, Image, Model

FORMAT = 1
_LISTS = ("wheels", "tools", "engine", "gpu", "packages")  # written one entry a line


@dataclass(frozen=True)
class LockedModel:
    """A model file's identity; ``size`` in bytes.

    ``name`` is its path below the node's folder of models: ``FILE``, or ``FOLDER/…/FILE`` for a file of a
    repository, whose folder is the model's name in the spec.
    """

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Lock:
    """``asks`` is the part of the spec that the lock answers; ``epoch`` (seconds since 1970) dates the archive.

    ``engine``: the packages of the engine's part, if it has one. ``commits``: model's name → commit, for models
    that are repositories. ``iso``: the base of a remastered medium. ``images``: the container images. ``gpu``: the
    packages of the root in which a driver's modules are compiled. Of an engine in Python: ``tools``, the packages
    that build it, ``wheels``, its files of a package index, ``sources``, and ``torch``, where that one came from.
    """

    asks: Mapping[str, Any]
    epoch: int
    packages: tuple[apt.Package, ...]
    models: tuple[LockedModel, ...]
    engine: tuple[apt.Package, ...] = ()
    commits: Mapping[str, str] = field(default_factory=dict)
    iso: LockedIso | None = None
    images: tuple[LockedImage, ...] = ()
    tools: tuple[apt.Package, ...] = ()
    wheels: tuple[Wheel, ...] = ()
    sources: tuple[LockedSource, ...] = ()
    torch: str | None = None
    gpu: tuple[apt.Package, ...] = ()

    @property
    def files(self) -> dict[str, int]:
        """Every model file's name and size in bytes."""
        return {model.name: model.size for model in self.models}


def target_of(cluster: Cluster) -> Distribution:
    """The release that a cluster's nodes run."""
    wanted = cluster.distribution
    target = distribution(wanted.name, wanted.release, wanted.kernel, cluster.features)
    return gpu_sources.with_gpu(target, cluster)


def asks_of(cluster: Cluster) -> dict[str, Any]:
    """What the spec leaves to a lock. Two specs that ask the same may share a lock's content."""
    target = target_of(cluster)
    return {
        "cluster": cluster.name,
        "distribution": target.name,
        "release": target.codename,
        "architecture": target.architecture,
        "packages": sorted({*target.packages, *cluster.distribution.packages}),
        "models": {model.name: _source(model) for model in cluster.models},
        "engine": _part(cluster),
        "gpu": gpu_sources.asks(cluster),
        "base_iso": _base_iso(cluster),
        # None where there is none, as in the locks of old.
        "images": [_image(image) for image in cluster.images] or None,
    }


def _part(cluster: Cluster) -> dict[str, Any] | None:
    part = engines.of(cluster).part(cluster)
    if part is None:
        return None
    asked = {"distribution": part.distribution, "release": part.release, "packages": sorted(part.names)}
    if part.python:
        asked |= {"python": part.python, "asks": list(part.asks), "tools": sorted(part.tools)}
    return asked


def _base_iso(cluster: Cluster) -> dict[str, Any] | None:
    base = cluster.base_iso
    return base.model_dump(mode="json", exclude_none=True) if base else None


def base_iso_of(cluster: Cluster) -> baseiso.BaseIso | None:
    """The ISO that the spec remasters, if it does."""
    base = cluster.base_iso
    return baseiso.BaseIso(base.release, base.url, base.path, base.sha256) if base else None


def _image(image: Image) -> dict[str, Any]:
    return image.model_dump(mode="json", exclude_none=True)


def _source(model: Model) -> str | dict[str, Any] | None:
    if model.repo is None:
        return model.path or model.url
    return {"repo": model.repo, "revision": repo_of(model).revision, "files": list(model.files or ())}


def repo_of(model: Model) -> hub.Repo:
    """The repository that a model of the spec is."""
    assert model.repo is not None
    return hub.Repo(model.repo, model.revision or "main", model.token_env)


def path_for(spec: Path) -> Path:
    """Where the lock of a spec stands."""
    return spec.with_suffix(".lock")


def load(path: Path) -> Lock:
    """Read a lock. Raises BuilderError (SPEC) if it is damaged or of another format."""
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise BuilderError(
                f"{path}: lock format {data['format']}, this builder reads {FORMAT}",
                hint="make it anew: builder lock --update",
                code=Exit.SPEC,
            )
        return Lock(
            asks=data["asks"],
            epoch=int(data["epoch"]),
            packages=tuple(apt.Package(**entry) for entry in data["packages"]),
            models=tuple(LockedModel(**entry) for entry in data["models"]),
            engine=tuple(apt.Package(**entry) for entry in data["engine"]),
            commits=dict(data.get("commits", {})),
            iso=LockedIso(**data["iso"]) if data["iso"] else None,
            images=tuple(containers.of_json(entry) for entry in data.get("images", [])),
            tools=tuple(apt.Package(**entry) for entry in data.get("tools", ())),
            wheels=tuple(Wheel(**entry) for entry in data.get("wheels", ())),
            sources=tuple(LockedSource(**entry) for entry in data.get("sources", ())),
            torch=data.get("torch"),
            gpu=tuple(apt.Package(**entry) for entry in data.get("gpu", ())),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BuilderError(
            f"{path}: not a lock that can be read ({error})",
            hint="make it anew: builder lock --update",
            code=Exit.SPEC,
        ) from error


def save(lock: Lock, path: Path) -> None:
    """Write a lock, complete or not at all, one package a line so that a diff shows what moved."""
    data = to_json(lock)
    lists = {name: data.pop(name) for name in _LISTS}
    text = json.dumps(data, indent=1).removesuffix("\n}")
    for name in _LISTS:
        entries = ",\n  ".join(json.dumps(entry) for entry in lists[name])
        text += f',\n "{name}": [\n  {entries}\n ]'
    text += "\n}\n"
    with complete_or_absent(path, step="writing the lock") as part:
        part.write_text(text)


def to_json(lock: Lock) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "asks": dict(lock.asks),
        "epoch": lock.epoch,
        "models": [dataclasses.asdict(model) for model in lock.models],
        "commits": dict(lock.commits),
        "iso": dataclasses.asdict(lock.iso) if lock.iso else None,
        "images": [dataclasses.asdict(image) for image in lock.images],
        "sources": [dataclasses.asdict(source) for source in lock.sources],
        "torch": lock.torch,
        "wheels": [dataclasses.asdict(wheel) for wheel in lock.wheels],
        "tools": [dataclasses.asdict(package) for package in lock.tools],
        "engine": [dataclasses.asdict(package) for package in lock.engine],
        "gpu": [dataclasses.asdict(package) for package in lock.gpu],
        "packages": [dataclasses.asdict(package) for package in lock.packages],
    }


def belongs(lock: Lock, cluster: Cluster) -> bool:
    """Whether a lock answers this spec."""
    return all(lock.asks.get(key) == value for key, value in asks_of(cluster).items())


def require_belongs(lock: Lock, cluster: Cluster, path: Path) -> None:
    """Refuse a lock that answers another spec. Raises BuilderError (SPEC) with every difference."""
    asks = asks_of(cluster)
    differences = [
        f"  {key}: {_difference(lock.asks.get(key), asks[key])}" for key in asks if lock.asks.get(key) != asks[key]
    ]
    if differences:
        raise BuilderError(
            f"{path} belongs to another spec\n" + "\n".join(differences),
            hint="if the spec was meant to change, take new versions: builder lock --update",
            code=Exit.SPEC,
        )


def url_item(model: Model, sha256: str | None, size: int | None = None) -> Item:
    """A model that is given by URL, for the fetch door."""
    assert model.url is not None
    hint = "what was received is kept, and the next run resumes; see `models` in the spec"
    return Item(model.name, (model.url,), sha256, size, hint=hint)


def require_model_unchanged(model: LockedModel, spec_sha256: str | None) -> None:
    """Hold the lock's digest of a model to the spec's. Raises BuilderError (SPEC) with both."""
    if spec_sha256 is not None and spec_sha256 != model.sha256:
        raise BuilderError(
            f"models: {model.name} is not the file that the spec means\n"
            f"  the spec says sha256 {spec_sha256}\n  the file has    {model.sha256}",
            hint="mend the digest in the spec, or the file",
            code=Exit.SPEC,
        )


def _difference(locked: Any, asked: Any) -> str:
    if isinstance(locked, list) and isinstance(asked, list):
        added = [f"+{name}" for name in asked if name not in locked]
        gone = [f"-{name}" for name in locked if name not in asked]
        return " ".join(added + gone)
    return f"{locked!r} in the lock, {asked!r} in the spec"


def local_files(model: Model, base: Path) -> dict[str, Path]:
    """A model's files on this machine, by name: one, or those of a folder."""
    assert model.path is not None
    path = base / model.path
    if not path.is_dir():
        return {model.name: path}
    return {f"{model.name}/{name}": path / name for name in folder_files(path)}
