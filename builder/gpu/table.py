"""The table of ``nvidia.yaml`` as frozen values. Sources of every fact are named there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).with_name("nvidia.yaml")


@dataclass(frozen=True)
class Model:
    """A card. ``vram`` in MiB; ``driver``: the first version that knows it; ``last``: the last branch that does.

    ``cuda`` and ``last_cuda``: the toolkits that make code for it; ``modules``: the flavours that drive it.
    """

    key: str
    name: str
    architecture: str
    compute: str
    vram: int
    driver: str
    last: str | None
    modules: tuple[str, ...]
    cuda: str
    last_cuda: str | None


@dataclass(frozen=True)
class Modules:
    """Where a flavour's kernel modules come from: ``prebuilt`` packages, or the ``source`` that is compiled.

    ``tools``: packages that compiling it needs besides those that every source does.
    """

    prebuilt: str | None
    source: str | None
    tools: tuple[str, ...]


@dataclass(frozen=True)
class Branch:
    """A driver branch as an archive has it. ``version``: at least."""

    name: str
    version: str
    modules: Mapping[str, Modules]
    packages: tuple[str, ...]


@dataclass(frozen=True)
class CudaPackages:
    """The CUDA that an archive has: one version, by ``runtime`` or ``toolkit`` packages, in ``components`` of it
    that the driver does not need.
    """

    version: str
    components: tuple[str, ...]
    runtime: tuple[str, ...]
    toolkit: tuple[str, ...]


@dataclass(frozen=True)
class Archive:
    """What one source offers for one release; ``components`` of it that a node without GPU does not need."""

    distribution: str
    release: str
    source: str
    components: tuple[str, ...]
    branches: Mapping[str, Branch]
    cuda: CudaPackages | None


@dataclass(frozen=True)
class Extra:
    """The CUDA of an engine's wheels: its name, as engines spell it, and the least driver."""

    name: str
    driver: str


@dataclass(frozen=True)
class Table:
    models: Mapping[str, Model]
    cuda: Mapping[str, str]
    extras: Mapping[str, Extra]
    archives: tuple[Archive, ...]

    def archive(self, distribution: str, release: str, source: str) -> Archive | None:
        for one in self.archives:
            if (one.distribution, one.release, one.source) == (distribution, release, source):
                return one
        return None


def version(text: str) -> tuple[int, ...]:
    """A version as numbers, for comparing: ``550.54.14`` → (550, 54, 14)."""
    return tuple(int(number) for number in re.findall("[0-9]+", text))


@cache
def table() -> Table:
    """The table, read once."""
    return parse(yaml.safe_load(_FILE.read_text()))


def parse(data: Mapping[str, Any]) -> Table:
    """The table of data that was read. Raises KeyError for what is missing."""
    architectures = data["architectures"]
    return Table(
        models={key: _model(key, one, architectures[one["architecture"]]) for key, one in data["models"].items()},
        cuda=data["cuda"],
        extras={major: Extra(**one) for major, one in data["extras"].items()},
        archives=tuple(_archive(one) for one in data["archives"]),
    )


def _model(key: str, one: Mapping[str, Any], architecture: Mapping[str, Any]) -> Model:
    return Model(
        key=key,
        name=one["name"],
        architecture=one["architecture"],
        compute=one["compute"],
        vram=one["vram"],
        driver=one.get("driver", architecture["driver"]),
        last=architecture.get("last"),
        modules=tuple(architecture["modules"]),
        cuda=architecture["cuda"],
        last_cuda=architecture.get("last_cuda"),
    )


def _archive(one: Mapping[str, Any]) -> Archive:
    cuda = one.get("cuda")
    return Archive(
        distribution=one["distribution"],
        release=one["release"],
        source=one["source"],
        components=tuple(one["components"]),
        branches={name: _branch(name, branch) for name, branch in one["branches"].items()},
        cuda=_cuda(cuda) if cuda else None,
    )


def _cuda(one: Mapping[str, Any]) -> CudaPackages:
    components = tuple(one.get("components", ()))
    return CudaPackages(one["version"], components, tuple(one["runtime"]), tuple(one["toolkit"]))


def _branch(name: str, one: Mapping[str, Any]) -> Branch:
    modules = {
        flavour: Modules(brings.get("prebuilt"), brings.get("source"), tuple(brings.get("tools", ())))
        for flavour, brings in one["modules"].items()
    }
    return Branch(name, one["version"], modules, tuple(one["packages"]))
