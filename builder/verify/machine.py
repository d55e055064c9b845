"""A virtual machine as a value, and the whole QEMU command line for it as a pure function."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from builder.errors import BuilderError
from builder.verify.firmware import FirmwareKind, Flash
from builder.verify.network import UserNetwork, netdev

QEMU = "qemu-system-x86_64"
UNIX_PATH_MAX = 107  # bytes in sockaddr_un.sun_path, less the final zero

DiskBus = Literal["virtio", "scsi", "sata", "nvme", "usb"]
MediumKind = Literal["cdrom", "ide-cdrom", "usb", "disk"]


@dataclass(frozen=True)
class Disk:
    """A hard disk. The guest sees ``serial`` (at most 20 bytes) and ``wwn`` (scsi and sata only)."""

    path: Path
    serial: str
    bus: DiskBus = "virtio"
    format: Literal["raw", "qcow2"] = "raw"
    wwn: int | None = None
    bootindex: int | None = None


@dataclass(frozen=True)
class Medium:
    """The install medium, read-only: an optical drive (virtio-scsi or IDE), a USB stick or a plain disk."""

    path: Path
    kind: MediumKind = "cdrom"
    bootindex: int | None = 0


@dataclass(frozen=True)
class Cable:
    """A cable into the virtual LAN of :mod:`builder.verify.lan`: the Unix socket that its switch listens at."""

    socket: Path


@dataclass(frozen=True)
class Tap:
    """A tap device of a network namespace, both made by ``ip``; QEMU then runs inside that namespace."""

    device: str
    namespace: str


@dataclass(frozen=True)
class Nic:
    """One virtio network card, alone on a user-mode network, cabled into a virtual LAN, or at a tap device.

    With a ``bootindex`` the firmware boots from it: QEMU's iPXE for BIOS, its own for UEFI.
    """

    mac: str
    network: UserNetwork | Cable | Tap
    bootindex: int | None = None


@dataclass(frozen=True)
class DirectKernel:
    """Files that QEMU boots itself, as a network boot would: no boot loader is tested."""

    kernel: Path
    initrd: Path
    append: str


@dataclass(frozen=True)
class Serial:
    """Where COM1 goes: into a file, or to a Unix socket that QEMU listens at."""

    path: Path
    kind: Literal["file", "socket"] = "file"


@dataclass(frozen=True)
class Machine:
    """All that decides the command line. ``accel`` and ``cpu`` are QEMU's; ``memory`` is in MiB.

    ``credentials`` are systemd system credentials (name, content), handed over as SMBIOS type 11 strings.
    ``settings`` are the firmware's own (name, value), such as OVMF's below ``opt/org.tianocore``.
    """

    name: str
    accel: str
    cpu: str
    serial: Serial
    qmp: Path
    firmware: FirmwareKind = "bios"
    flash: Flash | None = None
    memory: int = 2048
    cpus: int = 2
    disks: tuple[Disk, ...] = ()
    medium: Medium | None = None
    nic: Nic | None = None
    direct: DirectKernel | None = None
    uuid: str | None = None
    system_serial: str | None = None
    credentials: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    settings: tuple[tuple[str, str], ...] = ()
    reboot: bool = False
    debug_exit: bool = False


def qemu_argv(machine: Machine) -> list[str]:
    """The whole command line. Raises BuilderError for a machine that QEMU would refuse in unclear words."""
    _refuse_nonsense(machine)
    return [word for part in _parts(machine) for word in part]


def _parts(machine: Machine) -> Iterator[list[str]]:
    if machine.nic is not None and isinstance(machine.nic.network, Tap):
        yield ["ip", "netns", "exec", machine.nic.network.namespace]
    yield [QEMU, "-name", machine.name, "-nodefaults", "-no-user-config"]
    yield ["-machine", "q35,smm=on" if machine.firmware == "secure-boot" else "q35"]
    yield ["-accel", machine.accel, "-cpu", machine.cpu, "-smp", str(machine.cpus), "-m", str(machine.memory)]
    yield from _identity(machine)
    yield from _firmware(machine)
    yield ["-display", "none", "-device", "VGA"]
    yield from _consoles(machine)
    yield ["-device", "virtio-rng-pci"]
    if machine.nic is not None:
        # A fixed slot, so the card has one name with the medium and without. The option ROM, which is iPXE and
        # costs seconds, is for BIOS that boots from the network: UEFI has drivers of its own, as real ones have.
        boot = "" if machine.nic.bootindex is None else f",bootindex={machine.nic.bootindex}"
        if machine.nic.bootindex is None or machine.firmware != "bios":
            boot += ",romfile="
        card = f"virtio-net-pci,netdev=net0,mac={machine.nic.mac},addr=0x8{boot}"
        yield ["-netdev", _netdev(machine.nic.network), "-device", card]
    yield from _storage(machine)
    if machine.direct is not None:
        yield ["-kernel", str(machine.direct.kernel), "-initrd", str(machine.direct.initrd)]
        yield ["-append", machine.direct.append]
    if machine.debug_exit:
        yield ["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]
    yield ["-boot", "strict=on"]
    if not machine.reboot:
        yield ["-no-reboot"]


def _identity(machine: Machine) -> Iterator[list[str]]:
    if machine.uuid is not None:
        yield ["-uuid", machine.uuid]
    if machine.system_serial is not None:
        yield ["-smbios", f"type=1,serial={option(machine.system_serial)}"]
    for name, content in machine.credentials:
        # systemd.system-credentials(7), systemd(1) "System Credentials": the .binary form is base64.
        encoded = base64.b64encode(content).decode()
        yield ["-smbios", f"type=11,value=io.systemd.credential.binary:{name}={encoded}"]


def _firmware(machine: Machine) -> Iterator[list[str]]:
    if machine.flash is None:
        return
    if machine.firmware == "secure-boot":
        # Only code in system management mode may write the variables (OVMF README, "SMM support").
        yield ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        yield ["-global", "ICH9-LPC.disable_s3=1"]
    for name, value in machine.settings:
        yield ["-fw_cfg", f"name={name},string={option(value)}"]
    code, variables = option(machine.flash.code), option(machine.flash.variables)
    yield ["-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}"]
    yield ["-drive", f"if=pflash,unit=1,format=raw,file={variables}"]


def _consoles(machine: Machine) -> Iterator[list[str]]:
    path = option(machine.serial.path)
    serial = f"file,id=serial0,path={path}"
    if machine.serial.kind == "socket":
        serial = f"socket,id=serial0,path={path},server=on,wait=off"
    yield ["-chardev", serial, "-serial", "chardev:serial0"]
    yield ["-chardev", f"socket,id=qmp0,path={option(machine.qmp)},server=on,wait=off"]
    yield ["-mon", "chardev=qmp0,mode=control"]


def _netdev(network: UserNetwork | Cable | Tap) -> str:
    if isinstance(network, UserNetwork):
        return netdev(network)
    if isinstance(network, Tap):
        return f"tap,id=net0,ifname={network.device},script=no,downscript=no"
    return f"stream,id=net0,server=off,addr.type=unix,addr.path={option(network.socket)}"


def _storage(machine: Machine) -> Iterator[list[str]]:
    kinds = {disk.bus for disk in machine.disks} | ({machine.medium.kind} if machine.medium else set())
    if kinds & {"scsi", "cdrom"}:
        yield ["-device", "virtio-scsi-pci,id=scsi0"]
    if "usb" in kinds:
        yield ["-device", "qemu-xhci,id=usb0"]
    sata_port = 0
    if machine.medium is not None:
        medium = machine.medium
        yield ["-blockdev", _blockdev("medium", medium.path, "raw", read_only=True)]
        device = {
            "cdrom": "scsi-cd,bus=scsi0.0,drive=medium",
            "ide-cdrom": f"ide-cd,bus=ide.{sata_port},drive=medium",
            "usb": "usb-storage,bus=usb0.0,drive=medium,removable=on",
            "disk": "virtio-blk-pci,drive=medium",
        }[medium.kind]
        sata_port += medium.kind == "ide-cdrom"
        place = "" if medium.bootindex is None else f",bootindex={medium.bootindex}"
        yield ["-device", device + place]
    for number, disk in enumerate(machine.disks):
        node = f"disk{number}"
        yield ["-blockdev", _blockdev(node, disk.path, disk.format, read_only=False)]
        device = {
            "virtio": "virtio-blk-pci",
            "scsi": "scsi-hd,bus=scsi0.0",
            "sata": f"ide-hd,bus=ide.{sata_port}",
            "nvme": "nvme",
            "usb": "usb-storage,bus=usb0.0",
        }[disk.bus]
        sata_port += disk.bus == "sata"
        device += f",drive={node},serial={option(disk.serial)}"
        device += "" if disk.wwn is None else f",wwn={disk.wwn:#x}"
        device += "" if disk.bootindex is None else f",bootindex={disk.bootindex}"
        yield ["-device", device]


def _blockdev(node: str, path: Path, form: str, *, read_only: bool) -> str:
    # no-flush: these disks need not outlive a power cut of the host, and its fsync would only be waited for.
    access = "read-only=on" if read_only else "discard=unmap,cache.no-flush=on"
    return f"driver={form},node-name={node},{access},file.driver=file,file.filename={option(path)}"


def option(value: str | Path) -> str:
    """A value inside a comma-separated QEMU option: a comma is written twice."""
    return str(value).replace(",", ",,")


def _refuse_nonsense(machine: Machine) -> None:
    if (machine.firmware == "bios") != (machine.flash is None):
        raise BuilderError(f"a {machine.firmware} machine {'has' if machine.flash else 'needs'} flash images")
    refuse_long_socket(machine.qmp)
    if machine.serial.kind == "socket":
        refuse_long_socket(machine.serial.path)
    if machine.nic is not None and isinstance(machine.nic.network, Cable):
        refuse_long_socket(machine.nic.network.socket)
    for disk in machine.disks:
        if not 0 < len(disk.serial.encode()) <= 20:
            raise BuilderError(
                f"a virtual disk cannot have the serial number {disk.serial!r}",
                hint="QEMU's disks take 1 to 20 bytes; give the boot test a disk of its own",
            )
        if disk.wwn is not None and disk.bus not in ("scsi", "sata"):
            raise BuilderError(f"a virtual disk on {disk.bus} has no WWN; use scsi or sata")


def refuse_long_socket(path: Path) -> None:
    """Raises BuilderError if ``path`` cannot be a Unix socket."""
    if len(str(path).encode()) > UNIX_PATH_MAX:
        raise BuilderError(
            f"{path} is too long for a Unix socket ({UNIX_PATH_MAX} bytes)",
            hint="set TMPDIR to a folder with a shorter path",
        )
