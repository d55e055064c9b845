"""An install over the network against the same install from a medium, in the same virtual machine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.figure import Figure
from builder.console import say
from builder.run import run
from builder.verify import disks
from builder.verify.accel import acceleration
from builder.verify.disks import GIB
from builder.verify.machine import Machine, Medium
from tests import netlab
from tests.boot.test_pxe import PATTERNS, Lab, make_tree

MODEL = 512 << 20  # bytes
MEMORY = 2048  # MiB: the layers are held in memory, as on a real machine


def network(folder: Path) -> Iterator[Figure]:
    """From the installer's first line to its last, by HTTP and from an ISO in an optical drive."""
    spec, out = make_tree(folder / "network", MODEL, "1G")
    run([netlab.BUILDER, "iso", spec, "--out", out], step="building the medium")
    with tempfile.TemporaryDirectory(prefix="builder-pxe-") as name, netlab.network() as net:
        lab = Lab(net, net.tap(), spec, out, Path(name), acceleration(), say)
        machine = lab.machine(memory=MEMORY)
        assert machine.nic is not None
        from_medium = replace(
            machine, nic=replace(machine.nic, bootindex=None), medium=Medium(out / "quickstart/quickstart.iso")
        )
        with netlab.serve(net, spec, out, "--dhcp", "full", log=lab.folder / "serve.log"):
            lab.order()
            took = _install(lab, machine, "network")
        reference = _install(lab, from_medium, "medium")
    what = f"install over HTTP, {MODEL >> 20} MiB of models"
    yield Figure(what, took, "the same from an ISO", reference, "1.5 times", 1.5 * reference)


def _install(lab: Lab, machine: Machine, label: str) -> float:
    disks.make_blank(lab.disk, 8 * GIB)
    with lab.start(machine, label) as vm:
        seen = lab.wait(vm, PATTERNS)
        assert seen.name == "builder-installed", vm.serial.screen()
        began = next(line.at for line in vm.serial.lines if line.text.startswith("builder: start: "))
        ended = seen.line.at
        assert vm.wait_exit(240) == "guest-reset"
    return ended - began
