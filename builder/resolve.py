"""What "latest" means now: packages by apt, Python packages by uv, models and images by their servers.

It ends in a :class:`~builder.lock.Lock`. Needs the network.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from builder import engines
from builder.cache import Cache
from builder.console import bar
from builder.containers import staging
from builder.distributions import Distribution, source_of_packages
from builder.engines.kind import Part
from builder.fetch import fetch, fetch_each
from builder.files import sha256_of
from builder.gpu import sources as gpu_sources
from builder.lock import (
    Lock,
    LockedModel,
    asks_of,
    base_iso_of,
    local_files,
    repo_of,
    require_model_unchanged,
    target_of,
    url_item,
)
from builder.media import baseiso, livemedium
from builder.media.baseiso import LockedIso
from builder.sources import apt, git, hub, mirror, wheels
from builder.spec.model import Cluster, Model


def make(cluster: Cluster, spec: Path, cache: Cache) -> Lock:
    """Resolve everything now. Needs the network (the archive's index, and models given by URL)."""
    target = target_of(cluster)
    iso = _base_iso(cluster, spec.parent, cache)  # the cheapest to be wrong in
    resolution = apt.resolve(target, mirror_of(cluster), asks_of(cluster)["packages"])
    models, commits = models_of(cluster, spec.parent, cache)
    images = tuple(staging.pin(image, spec.parent, cache) for image in cluster.images)
    modules = gpu_sources.resolve_modules(cluster, target, mirror_of(cluster), resolution.packages)
    found = Lock(
        asks=asks_of(cluster),
        epoch=resolution.epoch,
        packages=resolution.packages,
        models=models,
        commits=commits,
        iso=iso,
        images=images,
        gpu=modules,
    )
    return _with_engine(found, cluster, spec.parent, cache)


def _base_iso(cluster: Cluster, folder: Path, cache: Cache) -> LockedIso | None:
    """The ISO to remaster; one that is here already is judged before it is pinned."""
    base = base_iso_of(cluster)
    if base is None:
        return None
    found = baseiso.resolve(base, folder, cache)
    if base.release is None:
        path = folder / base.path if base.path else cache.blob(found.sha256)
        livemedium.require(path, target_of(cluster).number)
    return found


def _with_engine(found: Lock, cluster: Cluster, folder: Path, cache: Cache) -> Lock:
    """Add what the engine's layer is made of. ``folder``: what a source's relative path is relative to."""
    kind = engines.of(cluster)
    part = kind.part(cluster)
    if part is None:
        return found
    where, archive = _source_of(part), mirror_of_engine(cluster)
    found = dataclasses.replace(found, engine=apt.resolve_part(where, archive, part.names))
    if part.tools:
        found = dataclasses.replace(found, tools=apt.resolve_part(where, archive, part.tools))
    pins = [git.pin(wanted, folder, cache) for wanted in (part.recipe.sources if part.recipe else ())]
    readers = {pin.name: git.reader(cache.blob(pin.sha256)) for pin in pins}
    if kind.wheels is None:
        return found
    wanted = kind.wheels(cluster, lambda name, path: readers[name](path))
    return dataclasses.replace(found, sources=tuple(pins), wheels=wheels.resolve(wanted), torch=wanted.torch)


def mirror_of(cluster: Cluster) -> mirror.Mirror:
    """The mirror to build this cluster from."""
    wanted = cluster.distribution
    spec = mirror.given(wanted.mirror, wanted.security_mirror, "the spec")
    chosen = dataclasses.replace(mirror.choose(spec, target_of(cluster)), snapshot=wanted.snapshot)
    return gpu_sources.with_archive(chosen, cluster)


def mirror_of_engine(cluster: Cluster) -> mirror.Mirror:
    """The mirror for the engine's part: the cluster's own, unless its packages are another distribution's."""
    part = engines.of(cluster).part(cluster)
    assert part is not None
    if part.distribution == cluster.distribution.name:
        return mirror_of(cluster)
    return mirror.of_another(_source_of(part))


def _source_of(part: Part) -> Distribution:
    return source_of_packages(part.distribution, part.release, part.components)


def models_of(cluster: Cluster, base: Path, cache: Cache) -> tuple[tuple[LockedModel, ...], dict[str, str]]:
    """Every model's files, in the order of the spec, and the commits of those that are repositories.

    Raises BuilderError: a hub or server that refuses or is out of reach (FETCH); a glob that finds nothing, or a
    file that is not what the spec's digest says (SPEC).
    """
    files: list[LockedModel] = []
    commits: dict[str, str] = {}
    for model in cluster.models:
        if model.repo is None:
            files += _identify(model, base, cache)
        else:
            commits[model.name], found = _identify_repo(model, cache)
            files += found
    return tuple(files), commits


def _identify_repo(model: Model, cache: Cache) -> tuple[str, list[LockedModel]]:
    """The commit, and every wanted file of it.

    The hub knows the SHA-256 of large files only; the small ones, of which it knows git's own digest, are
    fetched and hashed here.
    """
    repo = repo_of(model)
    snapshot = hub.snapshot(repo)
    wanted = hub.chosen(repo, snapshot.files, model.files or ())
    small = [file for file in wanted if file.sha256 is None]
    items = [hub.item(repo, snapshot.commit, file.path, None, file.size) for file in small]
    digests = {file.path: file.sha256 for file in wanted}
    for file, path in zip(small, fetch_each(items, cache, title=f"fetching {repo.name}"), strict=True):
        hub.require_oid(file, path)
        digests[file.path] = path.name
    found = [LockedModel(f"{model.name}/{file.path}", digests[file.path] or "", file.size) for file in wanted]
    return snapshot.commit, found


def _identify(model: Model, base: Path, cache: Cache) -> list[LockedModel]:
    """Size and digest of a model's files; one that is given by URL is fetched, so that the build has it."""
    if model.path is not None:
        files = [_hashed(name, path) for name, path in local_files(model, base).items()]
        if not (base / model.path).is_dir():
            require_model_unchanged(files[0], model.sha256)
        return files
    assert model.url is not None
    item = url_item(model, model.sha256)
    (path,) = fetch([item], cache, title=f"fetching {model.name}").values()
    found = LockedModel(model.name, path.name, path.stat().st_size)
    require_model_unchanged(found, model.sha256)
    return [found]


def _hashed(name: str, path: Path) -> LockedModel:
    with bar(f"hashing {name}", path.stat().st_size) as advance:
        return LockedModel(name, sha256_of(path, advance), path.stat().st_size)
