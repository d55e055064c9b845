"""QEMU command lines, asserted whole."""

from __future__ import annotations

import dataclasses
import shlex
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from builder.errors import BuilderError
from builder.verify.firmware import Flash, find
from builder.verify.machine import DirectKernel, Disk, Machine, Medium, Nic, Serial, qemu_argv
from builder.verify.network import plan_network

NETWORK = plan_network(IPv4Network("10.77.0.0/24"), IPv4Address("10.77.0.1"), IPv4Address("10.77.0.11"))
FLASH = Flash(Path("/fw/code.fd"), Path("/run/vars.fd"))
BASE = Machine(
    name="builder-node1",
    accel="tcg,thread=multi",
    cpu="max,erms=off,fsrm=off",
    serial=Serial(Path("/out/serial.log")),
    qmp=Path("/run/qmp"),
)


def told(machine: Machine) -> str:
    """The command line with one option and its value a line."""
    return "\n".join(shlex.join(qemu_argv(machine)).replace(" -", "\n-").splitlines()) + "\n"


def test_bios_install_from_an_optical_drive() -> None:
    machine = dataclasses.replace(
        BASE,
        disks=(Disk(Path("/out/target.raw"), "TARGET", bootindex=1), Disk(Path("/out/other.raw"), "OTHER")),
        medium=Medium(Path("/out/a,b.iso")),
        nic=Nic("52:54:00:77:00:01", NETWORK),
        uuid="a3a4f1de-0000-4000-8000-000000000001",
        system_serial="PC,1",
    )
    assert (
        told(machine)
        == """\
qemu-system-x86_64
-name builder-node1
-nodefaults
-no-user-config
-machine q35
-accel tcg,thread=multi
-cpu max,erms=off,fsrm=off
-smp 2
-m 2048
-uuid a3a4f1de-0000-4000-8000-000000000001
-smbios type=1,serial=PC,,1
-display none
-device VGA
-chardev file,id=serial0,path=/out/serial.log
-serial chardev:serial0
-chardev socket,id=qmp0,path=/run/qmp,server=on,wait=off
-mon chardev=qmp0,mode=control
-device virtio-rng-pci
-netdev user,id=net0,net=10.77.0.0/24,host=10.77.0.1,dns=10.77.0.254,dhcpstart=10.77.0.253,restrict=on,\
ipv6=off,hostfwd=tcp:127.0.0.1:0-10.77.0.11:22
-device virtio-net-pci,netdev=net0,mac=52:54:00:77:00:01,addr=0x8,romfile=
-device virtio-scsi-pci,id=scsi0
-blockdev driver=raw,node-name=medium,read-only=on,file.driver=file,file.filename=/out/a,,b.iso
-device scsi-cd,bus=scsi0.0,drive=medium,bootindex=0
-blockdev driver=raw,node-name=disk0,discard=unmap,cache.no-flush=on,file.driver=file,\
file.filename=/out/target.raw
-device virtio-blk-pci,drive=disk0,serial=TARGET,bootindex=1
-blockdev driver=raw,node-name=disk1,discard=unmap,cache.no-flush=on,file.driver=file,\
file.filename=/out/other.raw
-device virtio-blk-pci,drive=disk1,serial=OTHER
-boot strict=on
-no-reboot
"""
    )


