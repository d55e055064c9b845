"""What must fit, with its numbers, before anything is downloaded or written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder import lock, plan, preflight
from builder.apt import Package
from builder.installer import layout
from builder.lock import Lock, LockedModel
from builder.spec.load import loads
from builder.spec.model import Cluster

MIB, GIB = 1 << 20, 1 << 30
SHA = "a" * 64
SPEC = """\
name: demo
network: {{subnet: 10.77.0.0/24}}
nodes:
  - {{name: node1, match: {{serial: A}}, {nodes}}}
  - {{name: node2, match: {{serial: B}}, {nodes}}}
storage: {{{storage}}}
media: {{{media}}}
models:
  - {{name: a.gguf, url: "https://h/a"}}
  - {{repo: org/big}}
"""


def cluster(nodes: str = "", storage: str = "", media: str = "", more: str = "") -> Cluster:
    return loads(SPEC.format(nodes=nodes, storage=storage, media=media) + more)


def pins(spec: Cluster) -> Lock:
    """200 MiB of packages, 1 GiB of one model, and 3 GiB in two files that are the same."""
    models = (
        LockedModel("a.gguf", "1" * 64, GIB),
        LockedModel("org--big/w/1.gguf", "2" * 64, 3 * GIB),
        LockedModel("org--big/w/2.gguf", "2" * 64, 3 * GIB),
    )
    package = Package("x", "1", "amd64", "main", "pool/x.deb", 200 * MIB, SHA)
    return Lock(lock.asks_of(spec), 0, (package,), models, (), {"org--big": "c" * 40})


def row(found: preflight.Preflight, what: str) -> preflight.Row:
    return next(row for row in found.rows if row.what == what)


def test_without_sizes_in_the_spec_there_are_numbers_and_no_mistakes() -> None:
    spec = cluster()
    found = preflight.check(spec, pins(spec))
    assert [row.what for row in found.rows] == ["medium", "models partition", "root partition", "disk", "memory"]
    assert found.mistakes == ()
    assert row(found, "medium").need == 290 * MIB + preflight.BOOT + 4 * GIB  # the twin is on the medium once
    assert 7 * GIB < row(found, "models partition").need < 7.1 * GIB  # and on the node twice
    assert str(row(found, "medium")) == "medium             about 4.4 GiB  (models 4.0 GiB)"
    assert str(row(found, "models partition")).endswith("(3 files)")


@pytest.mark.parametrize(
    ("nodes", "storage", "media", "path", "message"),
    [
        ("", "", "stick_size: 4G", "media.stick_size", "the medium needs at least 4.1 GiB, and has 4.0 GiB"),
        ("", "models: 7G", "", "storage.models", "the models partition needs 7,565,475,840 bytes, and has 7,516,"),
        ("disk: {largest: true, min_size: 8G}", "", "", "nodes[0].disk.min_size", "the disk of node1 needs "),
        ("", "disk: {largest: true, min_size: 8G}", "", "storage.disk.min_size", "the disk needs at least 8."),
    ],
)  # fmt: skip
def test_what_does_not_fit(nodes: str, storage: str, media: str, path: str, message: str) -> None:
    spec = cluster(nodes, storage, media)
    mistake = preflight.check(spec, pins(spec)).mistakes[0]
    assert mistake.path == path
    assert mistake.message.startswith(message)
    assert mistake.hint


def test_an_estimate_alone_is_no_mistake_and_a_known_size_is() -> None:
    """1 GiB of root holds the least that 200 MiB of packages become, and not the most likely."""
    spec = cluster(storage="root: 1G")
    guessed = preflight.check(spec, pins(spec))
    assert row(guessed, "root partition").need > GIB
    assert guessed.mistakes == ()
    known = preflight.check(spec, pins(spec), layer_bytes=290 * MIB)
    assert [mistake.path for mistake in known.mistakes] == ["storage.root"]
    assert preflight.check(spec, pins(spec), layer_bytes=200 * MIB).mistakes == ()


@pytest.mark.parametrize(("memory", "fits"), [("1G", True), ("512M", True), ("511M", False)])
def test_an_engine_needs_memory_for_the_model_it_serves(memory: str, fits: bool) -> None:
    """Both nodes together; the larger model that is not served does not count."""
    nodes = f"memory: {memory}"
    text = SPEC.format(nodes=nodes, storage="", media="").replace("serial: A", 'mac: "52:54:00:77:00:01"')
    text = text.replace("serial: B", 'mac: "52:54:00:77:00:02"').replace("node1,", "node1, address: 10.77.0.11,")
    text = text.replace("node2,", "node2, address: 10.77.0.12,") + "engine: {name: llamacpp, model: a.gguf}\n"
    spec = loads(text)
    found = preflight.check(spec, pins(spec))
    assert row(found, "memory").need == GIB
    assert (found.mistakes == ()) == fits


def test_memory_without_an_engine_is_told_only() -> None:
    spec = cluster("memory: 1G")
    found = preflight.check(spec, pins(spec))
    assert found.mistakes == ()
    assert str(row(found, "memory")).split("  ")[-1] == "(weights of org--big, all nodes together)"
    assert (row(found, "memory").need, row(found, "memory").have) == (6 * GIB, 2 * GIB)


def test_memory_that_one_node_does_not_tell_is_not_added_up() -> None:
    spec = cluster()
    nodes = (spec.nodes[0].model_copy(update={"memory": GIB}), spec.nodes[1])
    assert row(preflight.check(spec.model_copy(update={"nodes": nodes}), pins(spec)), "memory").have is None


def test_no_models_no_rows_for_them() -> None:
    spec = cluster()
    empty = replace(pins(spec), models=())
    assert [row.what for row in preflight.check(spec, empty).rows] == ["medium", "root partition", "disk"]


def test_many_small_files_need_inodes() -> None:
    """A models partition has one inode for each MiB."""
    assert layout.models_need((5,) * 500) >= 1000 * MIB


@pytest.mark.parametrize("count", [100, 500])
def test_a_fitting_partition_fits_many_small_files(count: int) -> None:
    spec = cluster()
    models = tuple(LockedModel(f"org--big/{i}", f"{i:064x}", 5) for i in range(count))
    size = plan.storage(spec, models)["models"]
    assert size is not None and size >= layout.models_need((5,) * count)
