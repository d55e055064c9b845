"""Ubuntu's live-server ISO with our payload in it: a copy that grows, so that a node's stick costs one copy.

xorriso writes what is new behind what is there, and the file system's directories anew; Ubuntu's own files keep
their places, byte for byte. Three things decide how, each seen to go wrong otherwise:

- The stick's first partition holds the ISO 9660 file system a second time, with addresses of its own, and casper
  looks there first. ``-boot_image any keep`` leaves that one as it was: a stick would boot into Ubuntu without our
  files. ``replay`` on the same image leaves the partition where it ended, before our files.
- So the boot equipment is written anew, from the source's own report, with the ESP taken out of the source as if
  it were another file. It then follows our files, and the partition before it holds everything.
- xorriso pads to 32 KiB behind the backup of the partition table, which belongs into the last sector: cut off.

The result is read back before it gets its name: equipment, places, partition tables, and Ubuntu's own files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from builder import render
from builder.autoinstall import LIVE
from builder.console import human
from builder.errors import BuilderError, Exit
from builder.files import complete_or_absent, need_room
from builder.media import bootreport, catalog, grow, grubconfig, imagecopy, isoimage
from builder.media.bootreport import BootReport
from builder.media.catalog import CATALOG, MD5SUMS, Source
from builder.media.grubconfig import BY_HAND, GRUB_CFG, LOOPBACK_CFG, Menu
from builder.media.isoimage import Extent, Place
from builder.media.payload import FOLDER, Payload
from builder.run import run

AUTOINSTALL = "/autoinstall.yaml"
SLACK = 16 << 20  # bytes: directories, padding, rounding to blocks
_STEP = "remastering the base ISO"
_NEEDED = ("/.disk/info", GRUB_CFG, CATALOG, "/casper/vmlinuz", "/casper/initrd")

Files = Mapping[str, Path | bytes]
Listing = Mapping[str, Place]


@dataclass(frozen=True)
class Judged:
    """A source that can be remastered. ``changed``: Ubuntu's own files as they will be, path → content;
    ``by_hand``: the document of who installs Ubuntu without us."""

    files: Listing
    equipment: BootReport
    changed: Mapping[str, bytes]
    by_hand: bytes


def judge(source_iso: Path, menu: Menu, source: Source) -> Judged:
    """Read a source, and refuse what cannot be remastered; a second's work.

    Raises BuilderError (MEDIUM) if it is no live-server ISO, or was remastered before.
    """
    isoimage.file_system(source_iso)  # the plainest question first: is it an ISO at all?
    files, equipment = isoimage.listing(source_iso), bootreport.of(source_iso)
    require_live_server(source_iso.name, files, equipment)
    texts = {
        path: isoimage.content(source_iso, files[path]).decode(errors="replace")
        for path in (GRUB_CFG, LOOPBACK_CFG, CATALOG, MD5SUMS)
        if path in files
    }
    changed = changes(texts, menu, source)
    require_untouched(source_iso.name, files, {AUTOINSTALL: b""})
    return Judged(files, equipment, changed, by_hand(catalog.default(texts[CATALOG])))


def write(
    *,
    source_iso: Path,
    target: Path,
    plan_id: str,
    epoch: int,
    payload: Payload,
    live_files: Files,
    autoinstall: bytes,
    menu: Menu,
    source: Source,
    stick_size: int | None = None,
) -> None:
    """Write the remastered ISO to ``target``, complete or not at all.

    ``live_files``: path below ``/builder/live`` → content. ``autoinstall``: the document at the ISO's root.
    ``epoch``: the date of what is new, in seconds since 1970. ``stick_size`` in bytes, if the spec says it.
    Same inputs give the same bytes.

    Raises BuilderError (MEDIUM) if the source is no live-server ISO, was remastered before, or the result does
    not fit the stick or would not boot as the source does.
    """
    assert f"builder.manifest={payload.sha256}" in menu.arguments
    judged = judge(source_iso, menu, source)
    before, equipment, changed = judged.files, judged.equipment, judged.changed
    new = additions(payload, live_files, autoinstall, judged.by_hand)
    require_untouched(source_iso.name, before, new)
    assert equipment.esp is not None
    again = equipment.esp.size * bootreport.SECTOR  # the ESP follows our files; where it was stays as it is
    least = source_iso.stat().st_size + again + sum(_sizes({**new, **changed}).values())
    require_fit(least, stick_size)
    need_room(target.parent, least + SLACK, step=f"{_STEP}, to about {human(least)},")
    with complete_or_absent(target, step=_STEP) as part:
        ours = {**new, **changed}
        _grow(source_iso, part, before, equipment, ours, plan_id, epoch)
        require_fit(part.stat().st_size, stick_size)
        if found := problems(source_iso, part, before, equipment, ours):
            raise BuilderError(
                "the remastered ISO is not what it should be:\n" + "\n".join(f"  - {line}" for line in found),
                hint="nothing was left behind; another version of xorriso may do better (1.5.4 does)",
                code=Exit.MEDIUM,
            )


def require_live_server(name: str, files: Listing, equipment: BootReport) -> None:
    """Refuse an ISO that is not laid out as Ubuntu's live-server is. Pure.

    Raises BuilderError (MEDIUM) with all that is missing or odd.
    """
    odd = [f"it has no {path}" for path in _NEEDED if path not in files]
    odd += bootreport.faults(equipment)
    if odd:
        raise BuilderError(
            f"{name} cannot be remastered:\n" + "\n".join(f"  - {line}" for line in odd),
            hint=grow.ADVICE,
            code=Exit.MEDIUM,
        )


def require_untouched(name: str, files: Listing, new: Files) -> None:
    """Refuse an ISO that has something where our files go. Pure.

    Raises BuilderError (MEDIUM) naming the first of them.
    """
    if clash := sorted(set(files) & set(new)):
        raise BuilderError(
            f"{name} has files of its own where ours go, {len(clash)} in all, the first is {clash[0]}",
            hint="this ISO was remastered before; media.base_iso takes Ubuntu's own",
            code=Exit.MEDIUM,
        )


def require_fit(size: int, stick_size: int | None) -> None:
    """Refuse an ISO of ``size`` bytes that a stick of ``stick_size`` bytes would not hold. Pure.

    Raises BuilderError (MEDIUM) with both numbers.
    """
    if stick_size is not None and size > stick_size:
        need, have = human(size), human(stick_size)
        if need == have:
            need, have = f"{size:,} bytes", f"{stick_size:,} bytes"
        raise BuilderError(
            f"the ISO needs {need}, and media.stick_size is {have}",
            hint="take a larger stick, or fewer models",
            code=Exit.MEDIUM,
        )


def changes(texts: Mapping[str, str], menu: Menu, source: Source) -> dict[str, bytes]:
    """Ubuntu's own files that differ on our medium: path → content. Pure."""
    changed = {
        GRUB_CFG: grubconfig.patch(texts[GRUB_CFG], menu).encode(),
        CATALOG: catalog.add(texts[CATALOG], source).encode(),
    }
    if LOOPBACK_CFG in texts:
        changed[LOOPBACK_CFG] = grubconfig.patch(texts[LOOPBACK_CFG], menu, loopback=True).encode()
    if MD5SUMS in texts:
        changed[MD5SUMS] = catalog.refresh(texts[MD5SUMS], changed).encode()
    return changed