def test_secure_boot_from_a_stick_with_a_credential() -> None:
    machine = dataclasses.replace(
        BASE,
        firmware="secure-boot",
        flash=FLASH,
        disks=(Disk(Path("/out/target.qcow2"), "TARGET", bus="scsi", format="qcow2", wwn=0x5002538E),),
        medium=Medium(Path("/out/a.iso"), "usb"),
        credentials=(("ssh.authorized_keys.root", b"ssh-ed25519 AAAA\n"),),
        serial=Serial(Path("/run/serial"), "socket"),
        reboot=True,
    )
    assert (
        told(machine)
        == """\
qemu-system-x86_64
-name builder-node1
-nodefaults
-no-user-config
-machine q35,smm=on
-accel tcg,thread=multi
-cpu max,erms=off,fsrm=off
-smp 2
-m 2048
-smbios type=11,value=io.systemd.credential.binary:ssh.authorized_keys.root=c3NoLWVkMjU1MTkgQUFBQQo=
-global driver=cfi.pflash01,property=secure,value=on
-global ICH9-LPC.disable_s3=1
-drive if=pflash,unit=0,format=raw,readonly=on,file=/fw/code.fd
-drive if=pflash,unit=1,format=raw,file=/run/vars.fd
-display none
-device VGA
-chardev socket,id=serial0,path=/run/serial,server=on,wait=off
-serial chardev:serial0
-chardev socket,id=qmp0,path=/run/qmp,server=on,wait=off
-mon chardev=qmp0,mode=control
-device virtio-rng-pci
-device virtio-scsi-pci,id=scsi0
-device qemu-xhci,id=usb0
-blockdev driver=raw,node-name=medium,read-only=on,file.driver=file,file.filename=/out/a.iso
-device usb-storage,bus=usb0.0,drive=medium,removable=on,bootindex=0
-blockdev driver=qcow2,node-name=disk0,discard=unmap,cache.no-flush=on,file.driver=file,\
file.filename=/out/target.qcow2
-device scsi-hd,bus=scsi0.0,drive=disk0,serial=TARGET,wwn=0x5002538e
-boot strict=on
"""
    )


def test_direct_kernel_and_ide_ports() -> None:
    machine = dataclasses.replace(
        BASE,
        firmware="uefi",
        flash=FLASH,
        disks=(Disk(Path("/out/a.raw"), "A", bus="sata"), Disk(Path("/out/b.raw"), "B", bus="nvme")),
        medium=Medium(Path("/out/a.iso"), "ide-cdrom"),
        direct=DirectKernel(Path("/b/vmlinuz"), Path("/b/initramfs.img"), "boot=builder console=ttyS0"),
        debug_exit=True,
    )
    assert (
        told(machine).split("-device virtio-rng-pci\n")[1]
        == """\
-blockdev driver=raw,node-name=medium,read-only=on,file.driver=file,file.filename=/out/a.iso
-device ide-cd,bus=ide.0,drive=medium,bootindex=0
-blockdev driver=raw,node-name=disk0,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=/out/a.raw
-device ide-hd,bus=ide.1,drive=disk0,serial=A
-blockdev driver=raw,node-name=disk1,discard=unmap,cache.no-flush=on,file.driver=file,file.filename=/out/b.raw
-device nvme,drive=disk1,serial=B
-kernel /b/vmlinuz
-initrd /b/initramfs.img
-append 'boot=builder console=ttyS0'
-device isa-debug-exit,iobase=0xf4,iosize=0x04
-boot strict=on
-no-reboot
"""
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qmp": Path("/" + "x" * 120)}, "too long for a Unix socket"),
        ({"firmware": "uefi"}, "needs flash images"),
        ({"flash": FLASH}, "has flash images"),
        ({"disks": (Disk(Path("/d"), "S" * 21),)}, "cannot have the serial number"),
        ({"disks": (Disk(Path("/d"), "S", wwn=1),)}, "has no WWN"),
    ],
)
def test_machines_that_qemu_would_refuse(change: dict[str, object], message: str) -> None:
    with pytest.raises(BuilderError, match=message):
        qemu_argv(dataclasses.replace(BASE, **change))  # type: ignore[arg-type]


def test_a_credential_is_not_in_the_repr() -> None:
    machine = dataclasses.replace(BASE, credentials=(("name", b"content"),))
    assert "content" not in repr(machine)


def test_missing_firmware_names_the_package(tmp_path: Path) -> None:
    nowhere = Flash(tmp_path / "code.fd", tmp_path / "vars.fd")
    with pytest.raises(BuilderError) as caught:
        find("secure-boot", [nowhere])
    assert "ovmf" in caught.value.hint
    assert find("bios") is None


def test_firmware_is_taken_only_with_its_variables(tmp_path: Path) -> None:
    half, whole = Flash(tmp_path / "a", tmp_path / "no"), Flash(tmp_path / "a", tmp_path / "b")
    whole.code.touch()
    whole.variables.touch()
    assert find("uefi", [half, whole]) == whole
