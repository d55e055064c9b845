"""Ubuntu's medium, remastered, in a virtual machine: from GRUB to the document that installs this very node.

The live system is a fixture (:mod:`tests.livesystem`), as subiquity and casper are Ubuntu's own. What runs in it
is real: GRUB with the menu that we patched, for BIOS and for UEFI, the kernel and its command line, cloud-init
that takes its seed from the medium, and our picker. With a checkout of curtin, named by BUILDER_CURTIN, the node
is really installed and then booted. subiquity carries these commits (its snapcraft.yaml): 8bc0121d in 24.04.4.1,
ab0c9258 in 26.04.1.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder import autoinstall, build, inputs, nodefacts, plan
from builder.cache import Cache, default_root
from builder.installer import pick
from builder.lock import target_of
from builder.media import bootkit, livemedium, payload, remaster
from builder.media.bootkit import BootKit
from builder.media.payload import Payload
from builder.plan import Plan
from builder.render import File
from builder.spec.load import load
from builder.verify import disks
from builder.verify.boottest import boot_test
from builder.verify.firmware import FirmwareKind
from builder.verify.lab import Lab, lab
from builder.verify.machine import MediumKind
from builder.verify.request import BootTest, Identity
from builder.verify.spec import checks, facts
from builder.verify.vm import VM, running
from tests import livesystem

pytestmark = pytest.mark.vm
Say = Callable[[str], None]

EXAMPLES = Path(__file__).parents[2] / "examples"
STRANGER = "52:54:00:99:99:99"
PASSPHRASE = "correct horse battery staple"
QUIET = 1800  # seconds; rsync says nothing while it copies a whole system, and the host may be busy
# What curtin needs of a live system, and what opens node2's disk; the fixture has the packages of the node.
FOR_CURTIN = (
    *("cryptsetup", "cryptsetup-initramfs", "file", "lvm2", "parted", "python3-apt", "python3-debian"),
    *("python3-packaging", "python3-pyudev", "rsync"),
)


@dataclass(frozen=True)
class Medium:
    """The remastered ISO, and what it was made from."""

    iso: Path
    todo: Plan
    content: Payload
    facts: dict[str, Any]

    def request(
        self, out: Path, name: str = "node1", *, firmware: FirmwareKind, kind: MediumKind = "cdrom"
    ) -> BootTest:
        cluster = self.todo.cluster
        addresses = {one.name: one.address for one in cluster.nodes if one.address != "dhcp"}
        address = addresses.pop(name)
        return BootTest(
            iso=self.iso,
            out=out,
            node=name,
            address=address,
            subnet=cluster.network.subnet,
            gateway=cluster.network.gateway,
            taken=tuple(addresses.values()),
            firmware=firmware,
            medium=kind,
            facts=self.facts,
            checks=checks(cluster),
        )


@dataclass(frozen=True)
class Parts:
    """What a medium, or a tree, is made of. ``spec`` is the cluster's with Ubuntu's installer; ``facts`` are those
    of the layers, which are Debian's."""

    spec: Path
    todo: Plan
    stack: list[Path]
    kit: BootKit
    content: Payload
    base: Path
    facts: dict[str, Any]


def gather(folder: Path, packages: tuple[str, ...] = (), more: tuple[File, ...] = ()) -> Parts:
    """``packages``: further ones of every node; ``more``: files of the live system.

    The layers are Debian's, as Ubuntu's archive may be out of reach, and all else is that of a cluster that is the
    same but for its distribution; and for node2's disk, which gets volumes, and those encrypted.
    """
    shutil.copytree(EXAMPLES, folder / "examples", ignore=shutil.ignore_patterns("*.lock"))
    spec, ubuntu = folder / "examples/quickstart.yaml", folder / "examples/ubuntu.yaml"
    (folder / "examples/passphrase").write_text(PASSPHRASE + "\n")
    raw = yaml.safe_load(spec.read_text())
    raw["distribution"]["packages"] = list(packages)
    spec.write_text(yaml.safe_dump(raw))
    raw["distribution"] = {"name": "ubuntu", "release": "24.04"}
    open_disk, storage = {**raw, "media": {"installer": "subiquity"}}, raw["storage"]
    volumes = {**storage, "layout": "lvm", "luks": {"passphrase_file": "passphrase"}}
    ubuntu.write_text(yaml.safe_dump({**open_disk, "storage": volumes}))
    encrypted = load(ubuntu)
    ubuntu.write_text(yaml.safe_dump(open_disk))
    cluster, asked = load(spec), load(ubuntu)
    documents = {"node1": asked, "node2": encrypted}
    cache = Cache(default_root())
    with cache.locked():
        todo = with_hooks(plan.make(cluster, build.locked(cluster, spec, cache)))
        stack = build.make_layers(todo, spec.parent, inputs.packages(todo, cache), cache)
        models = inputs.models(todo, spec.parent, cache)
        kit = bootkit.make(todo, stack[0], cache)
    texts = {
        name: json.dumps(
            autoinstall.document(one, one.node(name), todo.seeds[name], nodefacts.storage(one, todo.models))
        ).encode()
        for name, one in documents.items()
    }
    expected = facts(todo)
    todo = replace(
        todo, cluster=asked, target=target_of(asked), documents=texts, live=autoinstall.live_seed(asked)
    )
    content = payload.make(todo, {layer.name: layer for layer in stack}, models)
    base = livesystem.make(folder / "live-server.iso", kit, stack[0], more)
    return Parts(ubuntu, todo, stack, kit, content, base, expected)


