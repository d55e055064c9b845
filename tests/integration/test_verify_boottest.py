"""The recipes from end to end with a real QEMU, where boot sectors play the installer and the node.

What needs a whole Linux (credentials, ssh, cloud-init) is proven by the boot test of a real medium.
"""

from __future__ import annotations

import dataclasses
import json
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError, Exit
from builder.run import run, which
from builder.verify import boottest
from builder.verify.bootsector import boot_sector, bootable
from builder.verify.boottest import boot_test, expect_failure
from builder.verify.disks import GIB, MIB, make_blank
from builder.verify.machine import QEMU
from builder.verify.report import Report
from builder.verify.request import BootTest, Limits, read_manifest

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(
        not all(map(which, (QEMU, "mke2fs", "sfdisk", "ssh", "ssh-keygen"))), reason="a tool is not installed"
    ),
]
PLAN = "0123456789abcdef" * 4
MANIFEST: dict[str, Any] = {
    "format": 1,
    "cluster": "quickstart",
    "plan": PLAN,
    "files": [],
    "models": [],
    "nodes": [{"name": "node1", "match": {"mac": "52:54:00:77:00:01"}, "disk": {"largest": True}}],
    "storage": {"esp": 256 * MIB, "root": None, "models": 0},
    "after": "reboot",
}
SHORT = Limits(install=60, leave=5, boot=60, ssh=1, cloud_init=1, checks=1, power_off=1)


def request_for(folder: Path, said: str, then: Any) -> BootTest:
    """A "medium" that says one thing and leaves, as a plain disk."""
    iso = folder / "medium.iso"
    iso.write_bytes(bootable(boot_sector(said.encode() + b"\r\n", then)))
    return BootTest(
        iso=iso,
        out=folder / "out",
        node="node1",
        address=IPv4Address("10.77.0.11"),
        subnet=IPv4Network("10.77.0.0/24"),
        gateway=IPv4Address("10.77.0.1"),
        manifest=MANIFEST,
        medium="disk",
        memory=64,
        stall=5,
        limits=SHORT,
    )


def installed_disk(folder: Path, said: str) -> Path:
    """A disk as an installer leaves it: GPT, clean ext4, and a boot sector that says one line and halts."""
    path = folder / "content.raw"
    make_blank(path, 1 * GIB)
    run(["sfdisk", "-q", path], step="partitioning", stdin="label: gpt\nstart=2MiB, size=64MiB, name=root\n")
    argv: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={2 * MIB}", path, "64M"]
    run(argv, step="making root")
    with path.open("r+b") as file:
        file.write(boot_sector(said.encode() + b"\r\n", "halt")[:440])  # the partition table starts after it
    return path


def outcomes(report: Report) -> dict[str, str]:
    return {step.name: step.outcome for step in report.steps}


def reason(report: Report, name: str) -> str:
    return next(step.reason for step in report.steps if step.name == name)


def test_a_refusal_is_proven_and_no_disk_written(tmp_path: Path) -> None:
    request = request_for(tmp_path, "builder-failed disk: two disks of 8 GiB\r\ndisks:\r\n- serial: A", "halt")
    report = expect_failure(request, "disk", "two disks")
    assert report.passed, report.summary()
    assert "- serial: A" in report.steps[1].evidence
    assert json.loads((tmp_path / "out/report.json").read_text())["passed"] is True
    assert not (tmp_path / "out/disks").exists()


def test_another_refusal_is_a_failure(tmp_path: Path) -> None:
    request = request_for(tmp_path, "builder-failed node: no match", "halt")
    report = expect_failure(request, "disk", "two disks")
    assert not report.passed
    assert "it said: builder-failed node: no match" in reason(report, boottest.REFUSES)
    assert outcomes(report)[boottest.NOTHING_WRITTEN] == "passed"


def test_an_install_where_a_refusal_was_due_is_a_failure(tmp_path: Path) -> None:
    report = expect_failure(request_for(tmp_path, f"builder-installed node1 {PLAN}", "reset"), "disk", "two")
    assert "had to refuse" in reason(report, boottest.REFUSES)


