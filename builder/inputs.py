"""What a build takes in: all that the lock pins and that is not there yet, by digest, before a layer is made.

``folder`` is the spec's, where relative paths start. Raises BuilderError (FETCH) if something is not what the lock
says, or cannot be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder import console, engines, lock, resolve
from builder.cache import Cache
from builder.containers import staging
from builder.errors import BuilderError, Exit
from builder.fetch import Item, fetch
from builder.files import mismatch, sha256_of
from builder.lock import LockedModel
from builder.media import baseiso, livemedium
from builder.plan import Layer, Plan
from builder.sources import git, hub, wheels
from builder.sources.apt import Package
from builder.sources.mirror import Mirror


def base_iso(todo: Plan, folder: Path, cache: Cache) -> Path | None:
    """The ISO that the medium is made of, judged; None where there is none.

    Raises BuilderError (MEDIUM) besides, if it cannot be remastered into nodes of the spec's release.
    """
    base = lock.base_iso_of(todo.cluster)
    if base is None:
        return None
    assert todo.lock is not None and todo.lock.iso is not None
    path = baseiso.obtain(base, todo.lock.iso, folder, cache)
    livemedium.require(path, todo.target.number)
    return path


def packages(todo: Plan, cache: Cache) -> dict[str, Path]:
    """The packages of every layer that is still to be made, by sha256."""
    assert todo.lock is not None
    engine = (*todo.lock.engine, *todo.lock.tools)
    sources = {
        "base": (todo.lock.packages, resolve.mirror_of),
        "gpu": (todo.lock.gpu, resolve.mirror_of),
        "engine": (engine, resolve.mirror_of_engine),
    }
    items: list[Item] = []
    origins: list[str] = []
    for layer in todo.layers:
        pinned, mirror_of = sources.get(layer.name, ((), None))
        if mirror_of is None or layer_of(cache, layer).exists():
            continue
        mirror = mirror_of(todo.cluster)
        origins += [mirror.origin] if mirror.origin not in origins else []
        items += [_package_item(package, mirror) for package in pinned]
    if not items:
        return {}
    missing = sum(item.size or 0 for item in items if not cache.blob(item.key).exists())
    with console.step(f"packages: {console.human(missing)} to fetch, from {' and '.join(origins)}"):
        return fetch(items, cache, title="packages")


def python(todo: Plan, folder: Path, cache: Cache) -> dict[str, Path]:
    """The engine's Python packages and sources by sha256, if its layer is still to be made.

    ``folder`` is the spec's. Raises BuilderError (FETCH) if something is not what the lock says.
    """
    pins = todo.lock
    part = engines.of(todo.cluster).part(todo.cluster)
    waiting = [layer for layer in todo.layers if layer.name == "engine" and not layer_of(cache, layer).exists()]
    if pins is None or part is None or part.python is None or not waiting:
        return {}
    known = {source.name: source for source in (part.recipe.sources if part.recipe else ())}
    found = {pin.sha256: git.obtain(known[pin.name], pin, folder, cache) for pin in pins.sources}
    missing = sum(wheel.size for wheel in pins.wheels if not cache.blob(wheel.sha256).exists())
    with console.step(f"Python packages: {console.human(missing)} to fetch"):
        return found | wheels.fetch(pins.wheels, cache, python=part.python, torch=pins.torch)


def layer_of(cache: Cache, layer: Layer) -> Path:
    """Where a layer's squashfs is, or would be."""
    return cache.product(layer.name, layer.digest) / layer.file


def _package_item(package: Package, mirror: Mirror) -> Item:
    urls = mirror.urls(package.archive, package.path)
    return Item(name=package.file_name, urls=urls, sha256=package.sha256, size=package.size)


def models(todo: Plan, folder: Path, cache: Cache) -> Mapping[str, Path]:
    """Every model's files, by sha256, held to the lock's digests; a local file is used where it lies.

    What is not in the cache yet is downloaded all at once. Raises BuilderError (FETCH) if a file is not what
    the lock says.
    """
    assert todo.lock is not None
    wanted = {model.name: model for model in todo.models}
    staged: dict[str, Path] = {}
    items: list[Item] = []
    for model in todo.cluster.models:
        if model.repo is not None:
            repo, commit = lock.repo_of(model), todo.lock.commits[model.name]
            for file in todo.models:
                folder_name, _, path = file.name.partition("/")
                if not path or folder_name != model.name:
                    continue
                if cache.blob(file.sha256).exists():  # then neither the hub nor a token is needed
                    staged[file.sha256] = cache.blob(file.sha256)
                else:
                    items.append(hub.item(repo, commit, path, file.sha256, file.size))
            continue
        if model.url is not None:
            locked_model = wanted[model.name]
            lock.require_model_unchanged(locked_model, model.sha256)
            items.append(lock.url_item(model, locked_model.sha256, locked_model.size))
            continue
        for name, file_path in lock.local_files(model, folder).items():
            if name not in wanted:
                hint = "if it was meant to come: builder lock --update"
                raise BuilderError(f"{file_path} is not in the lock", hint=hint, code=Exit.FETCH)
            lock.require_model_unchanged(wanted[name], model.sha256)
            staged[wanted[name].sha256] = _unchanged(file_path, wanted[name])
    missing = {item.sha256: item.size or 0 for item in items if not cache.blob(item.key).exists()}
    if missing:
        with console.step(f"models: {len(missing)} files, {console.human(sum(missing.values()))} to fetch"):
            fetch(items, cache, title="models")
    return staged | {item.key: cache.blob(item.key) for item in items}


def images(todo: Plan, folder: Path, cache: Cache) -> None:
    """Every container image's blobs come into the cache, held to the lock's digests, if their layer is to be made.

    Raises BuilderError (FETCH) if one is not what the lock says.
    """
    if all(layer_of(cache, layer).exists() for layer in todo.layers if layer.name == "images"):
        return
    items = staging.obtain(todo.cluster.images, todo.images, folder, cache)
    missing = {item.key: item.size or 0 for item in items if not cache.blob(item.key).exists()}
    if missing:
        with console.step(f"images: {len(missing)} blobs, {console.human(sum(missing.values()))} to fetch"):
            fetch(items, cache, title="images")


def _unchanged(path: Path, model: LockedModel) -> Path:
    hint = "if it was meant to change: builder lock --update"
    if path.stat().st_size != model.size:
        raise BuilderError(
            f"{path}: {path.stat().st_size} bytes, the lock says {model.size}", hint=hint, code=Exit.FETCH
        )
    with console.bar(f"hashing {model.name}", model.size) as advance:
        actual = sha256_of(path, advance)
    if actual != model.sha256:
        raise mismatch(str(path), model.sha256, actual, hint=hint)
    return path