def make(folder: Path, packages: tuple[str, ...] = (), more: tuple[File, ...] = ()) -> Medium:
    """A medium in ``folder``; ``packages`` and ``more`` as :func:`gather` has them."""
    parts = gather(folder, packages, more)
    todo, content = parts.todo, parts.content
    remaster.write(
        source_iso=parts.base,
        target=folder / "quickstart.iso",
        plan_id=str(todo.id),
        epoch=todo.epoch,
        payload=content,
        live_files=livemedium.live_files(todo),
        autoinstall=todo.bootstrap,
        menu=replace(livemedium.menu(todo, content.sha256), countdown=1),
        source=livemedium.source(todo, sum(livemedium.unpacked_size(layer) for layer in parts.stack)),
    )
    parts.base.unlink()
    return Medium(folder / "quickstart.iso", todo, content, parts.facts)


def with_hooks(todo: Plan) -> Plan:
    """The plan with what a node's layers bring where curtin installs it."""
    site, layer = (*todo.site, *plan.for_subiquity()), todo.layers[-1]
    inputs = {**layer.inputs, "files": [file.fingerprint for file in site]}
    return replace(todo, site=site, layers=(*todo.layers[:-1], replace(layer, inputs=inputs)))


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Medium]:
    folder = tmp_path_factory.mktemp("liveserver")
    yield make(folder)
    shutil.rmtree(folder)


def seen(bench: Lab, vm: VM, pattern: str) -> re.Match[str]:
    """The next line that matches; a failure of the picker or of the live system's is none to be waited for."""
    patterns = {pattern: re.compile(pattern), "live-error": re.compile("live-error: .*")}
    found = vm.serial.wait_for(patterns, stall=bench.stall, limit=bench.limits.install)
    assert found.name == pattern, f"{found.match.group(0)}\n{vm.serial.screen(60)}"
    return found.match


def followed(medium: Medium, bench: Lab, vm: VM, *, uefi: bool) -> None:
    """From the kernel's command line to the finished document."""
    # A ";" that GRUB took for the end of its command would have cut off all that follows.
    words = seen(bench, vm, "live-cmdline: (.*)")[1].split()
    assert "ds=nocloud;s=/cdrom/builder/live/" in words
    assert f"builder.manifest={medium.content.sha256}" in words
    assert words[words.index("---") - 1 :] == ["console=ttyS0,115200", "---"]

    result = json.loads(seen(bench, vm, "live-cloud-init: (.*)")[1])
    assert result["datasource"].startswith("DataSourceNoCloud [seed=cmdline,/cdrom/builder/live/]")
    assert result["errors"] == []
    assert seen(bench, vm, "live-source: (.*)")[1].strip() == "/run/subiquity/cloud.autoinstall.yaml"

    assert seen(bench, vm, r"builder-picked (\S+) (\S+)").groups() == ("node1", medium.todo.id)
    shown = json.loads(seen(bench, vm, "live-document: (.*)")[1])
    assert shown == pick.finish(json.loads(medium.todo.documents["node1"]), "/dev/vda", uefi=uefi)


@pytest.mark.parametrize(("firmware", "kind"), [("bios", "usb"), ("uefi", "cdrom")], ids=["bios", "uefi"])
def test_the_machine_s_own_document_is_picked(
    medium: Medium, tmp_path: Path, progress: Say, firmware: FirmwareKind, kind: MediumKind
) -> None:
    with lab(medium.request(tmp_path / "out", firmware=firmware, kind=kind), progress, None) as bench:
        bench.make_disks()
        before = bench.digests(target=True)
        with running(bench.install_machine(), bench.out, "install", clock=bench.clock, on_line=progress) as vm:
            followed(medium, bench, vm, uefi=firmware != "bios")
        assert bench.digests(target=True) == before


