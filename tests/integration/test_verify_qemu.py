"""The watching code against a real QEMU: guests of one sector, emulated, with SeaBIOS."""

from __future__ import annotations

import dataclasses
import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from builder.run import which
from builder.verify.accel import KVM, KVM_CPU, TCG, TCG_CPU, acceleration, probe, why_not_kvm
from builder.verify.bootsector import EXIT_STATUS, boot_sector, bootable
from builder.verify.clock import RealClock
from builder.verify.disks import MIB, make_blank
from builder.verify.firmware import PLACES, FirmwareKind, with_own_variables
from builder.verify.machine import QEMU, Disk, DiskBus, Machine, Medium, MediumKind, Nic, Serial
from builder.verify.network import plan_network
from builder.verify.report import StepFailed
from builder.verify.vm import RESETS, running

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(which(QEMU) is None, reason=f"{QEMU} is not installed"),
]
READY = {"ready": re.compile(r"guest-ready (\d+)")}


def machine_for(folder: Path, sector: bytes) -> Machine:
    (folder / "disk.raw").write_bytes(bootable(sector))
    return Machine(
        name="test",
        accel=TCG,
        cpu=TCG_CPU,
        serial=Serial(folder / "serial.log"),
        qmp=folder / "qmp",
        memory=64,
        cpus=1,
        disks=(Disk(folder / "disk.raw", "T", bootindex=0),),
        debug_exit=True,
    )


def test_a_guest_that_speaks_is_heard_and_its_screen_seen(tmp_path: Path) -> None:
    machine = machine_for(tmp_path, boot_sector(b"guest-ready 42\r\n", "halt"))
    with running(machine, tmp_path, "t", clock=RealClock()) as vm:
        assert vm.serial.wait_for(READY, stall=30, limit=60).match.group(1) == "42"
        assert vm.qmp is not None
        assert vm.qmp.status() == "running"
        vm.qmp.screendump(tmp_path / "screen.png")
    assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert vm.ended() == "QEMU exited 0"


def test_a_guest_that_falls_silent_is_a_stall(tmp_path: Path) -> None:
    machine = machine_for(tmp_path, boot_sector(b"loading\r\nunpacking the la", "halt"))
    with (
        pytest.raises(StepFailed) as caught,
        running(machine, tmp_path, "t", clock=RealClock()) as vm,
    ):
        vm.serial.wait_for(READY, stall=3, limit=60)
    assert caught.value.reason == "stalled: no output on the serial port for 3 s, waiting for ready"
    assert caught.value.evidence.splitlines()[-2:] == ["loading", "unpacking the la"]
    assert (tmp_path / "screen-t.png").read_bytes().startswith(b"\x89PNG")
    assert vm.ended() == "QEMU exited 0", "it was asked to quit, not killed"


def test_a_guest_that_leaves_early_is_told_at_once(tmp_path: Path) -> None:
    machine = machine_for(tmp_path, boot_sector(b"bye\r\n", "exit"))
    with (
        pytest.raises(StepFailed) as caught,
        running(machine, tmp_path, "t", clock=RealClock()) as vm,
    ):
        vm.serial.wait_for(READY, stall=60, limit=60)
    assert caught.value.reason == f"QEMU exited {EXIT_STATUS} before ready was seen"
    assert caught.value.evidence == "bye"


def test_a_qemu_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    machine = machine_for(tmp_path, boot_sector(b"x", "halt"))
    (tmp_path / "disk.raw").unlink()
    with (
        pytest.raises(StepFailed, match=r"QEMU exited 1 \(.*Could not open .*disk\.raw") as caught,
        running(machine, tmp_path, "t", clock=RealClock()) as vm,
    ):
        vm.serial.wait_for(READY, stall=60, limit=60)
    assert caught.value.evidence == ""


def test_a_reset_ends_a_machine_that_may_not_reboot(tmp_path: Path) -> None:
    machine = machine_for(tmp_path, boot_sector(b"guest-ready 1\r\n", "reset"))
    with running(machine, tmp_path, "t", clock=RealClock()) as vm:
        vm.serial.wait_for(READY, stall=30, limit=60)
        assert vm.wait_exit(30) == "guest-reset"