def additions(payload: Payload, live_files: Files, autoinstall: bytes, by_hand: bytes) -> dict[str, Path | bytes]:
    """What is new on the medium: path → content. Pure.

    A layer is there twice, for the installer and for the check of the payload; its bytes are stored once.
    """
    files: dict[str, Path | bytes] = {f"{FOLDER}/{path}": file for path, file in payload.files.items()}
    files[f"{FOLDER}/manifest.json"] = payload.manifest_bytes
    files |= {f"/casper/{Path(layer).name}": payload.files[layer] for layer in payload.manifest["layers"]}
    live = LIVE.removeprefix("/cdrom")
    files |= {f"{live}/{path}": file for path, file in live_files.items()}
    return files | {AUTOINSTALL: autoinstall, BY_HAND.removeprefix("/cdrom"): by_hand}


def by_hand(source_id: str) -> bytes:
    """The document of who installs Ubuntu by hand: every question is asked, and Ubuntu's own source is offered."""
    return render.dump_yaml({"version": 1, "interactive-sections": ["*"], "source": {"id": source_id}})


def _grow(
    source_iso: Path, part: Path, before: Listing, equipment: BootReport, ours: Files, plan_id: str, epoch: int
) -> None:
    """Copy the source and let xorriso write behind it, both at once."""
    with (
        tempfile.TemporaryDirectory(prefix="builder-remaster-") as folder,
        ThreadPoolExecutor(1) as beside,
    ):
        later = imagecopy.begin(source_iso, part, _may_follow(before, equipment))
        filled = beside.submit(imagecopy.copy_past_cache, source_iso, part, later)
        said = run(grow.report_argv(source_iso), step=f"reading {source_iso.name}", code=Exit.MEDIUM).stdout
        replayed = grow.replayed(said, source_iso)
        joliet = isoimage.file_system(source_iso).joliet
        script = Path(folder) / "script"
        script.write_text(
            grow.commands(part, replayed, _staged(ours, Path(folder)), plan_id, epoch, joliet=joliet)
        )
        env = {"SOURCE_DATE_EPOCH": str(epoch)}
        run(grow.xorriso_argv(script), step=_STEP, env=env, code=Exit.MEDIUM)
        filled.result()
    os.truncate(part, bootreport.of(part).sectors * bootreport.SECTOR)
    _refresh_boot_images(part, equipment)


