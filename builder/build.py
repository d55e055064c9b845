"""The spine: from a spec to an artifact, one line a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder import console, inputs, lock, plan, preflight, resolve
from builder.cache import Cache
from builder.files import complete_or_absent, sha256_of
from builder.layers import base, engine, gpu, images, site
from builder.lock import Lock
from builder.media import bootkit, iso, livemedium, payload
from builder.media.payload import Payload
from builder.netboot import live, tree
from builder.netboot.tree import Tree
from builder.plan import Plan
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
        todo = planned(spec_path, cache)
        source = inputs.base_iso(todo, spec_path.parent, cache)
        stack, content = gather(todo, spec_path, cache)
        target = out / todo.cluster.name / f"{todo.cluster.name}.iso"
        write_medium(todo, source, stack, content, target, cache)
    return finished(target, todo)


def build_pxe(spec_path: Path, out: Path, cache: Cache) -> Tree:
    """Build the network-boot tree of a cluster: ``<out>/<cluster>/pxe``.

    Raises BuilderError as :func:`build_iso`.
    """
    cluster = load(spec_path)
    live.require(cluster)
    with cache.locked():
        todo = planned(spec_path, cache)
        source = inputs.base_iso(todo, spec_path.parent, cache)
        stack, content = gather(todo, spec_path, cache)
        return write_tree(todo, source, stack, content, out / cluster.name / "pxe", cache)


def planned(spec_path: Path, cache: Cache) -> Plan:
    """What is to be built, as far as it fits."""
    cluster = load(spec_path)
    for warning in warnings(cluster):
        console.warn(warning)
    pins = locked(cluster, spec_path, cache)
    for warning in preflight.require(str(spec_path), cluster, pins).warnings:
        console.warn(warning)
    return plan.make(cluster, pins)


def gather(todo: Plan, spec_path: Path, cache: Cache) -> tuple[list[Path], Payload]:
    """All that goes on any medium: the layers, the payload."""
    folder = spec_path.parent
    packages = inputs.packages(todo, cache) | inputs.python(todo, folder, cache)
    models = inputs.models(todo, folder, cache)
    inputs.images(todo, folder, cache)
    stack = make_layers(todo, folder, packages, cache)
    assert todo.lock is not None
    preflight.require(str(spec_path), todo.cluster, todo.lock, sum(layer.stat().st_size for layer in stack))
    return stack, payload.make(todo, {layer.name: layer for layer in stack}, models)


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
    todo: Plan, source: Path | None, stack: Sequence[Path], content: Payload, target: Path, cache: Cache
) -> None:
    """The medium of the installer that the spec chose; ``source``: the ISO to remaster, if that is Ubuntu's."""
    title = f"ISO: {len(content.files)} payload files, {len(todo.cluster.nodes)} nodes"
    if source is None:
        kit = bootkit.make(todo, stack[0], cache)
        with console.step(title):
            iso.write(todo, kit, content, target)
    else:
        assert todo.lock is not None and todo.lock.iso is not None
        with console.step(f"{title}, on {todo.lock.iso.name}"):
            livemedium.write(todo, source, stack, content, target, stick_size=todo.cluster.media.stick_size)


def write_tree(
    todo: Plan, source: Path | None, stack: Sequence[Path], content: Payload, target: Path, cache: Cache
) -> Tree:
    """The network-boot tree of the installer that the spec chose; ``source`` as of :func:`write_medium`."""
    kit = bootkit.make(todo, stack[0], cache)
    ubuntu = live.Ubuntu(source, stack) if source else None
    with console.step(f"network-boot tree: {len(content.files)} payload files, {len(todo.cluster.nodes)} nodes"):
        return tree.write(todo, kit, content, target, ubuntu)


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
        pins = resolve.make(cluster, spec_path, cache)
        lock.save(pins, path)
        console.say(f"  {len(pins.packages)} packages pinned in {path}")
    return pins


def finished(target: Path, todo: Plan) -> Artifact:
    """Digest the artifact and write ``SHA256SUMS`` beside it."""
    assert todo.id is not None
    size = target.stat().st_size
    with console.bar("hashing the artifact", size) as advance:
        sha256 = sha256_of(target, advance)
    with complete_or_absent(target.with_name("SHA256SUMS"), step="writing SHA256SUMS") as part:
        part.write_text(f"{sha256}  {target.name}\n")
    return Artifact(target, sha256, size, todo.id)
