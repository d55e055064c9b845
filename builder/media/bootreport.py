"""The boot equipment of an ISO image, as a value: what firmware finds, and what partitioning tools see.

Read from xorriso's own reports (``-report_el_torito plain``, ``-report_system_area plain``), so that what is
compared is what a reader makes of the image, not what was meant to be written. The GUID partition table is
besides checked byte for byte, since firmware refuses one whose checksums or places are wrong.
"""

from __future__ import annotations

import binascii
import hashlib
import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError, Exit
from builder.run import run

SECTOR = 512  # bytes; partition tables and El Torito load sizes count these
ESP_TYPE = "28732ac11ff8d211ba4b00a0c93ec93b"
_EFI = "UEFI"
_FILLER = re.compile(r"Gap\d+")  # xorriso names so what only keeps a gap from looking free


@dataclass(frozen=True)
class BootImage:
    """An entry of the El Torito catalogue. ``load`` in sectors, ``block`` in blocks of 2048 bytes.

    ``path`` is empty for an image that is no file of the ISO: the appended ESP.
    """

    platform: str
    bootable: bool
    emulation: str
    segment: str
    hard_disk: str
    load: int
    block: int
    path: str = ""
    options: frozenset[str] = frozenset()

    @property
    def shape(self) -> tuple[object, ...]:
        """All but where it lies."""
        return (
            *(self.platform, self.bootable, self.emulation, self.segment, self.hard_disk),
            *(self.load, self.path, self.options),
        )


@dataclass(frozen=True)
class Partition:
    """A GPT partition. ``start`` and ``size`` in sectors; ``type`` as 32 hex digits in the order of the disk."""

    number: int
    name: str
    type: str
    flags: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size

    @property
    def shape(self) -> tuple[object, ...]:
        """All but where it lies and how large it is."""
        return (self.number, self.name, self.type, self.flags)


@dataclass(frozen=True)
class MbrPartition:
    """An entry of the master boot record. ``start`` and ``size`` in sectors."""

    number: int
    status: str
    type: str
    start: int
    size: int


@dataclass(frozen=True)
class BootReport:
    """See the module. ``sectors``: the image's size; ``offset``: the partition offset, in blocks of 2048 bytes."""

    sectors: int
    offset: int
    system_area: frozenset[str]
    catalog: str
    images: tuple[BootImage, ...]
    mbr: tuple[MbrPartition, ...]
    partitions: tuple[Partition, ...]

    @property
    def esp(self) -> Partition | None:
        """The EFI system partition, if there is exactly one."""
        found = [partition for partition in self.partitions if partition.type == ESP_TYPE]
        return found[0] if len(found) == 1 else None

    @property
    def lasting(self) -> tuple[Partition, ...]:
        """The partitions that hold something; those that fill gaps come and go."""
        return tuple(partition for partition in self.partitions if not _FILLER.fullmatch(partition.name))


def argv(iso: Path) -> list[str | Path]:
    """The command whose output :func:`parse` reads. Pure."""
    return [
        *("xorriso", "-no_rc", "-report_about", "SORRY", "-indev", f"stdio:{iso}"),
        *("-report_el_torito", "plain", "-report_system_area", "plain"),
    ]


def of(iso: Path) -> BootReport:
    """The boot equipment of an image.

    Raises BuilderError (MEDIUM) if the file is no ISO image, or its report cannot be understood.
    """
    return parse(run(argv(iso), step=f"reading the boot equipment of {iso.name}", code=Exit.MEDIUM).stdout)


