"""What must fit, with its numbers, before anything is downloaded or written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder import engines, lock, nodefacts, preflight
from builder.engines import Minimum
from builder.errors import Mistake, SpecError
from builder.installer import layout
from builder.lock import Lock, LockedModel
from builder.media.baseiso import LockedIso
from builder.sources.apt import Package
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


def test_a_build_refuses_what_does_not_fit_and_hands_on_what_does() -> None:
    spec = cluster(media="stick_size: 4G")
    with pytest.raises(SpecError, match=r"lab.yaml: 1 mistake\n  media.stick_size: the medium needs"):
        preflight.require("lab.yaml", spec, pins(spec))
    assert preflight.require("lab.yaml", cluster(), pins(cluster())).rows


def llamacpp(memory: str, options: str) -> Cluster:
    """The cluster with llama.cpp, which needs addresses that are known."""
    text = SPEC.format(nodes=f"memory: {memory}", storage="", media="")
    for node in ("1", "2"):
        serial = {"1": "serial: A", "2": "serial: B"}[node]
        text = text.replace(serial, f'mac: "52:54:00:77:00:0{node}"')
        text = text.replace(f"node{node},", f"node{node}, address: 10.77.0.1{node},")
    return loads(f"{text}engine: {{name: llamacpp, {options}}}\n")


@pytest.mark.parametrize(("memory", "fits"), [("1G", True), ("522M", True), ("521M", False)])
def test_an_engine_needs_memory_for_the_model_it_serves(memory: str, fits: bool) -> None:
    """Both nodes together: the weights, and 10 MiB each for what runs there. The larger model does not count.

    What context and buffers take is told, and refuses nothing: it is an estimate.
    """
    spec = llamacpp(memory, "model: a.gguf, context: 4096")
    found = preflight.check(spec, pins(spec))
    assert row(found, "memory").least == GIB + 2 * 10 * MIB
    assert row(found, "memory").need == GIB + 2 * 10 * MIB + 2 * 256 * MIB + 4096 * 128 * 1024
    assert str(row(found, "memory")).endswith("(weights of a.gguf 1.0 GiB, all nodes together)")
    assert (found.mistakes == ()) == fits


@pytest.mark.parametrize(("memory", "fits"), [("3200M", True), ("3G", False)])
def test_all_files_of_a_split_model_are_loaded(memory: str, fits: bool) -> None:
    parts = [f"org--big/x-0000{n}-of-00002.gguf" for n in (1, 2)]
    spec = llamacpp(memory, f"model: {parts[0]}")
    models = tuple(LockedModel(name, f"{n:064x}", 3 * GIB) for n, name in enumerate(parts))
    found = preflight.check(spec, replace(pins(spec), models=models))
    assert row(found, "memory").note.startswith(f"weights of {parts[0]} 6.0 GiB")
    assert (found.mistakes == ()) == fits


def test_a_node_that_cannot_even_hold_the_engine_is_named() -> None:
    spec = llamacpp("2G", "model: a.gguf")
    nodes = (spec.nodes[0], spec.nodes[1].model_copy(update={"memory": 8 * MIB}))
    (mistake,) = preflight.check(spec.model_copy(update={"nodes": nodes}), pins(spec)).mistakes
    assert mistake.path == "nodes[1].memory"
    assert mistake.message == "the memory of node2 needs 10.0 MiB, and has 8.0 MiB"


def test_what_the_lock_did_not_find_is_a_mistake_too() -> None:
    spec = llamacpp("2G", "model: org--big/w/3.gguf")
    models = tuple(LockedModel(name, SHA, 1) for name in ("a.gguf", "org--big/w/1.bin"))
    found = preflight.check(spec, replace(pins(spec), models=models))
    wanted = Mistake(0, "engine.model", "no model is called org--big/w/3.gguf", "there is: a.gguf")
    assert found.mistakes == (wanted,)


def test_what_an_engine_writes_is_part_of_the_root_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = cluster()
    before = preflight.check(spec, pins(spec))
    greedy = replace(engines.ENGINES["none"], minimum=lambda _cluster, _files: Minimum(disk=5 * GIB))
    monkeypatch.setitem(engines.ENGINES, "none", greedy)
    after = preflight.check(spec, pins(spec))
    for what in ("root partition", "disk"):
        assert row(after, what).need == row(before, what).need + 5 * GIB
        assert row(after, what).least == row(before, what).least + 5 * GIB


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
    size = nodefacts.storage(spec, models)["models"]
    assert size is not None and size >= layout.models_need((5,) * count)


@pytest.mark.parametrize(("stick", "fits"), [("3.2G", True), ("2.9G", False)])
def test_ubuntu_s_iso_is_on_the_medium_whole(stick: str, fits: bool) -> None:
    spec = loads(
        'name: lab\nnetwork: {subnet: 10.77.0.0/24}\ndistribution: {name: ubuntu, release: "24.04"}\n'
        "nodes: [{name: one, match: {serial: A}, interface: eth0}]\n"
        f"media: {{installer: subiquity, stick_size: {stick}}}\n"
    )
    iso = LockedIso("ubuntu-24.04.3-live-server-amd64.iso", SHA, 3 * GIB)
    found = preflight.check(spec, Lock(lock.asks_of(spec), 0, (), (), (), iso=iso))
    assert bool(found.mistakes) is not fits
    assert str(row(found, "medium")).endswith("(Ubuntu's ISO 3.0 GiB)")


def test_encryption_needs_a_larger_disk(tmp_path: Path) -> None:
    """A /boot of its own, which GRUB can read, and what LUKS and LVM write about themselves."""
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    text = (
        'name: lab\nnetwork: {{subnet: 10.77.0.0/24}}\ndistribution: {{name: ubuntu, release: "24.04"}}\n'
        "nodes: [{{name: one, match: {{serial: A}}, interface: eth0}}]\nmedia: {{installer: subiquity}}\n"
        "storage: {{root: 20G, disk: {{largest: true, min_size: 20.7G}}, {more}}}\n"
    )
    luks = "luks: {passphrase_file: passphrase}"
    needs = {}
    for more in ("layout: direct", "layout: lvm", luks, f"layout: lvm, {luks}"):
        spec = loads(text.format(more=more), base=tmp_path)
        found = preflight.check(spec, Lock(lock.asks_of(spec), 0, (), (), ()))
        needs[more] = row(found, "disk").need
        assert bool(found.mistakes) is ("luks" in more)
    plain, lvm, crypt, both = needs.values()
    assert [lvm - plain, crypt - plain, both - plain] == [16 * MIB, 1040 * MIB, 1056 * MIB]
