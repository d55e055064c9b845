"""The lock: what "latest" meant when it was made. It stands beside the spec, as ``<spec>.lock``.

It pins every package (version, size, SHA-256, place in the archive) and every model's digest, and holds no
host name: which mirror serves the bytes is the business of whoever builds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder import apt, mirror
from builder.cache import Cache
from builder.canonical import digest
from builder.console import bar
from builder.distributions import Distribution, distribution
from builder.errors import BuilderError, Exit
from builder.fetch import Item, fetch
from builder.files import complete_or_absent, sha256_of
from builder.spec.model import Cluster, Model

FORMAT = 1


@dataclass(frozen=True)
class LockedModel:
    """A model file's identity; ``size`` in bytes."""

    name: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Lock:
    """``asks`` is the part of the spec that the lock answers; ``epoch`` (seconds since 1970) dates the archive."""

    asks: Mapping[str, Any]
    epoch: int
    packages: tuple[apt.Package, ...]
    models: tuple[LockedModel, ...]

    @property
    def digest(self) -> str:
        return digest(to_json(self))


def target_of(cluster: Cluster) -> Distribution:
    """The release that a cluster's nodes run."""
    wanted = cluster.distribution
    return distribution(wanted.name, wanted.release, wanted.kernel)


def asks_of(cluster: Cluster) -> dict[str, Any]:
    """What the spec leaves to a lock. Two specs that ask the same may share a lock's content."""
    target = target_of(cluster)
    return {
        "cluster": cluster.name,
        "distribution": target.name,
        "release": target.codename,
        "architecture": target.architecture,
        "packages": sorted({*target.packages, *cluster.distribution.packages}),
        "models": {model.name: model.path or model.url for model in cluster.models},
    }


def path_for(spec: Path) -> Path:
    """Where the lock of a spec stands."""
    return spec.with_suffix(".lock")


def make(cluster: Cluster, spec: Path, cache: Cache) -> Lock:
    """Resolve everything now. Needs the network (the archive's index, and models given by URL)."""
    target = target_of(cluster)
    resolution = apt.resolve(target, mirror_of(cluster), asks_of(cluster)["packages"])
    models = tuple(_identify(model, spec.parent, cache) for model in cluster.models)
    return Lock(asks_of(cluster), resolution.epoch, resolution.packages, models)


def mirror_of(cluster: Cluster) -> mirror.Mirror:
    """The mirror to build this cluster from."""
    wanted = cluster.distribution
    spec = mirror.given(wanted.mirror, wanted.security_mirror, "the spec")
    return mirror.choose(spec, target_of(cluster))


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
    packages = ",\n  ".join(json.dumps(entry) for entry in data.pop("packages"))
    text = json.dumps(data, indent=1).removesuffix("\n}") + f',\n "packages": [\n  {packages}\n ]\n}}\n'
    with complete_or_absent(path, step="writing the lock") as part:
        part.write_text(text)


def to_json(lock: Lock) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "asks": dict(lock.asks),
        "epoch": lock.epoch,
        "models": [dataclasses.asdict(model) for model in lock.models],
        "packages": [dataclasses.asdict(package) for package in lock.packages],
    }


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


def _identify(model: Model, base: Path, cache: Cache) -> LockedModel:
    """Size and digest of a model; one that is given by URL is fetched, so that the build has it."""
    if model.path is not None:
        path = base / model.path
        with bar(f"hashing {model.name}", path.stat().st_size) as advance:
            found = LockedModel(model.name, sha256_of(path, advance), path.stat().st_size)
    else:
        assert model.url is not None
        item = Item(model.name, (model.url,), model.sha256)
        (path,) = fetch([item], cache, title=f"fetching {model.name}").values()
        found = LockedModel(model.name, path.name, path.stat().st_size)
    require_model_unchanged(found, model.sha256)
    return found
