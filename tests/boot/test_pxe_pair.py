"""Two nodes installed at once from one server, and a node whose report got lost. BUILDER_PAIRS asks for it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from builder.verify import disks
from builder.verify.accel import acceleration
from builder.verify.disks import GIB
from builder.verify.machine import Machine
from tests import netlab
from tests.boot.test_pxe import HTTP_ONLY, MAC, MODEL, PATTERNS, Lab, make_tree

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif("BUILDER_PAIRS" not in os.environ, reason="BUILDER_PAIRS is not set: it takes 5 minutes"),
]


def test_two_nodes_at_once_and_one_that_the_server_did_not_hear_of(
    tmp_path: Path, progress: Callable[[str], None]
) -> None:
    """One for BIOS, by iPXE; the other's UEFI boots over HTTP."""
    netlab.require()
    spec, out = make_tree(tmp_path, MODEL)
    state = out / "quickstart/serve/state.json"
    with tempfile.TemporaryDirectory(prefix="builder-pxe-") as name, netlab.network() as net:
        folder = Path(name)
        one = Lab(net, net.tap(), spec, out, folder / "1", acceleration(), progress)
        two = replace(one, tap=net.tap(), folder=folder / "2", node="node2", mac=MAC[:-1] + "2")
        for lab in (one, two):
            lab.folder.mkdir()
            disks.make_blank(lab.disk, 8 * GIB)

        machines = one.machine(cpus=1), two.machine("uefi", cpus=1, settings=HTTP_ONLY)

        def install(lab: Lab, machine: Machine) -> None:
            with lab.start(machine, lab.node) as vm:
                lab.installed(vm)

        with netlab.serve(net, spec, out, "--dhcp", "full", log=folder / "serve.log"):
            net.builder("reinstall", spec, "--all", "--out", out)
            with ThreadPoolExecutor(2) as both:
                ordered = state.read_bytes()
                list(both.map(install, (one, two), machines))
            # Both were served whole: neither took the other's bytes for its own.
            assert sum(size for _, size in one.requests("/models/")) >= 2 * MODEL

        # As if the report had never arrived: the server knows the order, and the disk that it was carried out.
        state.write_bytes(ordered)
        before = disks.digest(one.disk)
        with netlab.serve(net, spec, out, "--dhcp", "full", log=folder / "serve.log"):
            assert netlab.row(net, spec, out, "node1")["health"] == "waiting"
            with one.start(one.machine(), "again") as vm:
                seen = one.wait(vm, PATTERNS)
                assert seen.name == "builder-installed", vm.serial.screen()
                assert "was complete before, and is not made twice" in vm.serial.screen(60)
                assert vm.wait_exit(240) == "guest-reset"
            assert netlab.row(net, spec, out, "node1")["health"] == "installed"
            assert netlab.row(net, spec, out, "node2")["health"] == "waiting"
        assert disks.digest(one.disk) == before
    shutil.rmtree(tmp_path)
