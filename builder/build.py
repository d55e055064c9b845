"""The spine: from a spec to an artifact, one line a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import console, engines, hub, lock, plan, source, wheels
from builder.apt import Package
from builder.cache import Cache
from builder.containers import staging
from builder.errors import BuilderError, Exit
from builder.fetch import Item, fetch
from builder.files import complete_or_absent, mismatch, sha256_of
from builder.layers import base, engine, gpu, images, site
from builder.lock import Lock, LockedModel
from builder.media import baseiso, bootkit, iso, livemedium, payload
from builder.media.payload import Payload
from builder.mirror import Mirror
from builder.netboot import tree
from builder.netboot.tree import Tree
from builder.plan import Layer, Plan
from builder.spec.load import load
from builder.spec.model import Cluster
from builder.spec.warnings import warnings


@dataclass(frozen=True)
class Artifact:
    """What a build made. ``size`` in bytes."""

    path: Path
    sha256: str
    size: int
    plan_id: str


def build_iso(spec_path: Path, out: Path, cache: Cache) -> Artifact:
    """Build the install medium of a cluster: ``<out>/<cluster>/<cluster>.iso``.

    Raises BuilderError with the exit code of what failed; then nothing is there under the final name, and what
    was finished before is reused by the next build.
    """
    with cache.locked():
        todo, stack, content = gather(spec_path, cache)
        target = out / todo.cluster.name / f"{todo.cluster.name}.iso"
        write_medium(todo, spec_path.parent, stack, content, target, cache)
    return finished(target, todo)


def build_pxe(spec_path: Path, out: Path, cache: Cache) -> Tree:
    """Build the network-boot tree of a cluster: ``<out>/<cluster>/pxe``.

    Raises BuilderError as :func:`build_iso`.
    """
    cluster = load(spec_path)
    if cluster.base_iso:
        raise BuilderError(
            f"{cluster.name}: Ubuntu's installer (media.installer: subiquity) is not booted over the network",
            hint="the direct installer is, and lays down the same node: take media.installer away",
            code=Exit.SPEC,
        )
    with cache.locked():
        todo, stack, content = gather(spec_path, cache)
        kit = bootkit.make(todo, stack[0], cache)
        with console.step(f"network-boot tree: {len(content.files)} payload files, {len(cluster.nodes)} nodes"):
            return tree.write(todo, kit, content, out / cluster.name / "pxe")


def gather(spec_path: Path, cache: Cache) -> tuple[Plan, list[Path], Payload]:
    """All that goes on any medium: the plan, the layers, the payload."""
    cluster = load(spec_path)
    for warning in warnings(cluster):
        console.warn(warning)
    todo = plan.make(cluster, locked(cluster, spec_path, cache))
    packages = fetch_packages(todo, cache) | fetch_python(todo, spec_path.parent, cache)
    models = stage_models(todo, spec_path.parent, cache)
    stage_images(todo, spec_path.parent, cache)
    stack = make_layers(todo, spec_path.parent, packages, cache)
    return todo, stack, payload.make(todo, {layer.name: layer for layer in stack}, models)


def make_layers(todo: Plan, folder: Path, packages: Mapping[str, Path], cache: Cache) -> list[Path]:
    """The squashfs of every layer, lowest first, each checked before it is used; ``folder`` is the spec's."""
    stack: list[Path] = []
    for layer in todo.layers:
        match layer.name:
            case "base":
                stack.append(base.make(todo, packages, cache))
            case "gpu":
                stack.append(gpu.make(todo, layer, stack[0], folder, packages, cache))
            case "engine":
                stack.append(engine.make(todo, layer, packages, cache))
            case "images":
                stack.append(images.make(todo, layer, cache))
            case "site":
                stack.append(site.make(todo, stack[0], cache))
    return stack


def write_medium(
    todo: Plan, folder: Path, stack: Sequence[Path], content: Payload, target: Path, cache: Cache
) -> None:
    """The medium of the installer that the spec chose; ``folder`` is the spec's."""
    title = f"ISO: {len(content.files)} payload files, {len(todo.cluster.nodes)} nodes"
    base = lock.base_iso_of(todo.cluster)
    if base is None:
        kit = bootkit.make(todo, stack[0], cache)
        with console.step(title):
            iso.write(todo, kit, content, target)
    else:
        assert todo.lock is not None and todo.lock.iso is not None
        source = baseiso.obtain(base, todo.lock.iso, folder, cache)
        with console.step(f"{title}, on {todo.lock.iso.name}"):
            livemedium.write(todo, source, stack, content, target)