def test_a_kernel_that_a_busy_host_starved_is_started_again(tmp_path: Path) -> None:
    """The sector says so at every start, so each reset is seen; after them the machine still may not reboot."""
    panic = b"Kernel panic - not syncing: IO-APIC + timer doesn't work!\r\n"
    said: list[str] = []
    machine = machine_for(tmp_path, boot_sector(panic, "halt"))
    with (
        pytest.raises(StepFailed, match="stalled"),
        running(machine, tmp_path, "t", clock=RealClock(), on_line=said.append) as vm,
    ):
        vm.serial.wait_for(READY, stall=8, limit=120)
    assert [line.startswith("Kernel panic") for line in said if "timer" in line] == [True, False] * RESETS + [True]


def test_a_machine_that_stays_is_no_exit(tmp_path: Path) -> None:
    machine = machine_for(tmp_path, boot_sector(b"guest-ready 1\r\n", "halt"))
    with (
        pytest.raises(StepFailed, match="QEMU still runs 1 s later"),
        running(machine, tmp_path, "t", clock=RealClock()) as vm,
    ):
        vm.serial.wait_for(READY, stall=30, limit=60)
        vm.wait_exit(1)


@pytest.mark.parametrize("kind", ["uefi", "secure-boot"])
def test_uefi_firmware_starts(tmp_path: Path, kind: FirmwareKind) -> None:
    if not any(flash.code.exists() for flash in PLACES[kind]):
        pytest.skip("no OVMF here")
    machine = dataclasses.replace(
        machine_for(tmp_path, b""),
        firmware=kind,
        flash=with_own_variables(kind, tmp_path),
        memory=256,
    )
    with running(machine, tmp_path, "t", clock=RealClock()) as vm:
        vm.serial.wait_for({"boot manager": re.compile("BdsDxe: ")}, stall=60, limit=120)


def test_qemu_takes_every_bus_and_medium(tmp_path: Path) -> None:
    buses: tuple[DiskBus, ...] = ("virtio", "scsi", "sata", "nvme", "usb")
    media: tuple[MediumKind, ...] = ("cdrom", "ide-cdrom", "usb", "disk")
    make_blank(tmp_path / "a,b.iso", MIB)
    for bus in buses:
        make_blank(tmp_path / f"{bus}.raw", MIB)
    plan = plan_network(IPv4Network("10.77.0.0/24"), None, "dhcp")
    for kind in media:
        machine = dataclasses.replace(
            machine_for(tmp_path, boot_sector(b"guest-ready 1\r\n", "halt")),
            disks=(
                Disk(tmp_path / "disk.raw", "BOOT", bootindex=0),
                *(Disk(tmp_path / f"{bus}.raw", f"S-{bus}", bus=bus) for bus in buses),
            ),
            medium=Medium(tmp_path / "a,b.iso", kind, bootindex=1),
            nic=Nic("52:54:00:77:00:01", plan),
            uuid="a3a4f1de-0000-4000-8000-000000000001",
            system_serial="PC,1",
            credentials=(("ssh.authorized_keys.root", b"x" * 200),),
        )
        with running(machine, tmp_path, "t", clock=RealClock()) as vm:
            vm.serial.wait_for(READY, stall=30, limit=60)
            assert 1024 < vm.port(22) < 65536
            with pytest.raises(StepFailed, match="forwards no port"):
                vm.port(23)


def test_probe_accepts_an_accelerator_that_runs_a_guest() -> None:
    assert probe(TCG, TCG_CPU, deadline=30) is None


def test_probe_notices_a_guest_that_hangs_in_seconds() -> None:
    began = RealClock().now()
    reason = probe(TCG, TCG_CPU, deadline=2, sector=boot_sector(b"", "halt"))
    assert reason is not None
    assert "2 s" in reason
    assert RealClock().now() - began < 10


def test_kvm_is_used_only_if_it_runs_a_guest() -> None:
    """Where /dev/kvm exists, whatever it is worth, the answer comes within seconds and is what is used."""
    device = Path("/dev/kvm")
    if not device.exists():
        pytest.skip("no /dev/kvm here")
    began = RealClock().now()
    reason = probe(KVM, KVM_CPU)
    assert RealClock().now() - began < 20
    flagless = why_not_kvm(Path("/proc/cpuinfo"), device)
    wanted = "kvm" if reason is None and flagless is None else "tcg"
    assert acceleration().name == wanted
