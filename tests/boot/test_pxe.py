"""Installing over the network: real firmware, dnsmasq, nginx and installer, in a network of their own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.run import run
from builder.verify import console, disks
from builder.verify.accel import Acceleration, acceleration, qemu_version, slowness
from builder.verify.clock import RealClock
from builder.verify.disks import GIB, Target
from builder.verify.firmware import FirmwareKind, with_own_variables
from builder.verify.machine import Machine, Nic, Serial, Tap
from builder.verify.serial import Seen
from builder.verify.vm import VM, running
from tests import netlab
from tests.boot.conftest import ROOT
from tests.netlab import BUILDER, Net

pytestmark = pytest.mark.vm
Say = Callable[[str], None]
MAC = "52:54:00:77:00:01"
MODEL = 48 << 20  # bytes
MEMORY = 1024  # MiB: less than what the installer reads, and the least that is promised
PATTERNS = {"builder-installed": console.INSTALLED, "builder-failed": console.FAILED}
DISK = {
    "disk": re.compile(r"Command line: .*root=UUID="),
    "installer": re.compile(r"Command line: .*boot=builder"),
}
# OVMF's own settings (OvmfPkg, README, "NETWORK"): leave it nothing but booting over HTTP.
HTTP_ONLY = (("opt/org.tianocore/IPv4PXESupport", "no"), ("opt/org.tianocore/IPv6PXESupport", "no"))


@dataclass
class Lab:
    """A tree that was built, and the network that it is served in."""

    net: Net
    tap: Tap
    spec: Path
    out: Path
    folder: Path
    accel: Acceleration
    say: Say
    node: str = "node1"
    mac: str = MAC

    @property
    def disk(self) -> Path:
        return self.folder / "disk.raw"

    @property
    def tree(self) -> Path:
        return self.out / "quickstart/pxe"

    def machine(self, firmware: FirmwareKind = "bios", **others: object) -> Machine:
        made = Machine(
            name=f"builder-pxe-{self.node}",
            accel=self.accel.accel,
            cpu=self.accel.cpu,
            serial=Serial(self.folder / "serial.log"),
            qmp=self.folder / "qmp",
            firmware=firmware,
            flash=with_own_variables(firmware, self.folder),
            memory=MEMORY,
            disks=(Target(8 * GIB).disk(self.disk, 1),),
            nic=Nic(self.mac, self.tap, bootindex=0),
        )
        return replace(made, **others)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def start(self, machine: Machine, label: str) -> Iterator[VM]:
        def show(line: str) -> None:
            if console.worth_saying(line):
                self.say(f"  {line.strip()}")

        clock = RealClock()
        with running(machine, self.folder, label, clock=clock, on_line=show, screenshots=False) as vm:
            yield vm

    def wait(self, vm: VM, patterns: dict[str, re.Pattern[str]], limit: float = 1200) -> Seen:
        factor, _ = slowness(self.accel, qemu_version())
        return vm.serial.wait_for(patterns, stall=self.accel.stall * factor, limit=limit * factor)

    def order(self) -> None:
        self.net.builder("reinstall", self.spec, self.node, "--out", self.out)

    def installed(self, vm: VM) -> None:
        seen = self.wait(vm, PATTERNS)
        assert seen.name == "builder-installed", vm.serial.screen()
        assert vm.wait_exit(240) == "guest-reset"
        disks.check_clean(self.disk)
        row = netlab.row(self.net, self.spec, self.out, self.node)
        assert (row["health"], row["phase"]) == ("installed", "installed")

    def requests(self, what: str) -> list[tuple[str, int]]:
        """Path and bytes of what nginx sent, where the path holds ``what``."""
        log = (self.out / "quickstart/serve/access.log").read_text()
        found = re.findall(r'"GET (\S+) [^"]*" \d+ (\d+)', log)
        return [(path, int(size)) for path, size in found if what in path]


def make_tree(folder: Path, model: int, size: str = "256M") -> tuple[Path, Path]:
    """The quickstart with a model of ``model`` bytes, which is kept: the spec and the folder of its artifacts."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "examples/models/big.bin").write_bytes(os.urandom(model))
    spec = folder / "examples/quickstart.yaml"
    text = re.sub(r"models:\n(  .*\n)+", "models:\n  - {name: big.bin, path: models/big.bin}\n", spec.read_text())
    spec.write_text(text.replace("storage:\n", f"storage:\n  models: {{size: {size}, keep: true}}\n"))
    run([BUILDER, "pxe", spec, "--out", folder / "out"], step="building the tree")
    return spec, folder / "out"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    netlab.require()
    return make_tree(tmp_path_factory.mktemp("pxe"), MODEL)


