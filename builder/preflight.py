"""Does it fit? What medium, partitions and memory must hold, against what the spec says they have.

Pure. The models' sizes are exact, as the lock has them. The layers' are known once they are made; before that
they are estimated from their packages, and only what cannot be right is then a mistake. So it is with memory: the
weights and each node's least are certain, what an engine takes on top is its module's estimate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builder import engines, gpu, nodefacts, plan
from builder.console import human
from builder.engines import Minimum
from builder.errors import Mistake, SpecError
from builder.installer import layout
from builder.installer.model import InstallError, Storage
from builder.lock import Lock
from builder.spec.model import Cluster

# Measured on the quickstart (Debian 13): 193 MB of packages made a layer of 280 MB, initramfs included.
LAYER_PERCENT = 145
LEAST_PERCENT = 70
MIB = 1 << 20
BOOT = 128 << 20  # bytes; the quickstart's kernel, initramfs, installer and boot loaders take 65 MB


@dataclass(frozen=True)
class Row:
    """One comparison, in bytes. ``have`` is None where the spec does not say.

    ``least`` is the part of ``need`` that is certain; ``path`` and ``hint``: where the spec decides it. What is
    not ``binding`` is told only, or warned of if it ``warns``.
    """

    what: str
    need: int
    have: int | None
    least: int
    path: str
    hint: str
    note: str = ""
    binding: bool = True
    warns: bool = False

    @property
    def about(self) -> bool:
        """Whether ``need`` is an estimate."""
        return self.least != self.need

    @property
    def mistake(self) -> Mistake | None:
        if not self.binding or self.have is None or self.least <= self.have:
            return None
        need, have = human(self.least), human(self.have)
        if need == have:
            need, have = f"{self.least:,} bytes", f"{self.have:,} bytes"
        at_least = "at least " if self.about else ""
        return Mistake(0, self.path, f"the {self.what} needs {at_least}{need}, and has {have}", self.hint)

    @property
    def warning(self) -> str | None:
        """For what may be meant so, and is likely to be regretted."""
        if not self.warns or self.have is None or self.least <= self.have:
            return None
        need, have = human(self.least), human(self.have)
        return f"{self.path}: {need} of {self.what} are needed ({self.note}), and there are {have}: {self.hint}"

    def __str__(self) -> str:
        need = f"{'about ' if self.about else ''}{human(self.need)}"
        have = f" of {human(self.have)}" if self.have is not None else ""
        return f"{self.what:18} {need}{have}{f'  ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Preflight:
    """The rows are for people, whether or not there are mistakes among them.

    ``unfounded``: what the spec asks for and the lock did not find.
    """

    rows: tuple[Row, ...]
    unfounded: tuple[Mistake, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(row.warning for row in self.rows if row.warning)

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return (*self.unfounded, *(row.mistake for row in self.rows if row.mistake))


def require(source: str, cluster: Cluster, lock: Lock, layer_bytes: int | None = None) -> Preflight:
    """:func:`check`, and raise SpecError, naming the spec ``source``, for what does not fit."""
    fits = check(cluster, lock, layer_bytes)
    if fits.mistakes:
        raise SpecError(source, fits.mistakes)
    return fits


def check(cluster: Cluster, lock: Lock, layer_bytes: int | None = None) -> Preflight:
    """Judge a spec with its lock; ``layer_bytes`` is the sum of the finished layers, if they are known."""
    if layer_bytes is None:
        packages = sum(package.size for package in (*lock.packages, *lock.engine))
        carried = sum(image.size for image in lock.images)  # as they are: they are compressed themselves
        layers = packages * LAYER_PERCENT // 100 + carried
        least = packages * LEAST_PERCENT // 100 + carried
    else:
        layers = least = layer_bytes
    sizes = tuple(model.size for model in lock.models)
    planned = nodefacts.storage(cluster, lock.models)
    storage = Storage(nodefacts.ESP_SIZE, planned["root"], planned["models"], planned.get("besides") or 0)
    engine = engines.of(cluster).minimum(cluster, lock.files)
    images = _images(lock)
    rows = [
        _medium(cluster, lock, layers, least),
        *_models(sizes, storage),
        Row(
            "root partition",
            layout.root_need(layers) + engine.disk + images,
            storage.root,
            layout.root_need(least) + engine.disk,
            "storage.root",
            "write rest, or a larger size",
        ),
        *_disks(cluster, storage, layers, least, sizes, (engine.disk + images, engine.disk)),
        *_memory(cluster, lock, engine),
        *_vram(cluster, lock, engine),
    ]
    return Preflight(tuple(rows), plan.mistakes(cluster, lock))


def _medium(cluster: Cluster, lock: Lock, layers: int, least: int) -> Row:
    """A file that two models share is on the medium once. Ubuntu's ISO is there whole."""
    blobs = sum({model.sha256: model.size for model in lock.models}.values())
    ubuntu = lock.iso.size if lock.iso else 0
    notes = (("Ubuntu's ISO", ubuntu), ("models", blobs))
    return Row(
        "medium",
        layers + (ubuntu or BOOT) + blobs,
        cluster.media.stick_size,
        least + ubuntu + blobs,
        "media.stick_size",
        "take a larger stick, or fewer models",
        ", ".join(f"{what} {human(size)}" for what, size in notes if size),
    )