def _may_follow(files: Listing, equipment: BootReport) -> list[Extent]:
    """What xorriso does not read in the copy: the files' bytes, but for those of the boot images."""
    images = {image.path for image in equipment.images}
    return [extent for path, place in files.items() if path not in images for extent in place.extents]


def _sizes(files: Files) -> dict[Path | str, int]:
    """Bytes by what is stored: a file that is mapped twice counts once."""
    sizes: dict[Path | str, int] = {path: len(file) for path, file in files.items() if isinstance(file, bytes)}
    return sizes | {file: file.stat().st_size for file in files.values() if isinstance(file, Path)}


def _staged(files: Files, work: Path) -> dict[str, Path]:
    """Path on the medium → file on this machine. Only small files are written; the rest stay where they are."""
    staged = {}
    for index, (path, file) in enumerate(sorted(files.items())):
        if isinstance(file, bytes):
            staged[path] = work / f"small{index}"
            staged[path].write_bytes(file)
        else:
            staged[path] = file
    return staged


def _refresh_boot_images(part: Path, equipment: BootReport) -> None:
    """Mend the sums of the boot images in ``/md5sum.txt``, in place.

    xorriso writes a boot image's own place into it, which is not known before it is written. A sum has the same
    length whatever it is, so nothing moves.
    """
    files = isoimage.listing(part)
    if MD5SUMS not in files:
        return
    images = {
        image.path: isoimage.content(part, files[image.path]) for image in equipment.images if image.path in files
    }
    old = isoimage.content(part, files[MD5SUMS])
    new = catalog.refresh(old.decode(), images).encode()
    assert len(new) == len(old)
    with part.open("r+b") as file:
        file.seek(files[MD5SUMS].start)
        file.write(new)


def problems(source_iso: Path, part: Path, before: Listing, equipment: BootReport, ours: Files) -> list[str]:
    """How the result is not the source with our files in it, one sentence each."""
    after, result = isoimage.listing(part), bootreport.of(part)
    found = [*bootreport.differences(equipment, result), *bootreport.gpt_faults(part)]
    images = {image.path for image in equipment.images}
    found += [
        f"{path} of the source has moved or changed"
        for path, place in before.items()
        if path not in ours and path not in images and after.get(path) != place
    ]
    for path, file in sorted(ours.items()):
        size = len(file) if isinstance(file, bytes) else file.stat().st_size
        if path not in after or after[path].size != size:
            found.append(f"{path} has not the {size} bytes that it should have")
    if equipment.esp is None or result.esp is None:
        return found  # said already
    if bootreport.partition_sha256(source_iso, equipment.esp) != bootreport.partition_sha256(part, result.esp):
        found.append("the bytes of the ESP are not the source's")
    return [*found, *_unreachable(part, after, result)]


def _unreachable(part: Path, files: Listing, report: BootReport) -> list[str]:
    """What is not to be had by who mounts the ISO's partition instead of the whole medium, as casper does."""
    (iso,) = (partition for partition in report.partitions if partition.start == report.offset * 4)
    blocks = isoimage.file_system(part, report.offset).blocks
    found = []
    if blocks * 4 != iso.size:
        found.append(f"the file system in the ISO partition has {blocks} blocks, the partition {iso.size / 4:.0f}")
    beyond = [
        path
        for path, place in files.items()
        if any(extent.block * 4 + extent.size / bootreport.SECTOR > iso.end for extent in place.extents)
    ]
    if beyond:
        found.append(f"{len(beyond)} files are not within the ISO partition, the first is {sorted(beyond)[0]}")
    return found