@pytest.fixture
def lab(built: tuple[Path, Path], progress: Say) -> Iterator[Lab]:
    spec, out = built
    with tempfile.TemporaryDirectory(prefix="builder-pxe-") as name, netlab.network() as net:
        made = Lab(net, net.tap(), spec, out, Path(name), acceleration(), progress)
        disks.make_blank(made.disk, 8 * GIB)
        yield made


def test_a_node_is_installed_over_the_network_once_and_keeps_its_models(lab: Lab) -> None:
    """BIOS by QEMU's iPXE beside a router that gives the addresses, and the server is killed meanwhile; then its
    disk; then UEFI with Secure Boot."""
    log = lab.folder / "serve.log"
    with netlab.dhcp(lab.net, lab.folder), netlab.serve(lab.net, lab.spec, lab.out, log=log) as server:
        lab.order()
        with lab.start(lab.machine(), "install") as vm:
            lab.wait(vm, {"fetch": re.compile(r"builder: fetch: \d+ %"), **PATTERNS})
            server.kill()
            with netlab.serve(lab.net, lab.spec, lab.out, log=log):
                lab.installed(vm)
    with netlab.serve(lab.net, lab.spec, lab.out, "--dhcp", "full", log=log):
        with lab.start(lab.machine(), "disk") as vm:
            assert lab.wait(vm, DISK).name == "disk", vm.serial.screen()
        before = lab.requests("/models/")
        assert sum(size for _, size in before) >= MODEL
        lab.order()
        with lab.start(lab.machine("secure-boot"), "again") as vm:
            lab.installed(vm)
        after = lab.requests("/models/")[len(before) :]
        assert sum(size for _, size in after) < 100, after  # asked for, to see that it is there, and not sent
        assert disks.read_file(lab.disk, "/usr/share/builder/manifest.json", lab.folder / "manifest.json")
        with lab.start(lab.machine("secure-boot"), "disk-again") as vm:
            assert lab.wait(vm, DISK).name == "disk", vm.serial.screen()


def test_a_changed_byte_is_refused_and_no_disk_is_written(lab: Lab) -> None:
    """UEFI, booted over HTTP."""
    layer = lab.tree / "builder/layers/node.squashfs"
    whole = layer.read_bytes()
    layer.unlink()  # it is another name of the cache's file
    layer.write_bytes(whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:])
    try:
        before = disks.digest(lab.disk)
        with netlab.serve(lab.net, lab.spec, lab.out, "--dhcp", "full", log=lab.folder / "serve.log"):
            lab.order()
            with lab.start(lab.machine("uefi", settings=HTTP_ONLY), "refused") as vm:
                seen = lab.wait(vm, PATTERNS)
                assert seen.match.group(0).startswith("builder-failed verify: layers/node.squashfs is damaged")
                vm.serial.wait_for({"nothing": re.compile("Nothing was written to any disk")}, stall=60, limit=60)
                row = netlab.row(lab.net, lab.spec, lab.out, "node1")
                assert row["health"] == "failed" and "node.squashfs is damaged" in row["note"]
        assert disks.digest(lab.disk) == before
    finally:
        layer.write_bytes(whole)
