"""From a node of the manifest to a virtual machine, and the small pure parts around it."""

from __future__ import annotations

import re
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError, Exit
from builder.verify import console
from builder.verify.accel import parse_version, slowness, tcg, why_not_kvm
from builder.verify.bootsector import SIZE, boot_sector
from builder.verify.checks import checks_argv, parse_junit
from builder.verify.disks import GIB, MIB, Target, target_for
from builder.verify.request import BootTest, Limits, identity_for, node_of, target_of
from builder.verify.ssh import config_text

PLAN = "ab" * 32
STORAGE = {"esp": 256 * MIB, "root": None, "models": 0}


def test_identity_is_what_the_node_matches() -> None:
    identity = identity_for({"name": "n", "match": {"mac": "52:54:00:77:00:01", "serial": "PC1"}})
    assert (identity.mac, identity.serial, identity.uuid) == ("52:54:00:77:00:01", "PC1", None)
    made = identity_for({"name": "n", "match": {"uuid": "u"}})
    assert made.mac.startswith("52:54:00:")
    assert made == identity_for({"name": "n", "match": {"uuid": "u"}})


def test_an_unknown_node_names_the_known_ones() -> None:
    with pytest.raises(BuilderError) as caught:
        node_of({"nodes": [{"name": "node1"}, {"name": "node2"}]}, "node3")
    assert "node1, node2" in caught.value.hint


@pytest.mark.parametrize(
    ("selector", "storage", "models", "wanted"),
    [
        ({"largest": True}, STORAGE, 0, Target(8 * GIB)),
        ({"largest": True, "min_size": 20 * GIB}, STORAGE, 0, Target(20 * GIB)),
        ({"largest": True, "min_size": 8 * GIB + 1}, STORAGE, 0, Target(8 * GIB + MIB)),
        ({"serial": "S1"}, STORAGE, 0, Target(8 * GIB, serial="S1")),
        ({"wwn": "0x5002538e40a5b123"}, STORAGE, 0, Target(8 * GIB, bus="scsi", wwn=0x5002538E40A5B123)),
        ({"path": "/dev/disk/by-id/virtio-DISK*"}, STORAGE, 0, Target(8 * GIB, serial="DISKX")),
        (
            {"largest": True},
            {"esp": 256 * MIB, "root": 10 * GIB, "models": None},
            100 * MIB,
            Target(10 * GIB + (256 + 110 + 256 + 64) * MIB),
        ),
    ],
)
def test_target_disk(selector: dict[str, Any], storage: dict[str, Any], models: int, wanted: Target) -> None:
    assert target_for(selector, storage, models) == wanted


@pytest.mark.parametrize("selector", [{"wwn": "eui.zz"}, {"path": "nvme-*"}, {"path": "virtio-[ab]"}])
def test_a_disk_that_cannot_be_had(selector: dict[str, Any]) -> None:
    with pytest.raises(BuilderError) as caught:
        target_for(selector, STORAGE, 0)
    assert caught.value.code == Exit.SPEC


def test_target_counts_the_models_of_the_manifest() -> None:
    manifest = {
        "files": [{"path": "models/aa", "size": 40 * GIB}, {"path": "layers/node.squashfs", "size": 1}],
        "models": [{"name": "a.gguf", "path": "models/aa"}],
        "storage": {"esp": 256 * MIB, "root": 8 * GIB, "models": None},
    }
    assert target_of(manifest, {"name": "n", "disk": {"largest": True}}).size > 52 * GIB


def test_limits_scale() -> None:
    assert Limits(install=10).scaled(4).install == 40
    assert BootTest(Path("a"), Path("b"), "n", "dhcp", IPv4Network("10.0.0.0/24"), None).limits == Limits()


@pytest.mark.parametrize(
    ("flags", "device", "wanted"),
    [
        ("fpu sse2 vmx", True, None),
        ("fpu svm", True, None),
        ("fpu vmx", False, "does not exist"),
        ("fpu hypervisor", True, r"no svm or vmx flag \(.* exists, but"),
        ("fpu hypervisor", False, "no svm or vmx flag$"),
    ],
)
def test_cheap_look_at_kvm(tmp_path: Path, flags: str, device: bool, wanted: str | None) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t:\n")
    if device:
        (tmp_path / "kvm").touch()
    reason = why_not_kvm(tmp_path / "cpuinfo", tmp_path / "kvm")
    assert reason is None if wanted is None else reason is not None and re.search(wanted, reason)


def test_qemu_versions() -> None:
    assert parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright") == (10, 0)
    with pytest.raises(BuilderError):
        parse_version("hello")
    assert slowness(tcg("x"), (10, 0)) == (1.0, "")
    factor, warning = slowness(tcg("x"), (7, 2))
    assert factor == 4
    assert "four times slower" in warning


@pytest.mark.parametrize("then", ["exit", "halt", "reset"])
def test_a_boot_sector_is_512_bytes_with_its_mark(then: Any) -> None:
    sector = boot_sector(b"hello\r\n", then)
    assert len(sector) == SIZE
    assert sector.endswith(b"\x55\xaa")
    assert b"hello\r\n\0" in sector


def test_a_boot_sector_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="too long"):
        boot_sector(b"x" * 500, "halt")
    with pytest.raises(ValueError, match="zero byte"):
        boot_sector(b"a\0b", "halt")


def test_console_lines_are_not_taken_from_unit_names() -> None:
    assert console.READY.search(f"[  12.1] builder-ready {PLAN}")
    assert not console.READY.search("Starting builder-ready.service - says that the node is ready")
    assert not console.READY.search(f"builder-not-ready {PLAN}: x.service: failed")
    failed = console.FAILED.search("builder-failed disk: two disks of 8 GiB")
    assert failed is not None
    assert failed.groups() == ("disk", "two disks of 8 GiB")


def test_checks_command() -> None:
    argv = checks_argv([Path("/o/test_a.py")], Path("/r/ssh_config"), Path("/out"), 600)
    assert argv == [
        *("timeout", "--kill-after=30", "600", sys.executable, "-m", "pytest", "-q", "-c", "/out/pytest.ini"),
        *("--rootdir=/out", "-p", "no:cacheprovider", "--import-mode=importlib"),
        *("--hosts=ssh://root@node?timeout=60", "--ssh-config=/r/ssh_config"),
        *("--junitxml=/out/checks.xml", "/o/test_a.py"),
    ]


def test_outcomes_of_checks() -> None:
    document = b"""<testsuites><testsuite name="pytest">
      <testcase classname="site.test_node" name="test_a" time="1.5"/>
      <testcase classname="site.test_node" name="test_b"><failure message="m">text</failure></testcase>
      <testcase classname="site.test_node" name="test_c" time="0"><skipped message="no GPU"/></testcase>
      <testcase classname="" name="site.test_x" time="0"><error message="collection">e</error></testcase>
    </testsuite></testsuites>"""
    steps = parse_junit(document)
    assert [(step.name, step.outcome, step.reason) for step in steps] == [
        ("test_node::test_a", "passed", ""),
        ("test_node::test_b", "failed", "m"),
        ("test_node::test_c", "not run", "no GPU"),
        ("::site.test_x", "failed", "collection"),
    ]
    assert steps[0].seconds == 1.5


def test_ssh_configuration() -> None:
    text = config_text(43767, Path("/r/key"), Path("/r"))
    assert 'Host node\n    HostName 127.0.0.1\n    Port 43767\n    User root\n    IdentityFile "/r/key"' in text
    assert 'ControlPath "/r/control"' in text