def test_installed_with_a_blank_disk_is_a_failure(tmp_path: Path) -> None:
    report = boot_test(request_for(tmp_path, f"builder-installed node1 {PLAN}", "reset"))
    assert outcomes(report) == {
        boottest.DISKS: "passed",
        boottest.INSTALL: "passed",
        boottest.LEAVES: "passed",
        boottest.CLEAN: "failed",
        boottest.BOOT: "not run",
        boottest.SSH: "not run",
        boottest.CLOUD_INIT: "not run",
        boottest.CHECKS: "not run",
        boottest.OFF: "not run",
        boottest.UNTOUCHED: "passed",
    }
    assert (tmp_path / "out/disks/target.raw").exists(), "the disks of a failed test are kept"


def test_silence_after_installed_is_no_exit(tmp_path: Path) -> None:
    report = boot_test(request_for(tmp_path, f"builder-installed node1 {PLAN}", "halt"))
    assert "still runs" in reason(report, boottest.LEAVES)
    assert (report.files or {})["screen when the install failed"] == "screen-install.png"


def test_the_wrong_node_or_plan_is_a_failure(tmp_path: Path) -> None:
    report = boot_test(request_for(tmp_path, f"builder-installed node2 {PLAN}", "reset"))
    assert "node2" in reason(report, boottest.INSTALL)


def test_a_stall_shows_the_last_screen(tmp_path: Path) -> None:
    said: list[str] = []
    report = boot_test(request_for(tmp_path, "builder: unpack: node.squashfs", "halt"), said.append)
    assert "stalled" in reason(report, boottest.INSTALL)
    assert report.last_screen == "builder: unpack: node.squashfs"
    assert "  builder: unpack: node.squashfs" in said
    assert "install unpack" in [timing.phase for timing in report.timings]


def test_the_node_boots_without_the_medium_and_silence_on_ssh_is_a_failure(tmp_path: Path) -> None:
    request = request_for(tmp_path, f"builder-installed node1 {PLAN}", "reset")
    content = installed_disk(tmp_path, f"builder-ready {PLAN}")
    report = boot_test(dataclasses.replace(request, content=content))
    done = outcomes(report)
    assert [done[name] for name in (boottest.CLEAN, boottest.BOOT)] == ["passed", "passed"], report.summary()
    assert "ssh did not get through" in reason(report, boottest.SSH)
    assert done[boottest.UNTOUCHED] == "passed"
    assert report.files is not None
    assert report.files["serial log of the first boot"] == "serial-boot.log"


def test_a_node_that_is_not_ready_says_why(tmp_path: Path) -> None:
    request = request_for(tmp_path, f"builder-installed node1 {PLAN}", "reset")
    content = installed_disk(tmp_path, f"builder-not-ready {PLAN}: models.service: digest; x.service: y")
    report = boot_test(dataclasses.replace(request, content=content))
    assert reason(report, boottest.BOOT) == "the node is not ready: models.service: digest; x.service: y"


def test_a_node_of_another_plan_is_a_failure(tmp_path: Path) -> None:
    request = request_for(tmp_path, f"builder-installed node1 {PLAN}", "reset")
    content = installed_disk(tmp_path, f"builder-ready {'f' * 64}")
    report = boot_test(dataclasses.replace(request, content=content))
    assert "carries plan ffff" in reason(report, boottest.BOOT)


@pytest.mark.skipif(which("xorriso") is None, reason="xorriso is not installed")
def test_the_manifest_is_read_out_of_the_medium(tmp_path: Path) -> None:
    (tmp_path / "tree/builder").mkdir(parents=True)
    (tmp_path / "tree/builder/manifest.json").write_text(json.dumps(MANIFEST))
    iso = tmp_path / "a.iso"
    run(["xorriso", "-as", "mkisofs", "-o", iso, tmp_path / "tree"], step="making a medium")
    assert read_manifest(iso) == MANIFEST
    with pytest.raises(BuilderError) as caught:
        read_manifest(tmp_path / "none.iso")
    assert caught.value.code == Exit.MEDIUM
