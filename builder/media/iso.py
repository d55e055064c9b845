"""The ISO: one hybrid image for stick and disc, BIOS and UEFI, Secure Boot included.

GPT with the ESP appended after the ISO 9660 file system, El Torito entries for both firmwares, GRUB's hybrid
master boot record in front. The recipe follows what Debian's and Ubuntu's own media report of themselves with
``xorriso -indev ISO -report_el_torito as_mkisofs``.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from builder import render
from builder.console import human
from builder.errors import Exit
from builder.files import complete_or_absent, need_room
from builder.media import bootkit
from builder.media.bootkit import BootKit
from builder.media.payload import FOLDER, Payload
from builder.plan import Plan
from builder.run import run

ESP_KIB = 8 * 1024
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_STEP = "writing the ISO"


def write(plan: Plan, kit: BootKit, payload: Payload, target: Path) -> None:
    """Write the ISO to ``target``, complete or not at all.

    Raises BuilderError (MEDIUM) quoting xorriso.
    """
    assert plan.id is not None
    size = sum(entry["size"] for entry in payload.manifest["files"])
    need_room(target.parent, size + (256 << 20), step=f"{_STEP} of about {human(size)}")
    with (
        tempfile.TemporaryDirectory(prefix="builder-iso-") as folder,
        complete_or_absent(target, step=_STEP) as part,
    ):
        work = Path(folder)
        files = _staged(plan, kit, payload, work)
        env = {"SOURCE_DATE_EPOCH": str(plan.epoch)}
        for argv in esp_argvs(kit, work / "early.cfg", work / "esp.img", plan.id):
            run(argv, step="making the ESP", env=env, code=Exit.MEDIUM)
        argv = xorriso_argv(plan.id, plan.cluster.volume, plan.epoch, kit, work / "esp.img", files, part)
        run(argv, step=_STEP, env=env, code=Exit.MEDIUM)


def menu(plan: Plan) -> str:
    """The medium's ``grub.cfg``. Pure."""
    context = {
        "cluster": plan.cluster.name,
        "plan": plan.id,
        "countdown": plan.cluster.media.countdown,
        "serial": plan.serial,
        "arguments": plan.kernel_arguments,
    }
    return render.text("templates/grub.cfg.j2", context)


def _staged(plan: Plan, kit: BootKit, payload: Payload, work: Path) -> dict[str, Path]:
    """Path on the medium → file on this machine. Only small files are written; the rest stay where they are."""
    small = {
        "/boot/grub/grub.cfg": menu(plan).encode(),
        "/.disk/info": f"{plan.cluster.name} {plan.id}\n".encode(),
        f"{FOLDER}/manifest.json": payload.manifest_bytes,
    }
    small |= {f"{FOLDER}/{path}": file for path, file in payload.files.items() if isinstance(file, bytes)}
    files = {}
    for index, (path, content) in enumerate(sorted(small.items())):
        files[path] = work / f"small{index}"
        files[path].write_bytes(content)
    files |= {f"{FOLDER}/{path}": file for path, file in payload.files.items() if isinstance(file, Path)}
    (work / "early.cfg").write_text(bootkit.early_menu())
    bootkit.initramfs(kit, payload.sha256, work / "initramfs.img", plan.epoch)
    files |= {"/boot/initramfs.img": work / "initramfs.img", "/boot/vmlinuz": kit["vmlinuz"]}
    # The same loaders as files, for firmware that reads the ISO 9660 file system or a stick copied file by file.
    files |= {"/EFI/BOOT/BOOTX64.EFI": kit["shim.efi"], "/EFI/BOOT/grubx64.efi": kit["grub.efi"]}
    files |= {"/EFI/BOOT/mmx64.efi": kit["mm.efi"], "/boot/grub/bios.img": kit["bios.img"]}
    return files


def esp_argvs(kit: BootKit, early: Path, image: Path, plan_id: str) -> list[list[str | Path]]:
    """The commands that make the ESP: a FAT image with the signed chain and a menu that finds the medium. Pure."""
    copies = {
        "::/EFI/BOOT/BOOTX64.EFI": kit["shim.efi"],
        "::/EFI/BOOT/grubx64.efi": kit["grub.efi"],
        "::/EFI/BOOT/mmx64.efi": kit["mm.efi"],
    }
    at = ("-i", image)
    sectors = ESP_KIB * 2  # of 512 bytes
    return [
        [
            "mformat",
            "-C",
            *at,
            "-T",
            str(sectors),
            *("-h", "2", "-s", "32", "-N", plan_id[:8], "-v", "ESP", "::"),
        ],
        ["mmd", *at, "::/EFI", "::/EFI/BOOT", "::/boot", "::/boot/grub"],
        *_copies(at, {**copies, "::/boot/grub/grub.cfg": early}),
    ]


def _copies(at: tuple[str, Path], files: Mapping[str, Path]) -> list[list[str | Path]]:
    return [["mcopy", *at, source, name] for name, source in files.items()]


def xorriso_argv(
    plan_id: str, volume: str, epoch: int, kit: BootKit, esp: Path, files: Mapping[str, Path], target: Path
) -> list[str | Path]:
    """The whole xorriso command line. Pure; same input gives the same image."""
    date = datetime.fromtimestamp(epoch, UTC)
    return [
        "xorriso",
        *("-abort_on", "SORRY", "-as", "mkisofs", "-quiet", "-o", target),
        *("-V", volume, "-iso-level", "3", "-r", "-J", "-joliet-long"),
        f"--modification-date={date:%Y%m%d%H%M%S}00",
        *("--set_all_file_dates", f"{date:%Y%m%d%H%M%S}00"),
        *("--gpt_disk_guid", str(uuid.UUID(plan_id[:32]))),
        # BIOS: El Torito for discs, GRUB's hybrid master boot record for sticks.
        *("--grub2-mbr", kit["hybrid.img"], "-partition_offset", "16", "--protective-msdos-label"),
        *("-c", "/boot/boot.cat", "-b", "/boot/grub/bios.img"),
        *("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "--grub2-boot-info"),
        # UEFI: the ESP is a partition of its own, and El Torito points at that same partition.
        *("-append_partition", "2", _ESP_TYPE, esp, "-appended_part_as_gpt"),
        *("-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::", "-no-emul-boot"),
        "-graft-points",
        *(f"{path}={_escaped(source)}" for path, source in sorted(files.items())),
    ]


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace("=", "\\=")