def locked(cluster: Cluster, spec_path: Path, cache: Cache, *, update: bool = False) -> Lock:
    """The spec's lock: the one that is there, else a new one, which is kept.

    Raises BuilderError (SPEC) if the one that is there belongs to another spec.
    """
    path = lock.path_for(spec_path)
    if path.exists() and not update:
        pins = lock.load(path)
        lock.require_belongs(pins, cluster, path)
        return pins
    with console.step("lock: resolving packages and models"):
        pins = lock.make(cluster, spec_path, cache)
        lock.save(pins, path)
        console.say(f"  {len(pins.packages)} packages pinned in {path}")
    return pins


def fetch_packages(todo: Plan, cache: Cache) -> dict[str, Path]:
    """The packages of every layer that is still to be made, by sha256."""
    assert todo.lock is not None
    engine = (*todo.lock.engine, *todo.lock.tools)
    sources = {
        "base": (todo.lock.packages, lock.mirror_of),
        "gpu": (todo.lock.gpu, lock.mirror_of),
        "engine": (engine, lock.mirror_of_engine),
    }
    items: list[Item] = []
    origins: list[str] = []
    for layer in todo.layers:
        packages, mirror_of = sources.get(layer.name, ((), None))
        if mirror_of is None or layer_of(cache, layer).exists():
            continue
        mirror = mirror_of(todo.cluster)
        origins += [mirror.origin] if mirror.origin not in origins else []
        items += [_package_item(package, mirror) for package in packages]
    if not items:
        return {}
    missing = sum(item.size or 0 for item in items if not cache.blob(item.key).exists())
    with console.step(f"packages: {console.human(missing)} to fetch, from {' and '.join(origins)}"):
        return fetch(items, cache, title="packages")


def fetch_python(todo: Plan, folder: Path, cache: Cache) -> dict[str, Path]:
    """The engine's Python packages and sources by sha256, if its layer is still to be made.

    ``folder`` is the spec's. Raises BuilderError (FETCH) if something is not what the lock says.
    """
    pins = todo.lock
    part = engines.of(todo.cluster).part(todo.cluster)
    waiting = [layer for layer in todo.layers if layer.name == "engine" and not layer_of(cache, layer).exists()]
    if pins is None or part is None or part.python is None or not waiting:
        return {}
    known = {source.name: source for source in (part.recipe.sources if part.recipe else ())}
    found = {pin.sha256: source.obtain(known[pin.name], pin, folder, cache) for pin in pins.sources}
    missing = sum(wheel.size for wheel in pins.wheels if not cache.blob(wheel.sha256).exists())
    with console.step(f"Python packages: {console.human(missing)} to fetch"):
        return found | wheels.fetch(pins.wheels, cache, python=part.python, torch=pins.torch)


def layer_of(cache: Cache, layer: Layer) -> Path:
    """Where a layer's squashfs is, or would be."""
    return cache.product(layer.name, layer.digest) / layer.file


def _package_item(package: Package, mirror: Mirror) -> Item:
    urls = mirror.urls(package.archive, package.path)
    return Item(name=package.file_name, urls=urls, sha256=package.sha256, size=package.size)


def stage_models(todo: Plan, folder: Path, cache: Cache) -> Mapping[str, Path]:
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
        locked_model = wanted[model.name]
        lock.require_model_unchanged(locked_model, model.sha256)
        if model.url is not None:
            items.append(lock.url_item(model, locked_model.sha256, locked_model.size))
        else:
            assert model.path is not None
            staged[locked_model.sha256] = _unchanged(folder / model.path, locked_model)
    missing = {item.sha256: item.size or 0 for item in items if not cache.blob(item.key).exists()}
    if missing:
        with console.step(f"models: {len(missing)} files, {console.human(sum(missing.values()))} to fetch"):
            fetch(items, cache, title="models")
    return staged | {item.key: cache.blob(item.key) for item in items}


def stage_images(todo: Plan, folder: Path, cache: Cache) -> None:
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


def finished(target: Path, todo: Plan) -> Artifact:
    """Digest the artifact and write ``SHA256SUMS`` beside it."""
    assert todo.id is not None
    size = target.stat().st_size
    with console.bar("hashing the artifact", size) as advance:
        sha256 = sha256_of(target, advance)
    with complete_or_absent(target.with_name("SHA256SUMS"), step="writing SHA256SUMS") as part:
        part.write_text(f"{sha256}  {target.name}\n")
    return Artifact(target, sha256, size, todo.id)
