"""Does it fit? What medium, partitions and memory must hold, against what the spec says they have.

Pure. The models' sizes are exact, as the lock has them. The layers' are known once they are made; before that
they are estimated from their packages, and only what cannot be right is then a mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builder import engines, plan
from builder.console import human
from builder.errors import Mistake
from builder.installer import layout
from builder.installer.model import InstallError, Storage
from builder.lock import Lock
from builder.spec.model import Cluster

# Measured on the quickstart (Debian 13): 193 MB of packages made a layer of 280 MB, initramfs included.
LAYER_PERCENT = 145
LEAST_PERCENT = 70
BOOT = 128 << 20  # bytes; the quickstart's kernel, initramfs, installer and boot loaders take 65 MB


@dataclass(frozen=True)
class Row:
    """One comparison, in bytes. ``have`` is None where the spec does not say.

    ``least`` is the part of ``need`` that is certain; ``path`` and ``hint``: where the spec decides it. What is
    not ``binding`` is told only.
    """

    what: str
    need: int
    have: int | None
    least: int
    path: str
    hint: str
    note: str = ""
    binding: bool = True

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

    def __str__(self) -> str:
        need = f"{'about ' if self.about else ''}{human(self.need)}"
        have = f" of {human(self.have)}" if self.have is not None else ""
        return f"{self.what:18} {need}{have}{f'  ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Preflight:
    """The rows are for people, whether or not there are mistakes among them."""

    rows: tuple[Row, ...]

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        return tuple(row.mistake for row in self.rows if row.mistake)


def check(cluster: Cluster, lock: Lock, layer_bytes: int | None = None) -> Preflight:
    """Judge a spec with its lock; ``layer_bytes`` is the sum of the finished layers, if they are known."""
    if layer_bytes is None:
        packages = sum(package.size for package in (*lock.packages, *lock.engine))
        layers, least = packages * LAYER_PERCENT // 100, packages * LEAST_PERCENT // 100
    else:
        layers = least = layer_bytes
    sizes = tuple(model.size for model in lock.models)
    planned = plan.storage(cluster, lock.models)
    storage = Storage(plan.ESP_SIZE, planned["root"], planned["models"])
    rows = [
        _medium(cluster, lock, layers, least),
        *_models(sizes, storage),
        Row(
            "root partition",
            layout.root_need(layers),
            storage.root,
            layout.root_need(least),
            "storage.root",
            "write rest, or a larger size",
        ),
        *_disks(cluster, storage, layers, least, sizes),
        *_memory(cluster, lock),
    ]
    return Preflight(tuple(rows))


def _medium(cluster: Cluster, lock: Lock, layers: int, least: int) -> Row:
    """A file that two models share is on the medium once."""
    blobs = sum({model.sha256: model.size for model in lock.models}.values())
    return Row(
        "medium",
        layers + BOOT + blobs,
        cluster.media.stick_size,
        least + blobs,
        "media.stick_size",
        "take a larger stick, or fewer models",
        f"models {human(blobs)}" if blobs else "",
    )


def _models(sizes: tuple[int, ...], storage: Storage) -> Iterator[Row]:
    need = layout.models_need(sizes)
    if need:
        hint = "write fit, rest, or a larger size"
        yield Row("models partition", need, storage.models, need, "storage.models", hint, f"{len(sizes)} files")


def _disks(cluster: Cluster, storage: Storage, layers: int, least: int, sizes: tuple[int, ...]) -> Iterator[Row]:
    """The smallest disk that the installer would accept, against the smallest that the spec does."""
    try:
        need, sure = layout.need(storage, layers, sizes), layout.need(storage, least, sizes)
    except InstallError:
        return  # a partition is too small for what goes in; its own row says so
    wishes = {"storage.disk": cluster.storage.disk} if any(not node.disk for node in cluster.nodes) else {}
    wishes |= {f"nodes[{i}].disk": node.disk for i, node in enumerate(cluster.nodes) if node.disk}
    for path, disk in wishes.items():
        title = "disk" if path == "storage.disk" else f"disk of {cluster.nodes[int(path[6:-6])].name}"
        yield Row(title, need, disk.min_size, sure, f"{path}.min_size", "ask for a larger disk")


def _memory(cluster: Cluster, lock: Lock) -> Iterator[Row]:
    """The weights that are served, or the largest, against all nodes together.

    Only weights: context and buffers come on top. Without an engine nothing is loaded, so nothing is wrong.
    """
    served = engines.of(cluster).facts(cluster).get("model")
    groups: dict[str, int] = {}
    for model in lock.models:
        # An engine serves a file, or a folder whose files belong together.
        inside = served is not None and (model.name == served or model.name.startswith(f"{served}/"))
        if served is None or inside:
            name = str(served or model.name.partition("/")[0])
            groups[name] = groups.get(name, 0) + model.size
    if not groups:
        return
    name, need = max(groups.items(), key=lambda group: group[1])
    known = [node.memory for node in cluster.nodes if node.memory is not None]
    have = sum(known) if len(known) == len(cluster.nodes) else None
    hint = "take a smaller model or quantization, or more nodes"
    note = f"weights of {name}, all nodes together"
    yield Row("memory", need, have, need, "nodes[0].memory", hint, note, binding=served is not None)
