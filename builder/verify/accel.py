"""Which acceleration QEMU can use here, decided by running a guest.

``/dev/kvm`` may exist and be of no use: on a host whose own virtualisation is para-virtual (no ``svm`` or
``vmx`` flag) it opens, and a stock guest hangs or QEMU aborts. So the flag and the device are looked at
first, as they cost nothing, and then a boot sector has to say its line within seconds.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.errors import BuilderError
from builder.run import run, which
from builder.verify.bootsector import boot_sector, bootable
from builder.verify.clock import Clock, RealClock
from builder.verify.machine import QEMU, Disk, Machine, Serial
from builder.verify.report import StepFailed
from builder.verify.vm import running

TOKEN = "builder-accel-works"
PROBE_DEADLINE = 8.0  # seconds; the sector takes about 0.5 s with KVM, firmware included
GOOD_MAJOR = 10

TCG, TCG_CPU = "tcg,thread=multi", "max,erms=off,fsrm=off"
KVM, KVM_CPU = "kvm", "host"


@dataclass(frozen=True)
class Acceleration:
    """What to give QEMU as ``-accel`` and ``-cpu``, why, and how long (seconds) silence is normal with it."""

    name: Literal["kvm", "tcg"]
    accel: str
    cpu: str
    reason: str
    stall: float


def tcg(reason: str) -> Acceleration:
    """Emulation. Without ``erms`` and ``fsrm`` guests clear pages by plain stores, far faster under TCG."""
    return Acceleration("tcg", TCG, TCG_CPU, reason, stall=120.0)


@functools.cache
def acceleration() -> Acceleration:
    """What this host can do; probed once a process. Raises BuilderError if QEMU is missing."""
    qemu_version()
    reason = why_not_kvm(Path("/proc/cpuinfo"), Path("/dev/kvm"))
    if reason is None:
        reason = probe(KVM, KVM_CPU)
    if reason is not None:
        return tcg(reason)
    return Acceleration("kvm", KVM, KVM_CPU, "a probe guest ran under KVM", stall=60.0)


def why_not_kvm(cpuinfo: Path, device: Path) -> str | None:
    """The cheap look: why KVM cannot work, or None if it may."""
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    present = device.exists()
    if flags is None or not {"svm", "vmx"} & set(flags.group(1).split()):
        suffix = f" ({device} exists, but a stock guest would hang)" if present else ""
        return f"the CPU shows no svm or vmx flag{suffix}"
    if not present:
        return f"{device} does not exist"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} is not readable and writable for this user (is the user in the group kvm?)"
    return None


def probe(
    accel: str,
    cpu: str,
    *,
    deadline: float = PROBE_DEADLINE,
    sector: bytes | None = None,
    clock: Clock | None = None,
) -> str | None:
    """Run a boot sector that has to say its line within ``deadline`` seconds: None, or why it did not."""
    with tempfile.TemporaryDirectory(prefix="builder-probe-") as name:
        folder = Path(name)
        image = folder / "sector.raw"
        image.write_bytes(bootable(sector or boot_sector(TOKEN.encode() + b"\r\n", "exit")))
        machine = Machine(
            name="builder-probe",
            accel=accel,
            cpu=cpu,
            serial=Serial(folder / "serial.log"),
            qmp=folder / "qmp",
            memory=64,
            cpus=1,
            disks=(Disk(image, "PROBE", bus="sata", bootindex=0),),
            debug_exit=True,
        )
        try:
            with running(machine, folder, "probe", clock=clock or RealClock(), screenshots=False) as vm:
                vm.serial.wait_for({"token": re.compile(TOKEN)}, stall=deadline, limit=deadline)
        except StepFailed as failed:
            return f"a probe guest did not run with -accel {accel}: {failed.reason}"
    return None


@functools.cache
def qemu_version() -> tuple[int, int]:
    """Major and minor of the installed QEMU. Raises BuilderError if there is none."""
    if which(QEMU) is None:
        raise BuilderError(
            f"{QEMU} is not installed, so no medium can be booted",
            hint="`builder doctor --install` installs it, or install qemu-system-x86 and ovmf",
        )
    return parse_version(run([QEMU, "--version"], step="asking QEMU for its version").stdout)


def parse_version(said: str) -> tuple[int, int]:
    """Major and minor from ``qemu-system-x86_64 --version``. Raises BuilderError if it is not to be found."""
    found = re.search(r"version (\d+)\.(\d+)", said)
    if found is None:
        raise BuilderError(f"{QEMU} --version says nothing like a version: {said.strip()[:80]!r}")
    return int(found.group(1)), int(found.group(2))


def slowness(chosen: Acceleration, version: Sequence[int]) -> tuple[float, str]:
    """By what factor limits have to grow for this QEMU, and a warning for people ("" when all is well).

    Measured: QEMU 7.2 boots the same guest in 147 s that 10.0 boots in 35 s, under TCG.
    """
    if chosen.name == "kvm" or version[0] >= GOOD_MAJOR:
        return 1.0, ""
    text = (
        f"QEMU {version[0]}.{version[1]} emulates about four times slower than QEMU {GOOD_MAJOR}; "
        "on Debian 12 take qemu-system-x86 from bookworm-backports"
    )
    return 4.0, text
