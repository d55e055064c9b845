"""Ubuntu's own installer over the network: firmware, dnsmasq, nginx, GRUB, cloud-init, curtin, and a fixture.

As in :mod:`tests.boot.test_liveserver`, casper and subiquity are stand-ins; the check of the memory, the seed from
the control service, the picker, curtin, the hook and the placing are what a machine would run.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.installer import pick
from builder.netboot import live, tree
from builder.netboot.tree import Tree
from builder.verify import console, disks
from builder.verify.accel import acceleration
from builder.verify.disks import GIB
from tests import netlab
from tests.boot.test_liveserver import Parts, curtin_sources, gather
from tests.boot.test_pxe import DISK, PATTERNS, Lab

pytestmark = pytest.mark.vm
RESERVED = 256  # MiB that the kernel keeps from what it counts as memory, and more
SHORT = 1024  # MiB


@dataclass(frozen=True)
class Built:
    parts: Parts
    tree: Tree
    out: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    sources = curtin_sources()
    netlab.require()
    folder = tmp_path_factory.mktemp("pxe-ubuntu")
    parts = gather(folder, *sources)
    ubuntu = live.Ubuntu(parts.base, parts.stack)
    made = tree.write(parts.todo, parts.kit, parts.content, folder / "out/quickstart/pxe", ubuntu)
    parts.base.unlink()
    yield Built(parts, made, folder / "out")
    shutil.rmtree(folder)


def test_curtin_installs_a_node_from_an_iso_that_came_over_http(
    built: Built, progress: Callable[[str], None]
) -> None:
    """By the firmware's own PXE with Secure Boot: first with too little memory, then with just enough."""
    document = json.loads(built.parts.todo.documents["node1"])
    assert built.tree.live is not None
    need = -(-built.tree.live.memory >> 20)
    with tempfile.TemporaryDirectory(prefix="builder-pxe-") as name, netlab.network() as net:
        accel = replace(acceleration(), stall=900.0)  # rsync says nothing while it copies a whole system
        lab = Lab(net, net.tap(), built.parts.spec, built.out, Path(name), accel, progress)
        disks.make_blank(lab.disk, 8 * GIB)
        before = disks.digest(lab.disk)
        log = lab.folder / "serve.log"
        with netlab.serve(net, lab.spec, lab.out, "--dhcp", "full", log=log):
            lab.order()
            with lab.start(lab.machine("secure-boot", memory=SHORT), "short") as vm:
                seen = lab.wait(vm, PATTERNS)
                assert re.match(
                    rf"builder-failed memory: .* has \d+ MiB of memory, and {need} MiB", seen.match.group(0)
                )
                vm.serial.wait_for({"nothing": re.compile("Nothing was written to any disk")}, stall=60, limit=60)
                row = netlab.row(net, lab.spec, lab.out, "node1")
                assert (row["health"], row["phase"]) == ("failed", "memory")
            assert not lab.requests(built.tree.live.iso) and disks.digest(lab.disk) == before

            with lab.start(lab.machine("secure-boot", memory=need + RESERVED), "install") as vm:

                def shown(pattern: str) -> re.Match[str]:
                    patterns = {"shown": re.compile(pattern), "error": re.compile("live-error: .*")}
                    found = lab.wait(vm, {**patterns, "failed": console.FAILED})
                    assert found.name == "shown", f"{found.match.group(0)}\n{vm.serial.screen(60)}"
                    return found.match

                shown(rf"builder: memory: \d+ MiB, and {need} MiB are needed")
                words = shown("live-cmdline: (.*)")[1].split()
                (order,) = (word.partition("=")[2] for word in words if word.startswith("builder.order="))
                seed = f"http://{netlab.ADDRESS}:8481/v1/seed/{order}/"
                assert f"ds=nocloud;s={seed}" in words and words[-1] == "panic=60"
                result = json.loads(shown("live-cloud-init: (.*)")[1])
                assert result["datasource"].startswith(f"DataSourceNoCloudNet [seed=cmdline,{seed}]"), result
                assert shown(r"live-source: (.*)")[1].strip() == "/run/subiquity/cloud.autoinstall.yaml"
                assert shown(r"builder-picked (\S+) (\S+)").groups() == ("node1", built.parts.todo.id)
                assert json.loads(shown("live-document: (.*)")[1]) == pick.finish(document, "/dev/vda", uefi=True)
                row = netlab.row(net, lab.spec, lab.out, "node1")
                assert (row["health"], row["phase"]) == ("working", "ubuntu")
                lab.installed(vm)
            (iso,) = lab.requests(built.tree.live.iso)
            assert iso[1] == (built.tree.boot / built.tree.live.iso).stat().st_size
            assert lab.requests("/models/")
            with lab.start(lab.machine("secure-boot"), "disk") as vm:
                assert lab.wait(vm, DISK).name == "disk", vm.serial.screen()
