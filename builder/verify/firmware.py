"""Which firmware a virtual machine starts, and where this host keeps it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.errors import BuilderError

FirmwareKind = Literal["bios", "uefi", "secure-boot"]


@dataclass(frozen=True)
class Flash:
    """A UEFI build: the code, shared and read-only, and the variables, one writable copy a machine."""

    code: Path
    variables: Path


# Code and variables that belong together, in the order of preference. For Secure Boot the variables have to
# hold the vendor keys already: with an empty store the firmware starts anything and proves nothing.
_EDK2 = Path("/usr/share")
PLACES: dict[FirmwareKind, tuple[Flash, ...]] = {
    "bios": (),
    "uefi": (
        Flash(_EDK2 / "OVMF/OVMF_CODE_4M.fd", _EDK2 / "OVMF/OVMF_VARS_4M.fd"),  # Debian, Ubuntu: ovmf
        Flash(_EDK2 / "edk2/x64/OVMF_CODE.4m.fd", _EDK2 / "edk2/x64/OVMF_VARS.4m.fd"),  # Arch: edk2-ovmf
        Flash(_EDK2 / "edk2/ovmf/OVMF_CODE.fd", _EDK2 / "edk2/ovmf/OVMF_VARS.fd"),  # Fedora: edk2-ovmf
    ),
    "secure-boot": (
        Flash(_EDK2 / "OVMF/OVMF_CODE_4M.secboot.fd", _EDK2 / "OVMF/OVMF_VARS_4M.ms.fd"),
        Flash(_EDK2 / "edk2/ovmf/OVMF_CODE.secboot.fd", _EDK2 / "edk2/ovmf/OVMF_VARS.secboot.fd"),
    ),
}


def find(kind: FirmwareKind, places: Sequence[Flash] | None = None) -> Flash | None:
    """The flash images for ``kind``; None for ``bios``, which is QEMU's built-in SeaBIOS.

    Raises BuilderError if this host has none.
    """
    if kind == "bios":
        return None
    for flash in PLACES[kind] if places is None else places:
        if flash.code.is_file() and flash.variables.is_file():
            return flash
    raise BuilderError(
        f"no {'Secure Boot ' if kind == 'secure-boot' else ''}UEFI firmware for QEMU on this machine",
        hint="install the package ovmf (Debian, Ubuntu) or edk2-ovmf, or test with --firmware bios",
    )


def with_own_variables(kind: FirmwareKind, folder: Path) -> Flash | None:
    """The firmware with a writable copy of its variables at ``folder``/vars-KIND.fd; an earlier copy is kept.

    A machine that boots twice keeps its variables, as a real one does. Raises BuilderError as :func:`find`.
    """
    flash = find(kind)
    if flash is None:
        return None
    own = folder / f"vars-{kind}.fd"
    if not own.exists():
        shutil.copyfile(flash.variables, own)
    return Flash(flash.code, own)