def test_a_strange_machine_is_told_what_it_is(medium: Medium, tmp_path: Path, progress: Say) -> None:
    """The picker fails, so subiquity does: nothing is installed, and the screen has what the spec needs."""
    request = medium.request(tmp_path / "out", firmware="bios")
    with lab(replace(request, identity=Identity(STRANGER)), progress, None) as bench:
        bench.make_disks()
        before = bench.digests(target=True)
        with running(bench.install_machine(), bench.out, "install", clock=bench.clock, on_line=progress) as vm:
            reason = seen(bench, vm, "builder-failed (.*)")[1]
            assert reason.startswith("node: this machine is none of the cluster's nodes: node1, node2")
            assert seen(bench, vm, r'mac: "([0-9a-f:]+)"')[1] == STRANGER
            with pytest.raises(AssertionError, match="live-error: CalledProcessError"):
                seen(bench, vm, "live-document: .*")
            # What failed.sh shows until a person has read it, or the time is up: all logs, and the reason again.
            for log in ("/var/log/cloud-init-output.log", "journal", "/run/builder/install.log"):
                seen(bench, vm, f"---- {log}$")
            seen(bench, vm, "builder: the install failed")
            assert any("kernel: Linux version" in line.text for line in vm.serial.lines)  # as a journal has it
            assert f'mac: "{STRANGER}"' in vm.serial.screen()
        assert bench.digests(target=True) == before


def curtin_sources() -> tuple[tuple[str, ...], tuple[File, ...]]:
    """What :func:`gather` takes for an install by a real curtin; skips the test where there is none."""
    checkout = os.environ.get("BUILDER_CURTIN")
    if not checkout:
        pytest.skip("BUILDER_CURTIN names no checkout of curtin, which is in no archive of Debian's, nor on PyPI")
    return FOR_CURTIN, tuple(curtin_files(Path(checkout)))


@pytest.fixture(scope="module")
def for_curtin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Medium]:
    sources = curtin_sources()
    folder = tmp_path_factory.mktemp("curtin")
    yield make(folder, *sources)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("firmware", "kind"), [("bios", "usb"), ("uefi", "cdrom")], ids=["bios", "uefi"])
def test_curtin_installs_the_same_node(
    for_curtin: Medium, tmp_path: Path, progress: Say, firmware: FirmwareKind, kind: MediumKind
) -> None:
    """A real curtin follows the document, without a network; its hook and the placing finish the node, and that
    passes all of its checks."""
    request = for_curtin.request(tmp_path / "out", firmware=firmware, kind=kind)
    report = boot_test(replace(request, keep_disks=True, stall=QUIET), progress)
    assert report.passed, report.summary()
    # As they lie, root last, as it takes the rest of the disk.
    names = [partition.name for partition in disks.partitions(tmp_path / "out/disks/target.raw")]
    assert names == ["builder-bios", "builder-esp", "builder-models", "builder-root"]
    shutil.rmtree(tmp_path)


def test_an_encrypted_node_opens_its_disk_when_it_is_told_how(
    for_curtin: Medium, tmp_path: Path, progress: Say
) -> None:
    """The hook has given it a crypttab, and an initramfs that asks."""
    request = for_curtin.request(tmp_path / "out", "node2", firmware="bios", kind="usb")
    with lab(replace(request, stall=QUIET), progress, None) as bench:
        bench.make_disks()
        with running(bench.install_machine(), bench.out, "install", clock=bench.clock, on_line=progress) as vm:
            assert seen(bench, vm, r"builder-installed (\S+) (\S+)").groups() == ("node2", for_curtin.todo.id)
            vm.wait_exit(bench.limits.leave)
        assert [kind for _, kind in disks.holder_partitions(bench.target_path)] == ["LUKS"]
        with running(bench.boot_machine(()), bench.out, "boot", clock=bench.clock, on_line=progress) as vm:
            answer(bench, vm, "unlock disk builder-crypt", PASSPHRASE)
            assert seen(bench, vm, r"builder-ready (\S+)")[1] == for_curtin.todo.id
    shutil.rmtree(tmp_path)


def answer(bench: Lab, vm: VM, question: str, text: str) -> None:
    """Type a line at the serial console when the unfinished line there asks for it."""
    typed = bench.scratch / "typed"
    os.mkfifo(typed)
    keyboard = os.open(typed, os.O_RDWR)  # both ends, or QEMU would wait for a writer
    assert vm.qmp is not None
    backend = {"out": str(vm.serial.path), "in": str(typed), "append": True}
    vm.qmp.execute("chardev-change", id="serial0", backend={"type": "file", "data": backend})
    until = bench.clock.now() + bench.limits.boot
    while question not in vm.serial.screen():
        assert bench.clock.now() < until and vm.ended() is None, vm.serial.screen()
        vm.serial.read()
        bench.clock.sleep(0.2)
    os.write(keyboard, text.encode() + b"\n")
    os.close(keyboard)


def curtin_files(checkout: Path) -> Iterator[File]:
    """curtin below the service that runs it, with what subiquity does around it."""
    here = livesystem.HERE
    yield File("/usr/lib/live/install.py", 0o644, (here / "install.py").read_bytes())
    for part in ("bin", "curtin", "helpers"):
        for path in sorted((checkout / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                mode = 0o755 if part != "curtin" else 0o644
                yield File(f"/usr/lib/live/curtin/{path.relative_to(checkout)}", mode, path.read_bytes())
