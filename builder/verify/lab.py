"""The bench of one boot test: its folders, disks, network and machines, made from a request."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.verify import disks
from builder.verify.accel import Acceleration, acceleration, qemu_version, slowness
from builder.verify.clock import Clock, RealClock
from builder.verify.disks import Target
from builder.verify.firmware import FirmwareKind, with_own_variables
from builder.verify.machine import Cable, Disk, DiskBus, Machine, Medium, Nic, Serial
from builder.verify.network import UserNetwork, plan_network
from builder.verify.request import BootTest, Identity, Limits, identity_for, node_of, read_manifest, target_of

# What a test leaves in its folder, by what it is; those that exist are named in the report.
FILES = {
    "serial log of the install": "serial-install.log",
    "serial log of the first boot": "serial-boot.log",
    "serial log of the boot after a power cut": "serial-again.log",
    "serial log of the boot after the reboot": "serial-reboot.log",
    "screen when the install failed": "screen-install.png",
    "screen when the first boot failed": "screen-boot.png",
    "screen when the boot after a power cut failed": "screen-again.png",
    "screen when the boot after the reboot failed": "screen-reboot.png",
    "QEMU's messages, install": "qemu-install.stderr",
    "QEMU's messages, first boot": "qemu-boot.stderr",
    "QEMU's messages, boot after a power cut": "qemu-again.stderr",
    "QEMU's messages, boot after the reboot": "qemu-reboot.stderr",
    "checks on the node": "checks.log",
    "journal of the node": "journal.log",
    "install log": "install.log",
}


@dataclass(frozen=True)
class Lab:
    """All that is settled before the first step.

    ``scratch`` has a short path; the sockets, the key and the firmware's variables live there.
    """

    request: BootTest
    manifest: Mapping[str, Any]
    identity: Identity
    target: Target
    network: UserNetwork
    accel: Acceleration
    limits: Limits
    stall: float
    warnings: tuple[str, ...]
    qemu: str
    scratch: Path
    clock: Clock
    say: Callable[[str], None]

    @property
    def out(self) -> Path:
        return self.request.out

    @property
    def disk_folder(self) -> Path:
        return self.out / "disks"

    @property
    def target_path(self) -> Path:
        return self.disk_folder / "target.raw"

    @property
    def bystander_path(self) -> Path:
        return self.disk_folder / "bystander.raw"

    @property
    def boot_firmware(self) -> FirmwareKind:
        return self.request.boot_firmware or self.request.firmware

    def more(self) -> tuple[tuple[Path, Target], ...]:
        return tuple((self.disk_folder / f"more{n}.raw", disk) for n, disk in enumerate(self.request.more_disks))

    def make_disks(self) -> None:
        """Make all disk images afresh. Raises BuilderError."""
        self.disk_folder.mkdir(parents=True, exist_ok=True)
        if self.request.content is not None:
            disks.make_copy(self.target_path, self.request.content, self.target.size)
        else:
            disks.make_blank(self.target_path, self.target.size)
        disks.make_bystander(self.bystander_path)
        for path, disk in self.more():
            disks.make_blank(path, disk.size)

    def digests(self, *, target: bool) -> dict[str, str]:
        """The digest of every disk that is not installed to, and with ``target`` of that one too."""
        paths = [self.bystander_path, *(path for path, _ in self.more())]
        return {path.stem: disks.digest(path) for path in ([self.target_path] if target else []) + paths}

    def install_machine(self) -> Machine:
        """Power-on with the medium in; it boots first."""
        request = self.request
        # A kernel that QEMU starts itself takes the first place in the boot order.
        medium = Medium(request.iso.absolute(), request.medium, bootindex=None if request.direct else 0)
        return self._machine("install", request.firmware, medium=medium, target_boots=1)

    def boot_machine(
        self, credentials: tuple[tuple[str, bytes], ...], phase: str = "boot", cable: Cable | None = None
    ) -> Machine:
        """Power-on of the installed node with the medium gone; ``phase`` names its files.

        With a ``cable`` its card is in a virtual LAN, else alone.
        """
        return self._machine(phase, self.boot_firmware, target_boots=0, credentials=credentials, cable=cable)

    def _machine(
        self,
        phase: str,
        firmware: FirmwareKind,
        *,
        target_boots: int,
        medium: Medium | None = None,
        credentials: tuple[tuple[str, bytes], ...] = (),
        cable: Cable | None = None,
    ) -> Machine:
        request = self.request
        hard_disks = [self.target.disk(self.target_path, target_boots)]
        hard_disks.append(Disk(self.bystander_path, disks.BYSTANDER_SERIAL, bus=self._bystander_bus()))
        hard_disks += [disk.disk(path, None) for path, disk in self.more()]
        return Machine(
            name=f"builder-{request.node}",
            accel=self.accel.accel,
            cpu=self.accel.cpu,
            serial=Serial((self.out / f"serial-{phase}.log").absolute()),
            qmp=self.scratch / f"qmp-{phase}",
            firmware=firmware,
            flash=with_own_variables(firmware, self.scratch),
            memory=request.memory,
            cpus=request.cpus,
            disks=tuple(hard_disks),
            medium=medium,
            nic=Nic(self.identity.mac, self.network if cable is None else cable),
            direct=request.direct if medium is not None else None,
            uuid=self.identity.uuid,
            system_serial=self.identity.serial,
            credentials=credentials,
        )

    def _bystander_bus(self) -> DiskBus:
        """As fixed as the target, so that only its size or name can tell them apart."""
        return "virtio" if self.target.bus == "usb" else self.target.bus

    def host_facts(self) -> dict[str, str]:
        """On what the test ran, for the report."""
        request = self.request
        return {
            "accelerator": f"{self.accel.name}: {self.accel.reason}",
            "qemu": self.qemu,
            "machine": f"{request.cpus} CPUs, {request.memory} MiB, medium as {request.medium}",
            "firmware": f"install {request.firmware}, first boot {self.boot_firmware}",
        }

    def files(self) -> dict[str, str]:
        return {label: name for label, name in FILES.items() if (self.out / name).is_file()}


@contextlib.contextmanager
def lab(request: BootTest, say: Callable[[str], None], clock: Clock | None = None) -> Iterator[Lab]:
    """Settle all that a test needs; the scratch folder goes at the end. Raises BuilderError."""
    manifest = request.manifest if request.manifest is not None else read_manifest(request.iso)
    node = node_of(manifest, request.node)
    identity = request.identity or identity_for(node)
    target = request.target or target_of(manifest, node)
    network = plan_network(request.subnet, request.gateway, request.address, request.taken)
    chosen, version = acceleration(), qemu_version()
    factor, warning = slowness(chosen, version)
    request.out.mkdir(parents=True, exist_ok=True)
    for name in (*FILES.values(), "report.json", "junit.xml", "checks.xml"):
        (request.out / name).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="builder-vm-") as scratch:
        yield Lab(
            request=request,
            manifest=manifest,
            identity=identity,
            target=target,
            network=network,
            accel=chosen,
            limits=request.limits.scaled(factor),
            stall=request.stall if request.stall is not None else chosen.stall * factor,
            warnings=(warning,) if warning else (),
            qemu=f"{version[0]}.{version[1]}",
            scratch=Path(scratch),
            clock=clock or RealClock(),
            say=say,
        )


def remove_disks(bench: Lab) -> None:
    shutil.rmtree(bench.disk_folder, ignore_errors=True)
