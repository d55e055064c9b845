"""The main promise, on real packages in real virtual machines: one medium, installed nodes, no wrong disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.run import run
from builder.verify import console, disks
from builder.verify.boottest import boot_test, expect_failure
from builder.verify.disks import GIB, Target
from builder.verify.firmware import FirmwareKind
from builder.verify.lab import lab
from builder.verify.machine import DirectKernel, MediumKind
from builder.verify.report import Report
from builder.verify.request import BootTest, Identity
from builder.verify.vm import running
from tests.boot.conftest import Medium

pytestmark = pytest.mark.vm
Say = Callable[[str], None]


def require_passed(report: Report) -> None:
    assert report.passed, report.summary()


@pytest.mark.parametrize(
    ("node", "firmware", "kind"),
    [("node1", "secure-boot", "cdrom"), ("node2", "bios", "usb")],
    ids=["uefi", "bios"],
)
def test_a_node_installs_boots_and_passes_its_checks(
    medium: Medium, tmp_path: Path, progress: Say, node: str, firmware: FirmwareKind, kind: MediumKind
) -> None:
    request = medium.request(tmp_path / "out", node, firmware=firmware, medium=kind)
    require_passed(boot_test(replace(request, keep_disks=True), progress))
    assert (tmp_path / "out/junit.xml").exists()

    the_stick_was_left_in(request, tmp_path, progress)
    if firmware == "bios":
        it_is_installed_again(medium, request, tmp_path, progress)
    shutil.rmtree(tmp_path)


def the_stick_was_left_in(request: BootTest, tmp_path: Path, progress: Say) -> None:
    """The same machine, powered on again with the medium, must boot its disk and not install a second time."""
    again = replace(request, out=tmp_path / "again", content=tmp_path / "out/disks/target.raw")
    with lab(again, progress, None) as bench:
        bench.make_disks()
        with running(bench.install_machine(), bench.out, "again", clock=bench.clock, on_line=progress) as vm:
            patterns = {
                "disk": re.compile(r"Command line: .*root=UUID="),
                "installer": re.compile(r"Command line: .*boot=builder"),
            }
            seen = vm.serial.wait_for(patterns, stall=bench.stall, limit=bench.limits.boot)
            assert seen.name == "disk", vm.serial.screen()


def it_is_installed_again(medium: Medium, request: BootTest, tmp_path: Path, progress: Say) -> None:
    """A person chooses to reinstall: the disk is full of our own partitions, and they go without a question."""
    boot = tmp_path / "boot"
    argv: list[str | Path] = ["xorriso", "-osirrox", "on", "-indev", medium.iso, "-extract", "/boot", boot]
    run(argv, step="taking the kernel and the installer out of the medium")
    arguments = "boot=builder builder.mode=install console=tty0 console=ttyS0,115200"
    kernel = DirectKernel(boot / "vmlinuz", boot / "initramfs.img", arguments)
    content = tmp_path / "out/disks/target.raw"
    with lab(replace(request, out=tmp_path / "anew", content=content, direct=kernel), progress, None) as bench:
        bench.make_disks()
        with running(bench.install_machine(), bench.out, "anew", clock=bench.clock, on_line=progress) as vm:
            patterns = {"installed": console.INSTALLED, "failed": console.FAILED}
            seen = vm.serial.wait_for(patterns, stall=bench.stall, limit=bench.limits.install)
            assert seen.name == "installed", vm.serial.screen()
            assert vm.wait_exit(bench.limits.leave) == "guest-reset"
        disks.check_clean(bench.target_path)


REFUSALS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown machine": ({"identity": Identity("52:54:00:99:99:99")}, "node", "52:54:00:99:99:99"),
    "two largest disks": ({"more_disks": (Target(8 * GIB, serial="TWIN"),)}, "disk", "TWIN"),
    "disk too small": ({"target": Target(2 * GIB)}, "disk", "2.0 GiB"),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_the_installer_refuses_and_writes_nothing(
    medium: Medium, tmp_path: Path, progress: Say, case: str
) -> None:
    change, phase, text = REFUSALS[case]
    report = expect_failure(replace(medium.request(tmp_path / "out"), **change), phase, "", progress)
    require_passed(report)
    # What a person needs is on the screen: why, and the machine's identifiers and disks as YAML to paste.
    (refusal,) = (step for step in report.steps if "builder-failed" in step.evidence)
    for wanted in (text, "match:", "mac:", "disk:"):
        assert wanted in refusal.evidence


def test_somebody_s_disk_is_not_taken(medium: Medium, tmp_path: Path, progress: Say) -> None:
    """`largest` without `overwrite`: a disk with a file system on it is refused, not wiped."""
    content = tmp_path / "windows.raw"
    with content.open("wb") as file:
        file.truncate(8 * GIB)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "photos", content], step="making somebody's disk")
    report = expect_failure(replace(medium.request(tmp_path / "out"), content=content), "disk", "photos", progress)
    require_passed(report)


def test_a_damaged_payload_is_not_installed(medium: Medium, tmp_path: Path, progress: Say) -> None:
    damaged = tmp_path / "damaged.iso"
    shutil.copyfile(medium.iso, damaged)
    argv: list[str | Path] = ["xorriso", "-indev", damaged, "-find", "/builder/layers/node.squashfs"]
    done = run([*argv, "-exec", "report_lba"], step="finding the layer")
    place = re.search(r"data lba: *\d+ , *(\d+) , *\d+ , *(\d+)", done.stdout)
    assert place, done.stdout
    middle = int(place[1]) * 2048 + int(place[2]) // 2
    with damaged.open("r+b") as file:
        file.seek(middle)
        (byte,) = file.read(1)
        file.seek(middle)
        file.write(bytes([byte ^ 1]))
    request = replace(medium.request(tmp_path / "out"), iso=damaged)
    require_passed(expect_failure(request, "verify", "layers/node.squashfs is damaged", progress))
