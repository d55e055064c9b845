"""Checks of the gpu layer on a booted node, over ssh by testinfra. A virtual machine has no card."""

import json
import os
from pathlib import Path

import pytest

FACTS = json.loads(Path(os.environ["BUILDER_NODE_FACTS"]).read_text())
GPU = FACTS["gpu"]
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset")


def proof(host):
    return json.loads(host.run("/usr/lib/builder/gpu/proof --card").stdout)


def has_card(host):
    return host.run("grep -qsx 0x10de /sys/bus/pci/devices/*/vendor").rc == 0


def test_the_stack_passes_its_proof(host):
    results = proof(host)
    assert [one for one in results if one["state"] == "problem"] == []
    assert sum(one["state"] == "ok" for one in results) >= 12


def test_the_card_is_the_spec_s(host):
    if not has_card(host):
        pytest.skip("not run: no GPU in this machine")
    assert [one for one in proof(host) if one["state"] != "ok"] == []


def test_the_node_knows_its_gpus(host):
    assert json.loads(host.file("/etc/builder/gpu.json").content_string) == GPU


def test_the_running_kernel_takes_the_modules(host):
    """The kernel links the module and runs its start, which ends with "no such device" where there is no card."""
    if has_card(host):
        assert host.file("/proc/driver/nvidia/version").exists
        return
    tried = host.run("modprobe nvidia")
    assert tried.rc != 0
    assert "No such device" in tried.stderr
    # Its own words in the kernel's log: it was loaded and looked for cards.
    assert "NVRM: No NVIDIA" in host.check_output("dmesg")


def test_nouveau_is_not_loaded(host):
    assert "nouveau" not in host.check_output("lsmod")
    assert host.run("modprobe nouveau").rc != 0


def test_persistenced_is_on_and_has_not_failed(host):
    wanted = host.check_output("systemctl show --property Wants --value multi-user.target")
    assert "nvidia-persistenced.service" in wanted.split()
    state = host.check_output("systemctl show --property ActiveState,Result nvidia-persistenced")
    assert "ActiveState=failed" not in state
    if not has_card(host):
        assert "ActiveState=inactive" in state


def test_no_upgrade_parts_kernel_and_driver(host):
    held = host.check_output("apt-mark showhold").split()
    assert f"linux-image-{host.check_output('uname -r')}" in held
    assert any("nvidia" in name for name in held)
    planned = host.check_output("apt-get --simulate --no-download upgrade 2>/dev/null || true")
    assert "Inst linux-image" not in planned


def test_nothing_that_compiles_was_left_behind(host):
    if GPU["install"] == "toolkit":
        pytest.skip("not run: the spec asks for a compiler")
    for program in ("gcc", "make", "dkms", "ld"):
        assert not host.exists(program)
    assert host.run("ls -d /usr/src/linux-headers-* /usr/src/nvidia-*").rc != 0


def test_secure_boot_would_take_them_or_the_spec_does_not_ask(host):
    for module in MODULES:
        signer = host.run(f"modinfo --field signer {module}").stdout.strip()
        assert bool(signer) == (GPU["signed"] != "nobody")