def parse(report: str) -> BootReport:
    """Read both plain reports, one after the other. Pure.

    Raises BuilderError (MEDIUM) naming what is missing.
    """
    lines = [line.partition(":") for line in report.splitlines()]
    said: dict[str, list[str]] = {}
    for title, _, value in lines:
        said.setdefault(title.strip(), []).append(value.strip())
    try:
        return BootReport(
            sectors=int(said["ISO image size/512"][0]),
            offset=int(said.get("Partition offset", ["0"])[0]),
            system_area=frozenset(said["System area summary"][0].split()),
            catalog=said.get("El Torito cat path", [""])[0],
            images=tuple(_images(said)),
            mbr=tuple(_mbr(row.split()) for row in said.get("MBR partition", [])),
            partitions=tuple(_partitions(said)),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise BuilderError(
            f"xorriso's report of the boot equipment cannot be understood: {error!r}",
            hint="another version of xorriso, or an image without a partition table?",
            code=Exit.MEDIUM,
        ) from error


def _images(said: dict[str, list[str]]) -> Iterator[BootImage]:
    paths = _numbered(said.get("El Torito img path", []))
    options = _numbered(said.get("El Torito img opts", []))
    for row in said.get("El Torito boot img", []):
        number, platform, bootable, emulation, segment, hard_disk, load, block = row.split()
        yield BootImage(
            platform=platform,
            bootable=bootable == "y",
            emulation=emulation,
            segment=segment,
            hard_disk=hard_disk,
            load=int(load),
            block=int(block),
            path=paths.get(number, ""),
            options=frozenset(options.get(number, "").split()),
        )


def _mbr(words: list[str]) -> MbrPartition:
    number, status, kind, start, size = words
    return MbrPartition(int(number), status, kind, int(start), int(size))


def _partitions(said: dict[str, list[str]]) -> Iterator[Partition]:
    names = _numbered(said.get("GPT partname local", []))
    types = _numbered(said.get("GPT type GUID", []))
    flags = _numbered(said.get("GPT partition flags", []))
    for number, place in _numbered(said.get("GPT start and size", [])).items():
        start, size = place.split()
        yield Partition(int(number), names[number], types[number], flags[number], int(start), int(size))


def _numbered(rows: list[str]) -> dict[str, str]:
    split = [row.split(None, 1) for row in rows]
    return {words[0]: words[1] if len(words) > 1 else "" for words in split}


def differences(source: BootReport, result: BootReport) -> list[str]:
    """How the boot equipment of ``result`` is not what ``source`` has, one sentence each. Pure.

    Places and sizes may differ, as the image has grown; what is where, and how it hangs together, may not.
    """
    found = []
    for what, old, new in (
        ("El Torito entries", [i.shape for i in source.images], [i.shape for i in result.images]),
        ("El Torito catalogue", source.catalog, result.catalog),
        ("system area", sorted(source.system_area), sorted(result.system_area)),
        ("partition offset", source.offset, result.offset),
        ("GPT partitions", [p.shape for p in source.lasting], [p.shape for p in result.lasting]),
        (
            "MBR partitions",
            [(p.number, p.status, p.type) for p in source.mbr],
            [(p.number, p.status, p.type) for p in result.mbr],
        ),
        ("size of the ESP", source.esp and source.esp.size, result.esp and result.esp.size),
    ):
        if old != new:
            found.append(f"{what}: {old!r} in the source, {new!r} in the result")
    return [*found, *faults(result)]


def faults(report: BootReport) -> list[str]:
    """What does not hang together within one image, one sentence each. Pure."""
    found = []
    esp = report.esp
    efi = [image for image in report.images if image.platform == _EFI]
    if esp is None:
        found.append("there is no EFI system partition, or more than one")
    elif [(image.block * 4, image.load) for image in efi] != [(esp.start, esp.size)]:
        found.append(f"El Torito's UEFI entry does not point at the ESP: {efi}, ESP at {esp.start}+{esp.size}")
    for protective in (entry for entry in report.mbr if entry.type == "0xee"):
        if protective.start + protective.size != report.sectors:
            found.append(f"the protective MBR ends at {protective.start + protective.size} of {report.sectors}")
    by_place = sorted(report.partitions, key=lambda partition: partition.start)
    for one, other in itertools.pairwise(by_place):
        if one.end > other.start:
            found.append(f"partitions {one.number} and {other.number} overlap")
    if by_place and by_place[-1].end > report.sectors:
        found.append(f"partition {by_place[-1].number} reaches beyond the image")
    iso = [partition for partition in report.partitions if partition.start == report.offset * 4]
    if not report.offset or not iso:
        found.append("no partition begins where the ISO 9660 file system can be mounted from one")
    elif esp and esp.start > iso[0].start and iso[0].end != esp.start:
        found.append(
            f"the ISO partition ends at {iso[0].end}, and what follows it, the ESP, begins at {esp.start}"
        )
    return found


def gpt_faults(iso: Path) -> list[str]:
    """What is wrong with the GUID partition table on disk, both copies, one sentence each (UEFI 2.10, 5.3)."""
    last = iso.stat().st_size // SECTOR - 1
    found = []
    with iso.open("rb") as file:
        for which, at, other in (("primary", 1, last), ("backup", last, 1)):
            file.seek(at * SECTOR)
            header = file.read(SECTOR)
            if header[:8] != b"EFI PART":
                found.append(f"no {which} GPT in sector {at}, the image's {'second' if at == 1 else 'last'}")
                continue
            size, checksum = struct.unpack_from("<II", header, 12)
            mine, alternate = struct.unpack_from("<QQ", header, 24)
            table, count, entry, table_checksum = struct.unpack_from("<QIII", header, 72)
            if (mine, alternate) != (at, other):
                found.append(
                    f"the {which} GPT says it is in {mine} with a copy in {alternate}, not {at} and {other}"
                )
            if binascii.crc32(header[:16] + bytes(4) + header[20:size]) != checksum:
                found.append(f"the checksum of the {which} GPT is wrong")
            file.seek(table * SECTOR)
            if binascii.crc32(file.read(count * entry)) != table_checksum:
                found.append(f"the checksum of the {which} GPT's entries is wrong")
    return found


def partition_sha256(iso: Path, partition: Partition) -> str:
    """The SHA-256 of a partition's bytes. For small ones: all of it comes into memory."""
    with iso.open("rb") as file:
        file.seek(partition.start * SECTOR)
        return hashlib.sha256(file.read(partition.size * SECTOR)).hexdigest()