def _models(sizes: tuple[int, ...], storage: Storage) -> Iterator[Row]:
    need = layout.models_need(sizes)
    if need:
        hint = "write fit, rest, or a larger size"
        yield Row("models partition", need, storage.models, need, "storage.models", hint, f"{len(sizes)} files")


def _disks(
    cluster: Cluster, storage: Storage, layers: int, least: int, sizes: tuple[int, ...], grows: tuple[int, int]
) -> Iterator[Row]:
    """The smallest disk that the installer would accept, against the smallest that the spec does.

    ``grows``: what is written to the root partition later, by estimate and at least; one of a given size has it
    inside.
    """
    try:
        need, sure = layout.need(storage, layers, sizes), layout.need(storage, least, sizes)
    except InstallError:
        return  # a partition is too small for what goes in; its own row says so
    if storage.root is None:
        need, sure = need + grows[0], sure + grows[1]
    wishes = {"storage.disk": cluster.storage.disk} if any(not node.disk for node in cluster.nodes) else {}
    wishes |= {f"nodes[{i}].disk": node.disk for i, node in enumerate(cluster.nodes) if node.disk}
    for path, disk in wishes.items():
        title = "disk" if path == "storage.disk" else f"disk of {cluster.nodes[int(path[6:-6])].name}"
        yield Row(title, need, disk.min_size, sure, f"{path}.min_size", "ask for a larger disk")


def _images(lock: Lock) -> int:
    """What Docker writes when it loads the images, in bytes, beyond what a layer is reckoned to unpack to.

    An archive stays as it is, its layers in Docker's store are about three times as large, and while it loads, all
    of the archive is there once more; of that, three times its size is counted already (layout.root_need).
    """
    sizes = [image.size for image in lock.images]
    return sum(sizes) + max(sizes, default=0)


def _memory(cluster: Cluster, lock: Lock, engine: Minimum) -> Iterator[Row]:
    """All nodes together against the weights that are served and what the engine takes beside them.

    Without weights to serve nothing is loaded, and so nothing is wrong: the largest model's size is told only.
    """
    name, weights = _weights(lock, engine)
    if not weights:
        return
    serves = bool(engine.weights)
    least = weights + len(cluster.nodes) * engine.memory
    known = [node.memory for node in cluster.nodes if node.memory is not None]
    have = sum(known) if len(known) == len(cluster.nodes) else None
    note = f"weights of {name}{f' {human(weights)}' if serves else ''}, all nodes together"
    hint = "take a smaller model or quantization, or more nodes"
    yield Row("memory", least + engine.about, have, least, "nodes[0].memory", hint, note, binding=serves)
    for index, node in enumerate(cluster.nodes):
        if node.memory is not None and node.memory < engine.memory:
            title, path = f"memory of {node.name}", f"nodes[{index}].memory"
            yield Row(title, engine.memory, node.memory, engine.memory, path, "the engine alone takes that")


def _vram(cluster: Cluster, lock: Lock, engine: Minimum) -> Iterator[Row]:
    """The weights against the memory of all cards together; what does not fit is worked out by the processors."""
    stack, (name, weights) = gpu.stack_of(cluster), _weights(lock, engine)
    if stack is None or not weights:
        return
    have = len(cluster.nodes) * stack.vram_mib * MIB
    note = f"weights of {name}, on {len(cluster.nodes)} x {stack.count} {stack.model}"
    hint = "take a smaller model or quantization, or more nodes; else a part runs on the processors, slowly"
    yield Row("VRAM", weights, have, weights, "models", hint, note, binding=False, warns=True)


def _weights(lock: Lock, engine: Minimum) -> tuple[str, int]:
    """What is served, by its first file, and its size in bytes; else the largest model of all."""
    if engine.weights:
        return engine.weights[0], sum(lock.files[name] for name in engine.weights)
    groups: dict[str, int] = {}
    for name, size in lock.files.items():
        model = name.partition("/")[0]
        groups[model] = groups.get(model, 0) + size
    return max(groups.items(), key=lambda group: group[1], default=("", 0))
