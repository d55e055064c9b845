"""Boot equipment as a value, from a report of xorriso's on an ISO laid out as Ubuntu's is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import BuilderError, Exit
from builder.media import bootreport, isoimage
from builder.media.bootreport import BootImage, BootReport, MbrPartition, Partition

BASIC_DATA = "a2a0d0ebe5b9334487c068b6b72699c7"
REPORT = """\
El Torito catalog  : 168  1
El Torito cat path : /boot.catalog
El Torito images   :   N  Pltf  B   Emul  Ld_seg  Hdpt  Ldsiz         LBA
El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4         169
El Torito boot img :   2  UEFI  y   none  0x0000  0x00  12288       18283
El Torito img path :   1  /boot/grub/i386-pc/eltorito.img
El Torito img opts :   1  boot-info-table grub2-boot-info
El Torito img blks :   2  3072
System area options: 0x00004201
System area summary: MBR protective-msdos-label grub2-mbr cyl-align-off GPT
ISO image size/512 : 86084
Partition offset   : 16
MBR heads per cyl  : 64
MBR secs per head  : 32
MBR partition table:   N Status  Type        Start       Blocks
MBR partition      :   1   0x00  0xee            1        86083
MBR partition      :   2   0x80  0x00            0            1
GPT                :   N  Info
GPT disk GUID      :      0a3c8b4d5e1f3f4a9b632404d00d2404
GPT entry array    :      2  248  separated
GPT lba range      :      64  86020  86083
GPT partition name :   1  490053004f003900360036003000
GPT partname local :   1  ISO9660
GPT partition GUID :   1  0a3c8b4d5e1f3f4a9b622404d00d2404
GPT type GUID      :   1  a2a0d0ebe5b9334487c068b6b72699c7
GPT partition flags:   1  0x1000000000000001
GPT start and size :   1  64  73068
GPT partition name :   2  41007000700065006e006400650064003200
GPT partname local :   2  Appended2
GPT partition GUID :   2  0a3c8b4d5e1f3f4a9b612404d00d2404
GPT type GUID      :   2  28732ac11ff8d211ba4b00a0c93ec93b
GPT partition flags:   2  0x0000000000000000
GPT start and size :   2  73132  12288
GPT partition name :   3  4700610070003100
GPT partname local :   3  Gap1
GPT partition GUID :   3  0a3c8b4d5e1f3f4a9b602404d00d2404
GPT type GUID      :   3  a2a0d0ebe5b9334487c068b6b72699c7
GPT partition flags:   3  0x1000000000000001
GPT start and size :   3  85420  600
"""
ISO = Partition(1, "ISO9660", BASIC_DATA, "0x1000000000000001", 64, 73068)
ESP = Partition(2, "Appended2", bootreport.ESP_TYPE, "0x0000000000000000", 73132, 12288)
GAP = Partition(3, "Gap1", BASIC_DATA, "0x1000000000000001", 85420, 600)
BIOS = BootImage(
    platform="BIOS",
    bootable=True,
    emulation="none",
    segment="0x0000",
    hard_disk="0x00",
    load=4,
    block=169,
    path="/boot/grub/i386-pc/eltorito.img",
    options=frozenset({"boot-info-table", "grub2-boot-info"}),
)
UEFI = BootImage("UEFI", True, "none", "0x0000", "0x00", 12288, 18283)
SOURCE = BootReport(
    sectors=86084,
    offset=16,
    system_area=frozenset({"MBR", "protective-msdos-label", "grub2-mbr", "cyl-align-off", "GPT"}),
    catalog="/boot.catalog",
    images=(BIOS, UEFI),
    mbr=(MbrPartition(1, "0x00", "0xee", 1, 86083), MbrPartition(2, "0x80", "0x00", 0, 1)),
    partitions=(ISO, ESP, GAP),
)
# The same, grown by 1000 blocks of 2048 bytes: what a right remaster looks like.
GROWN = replace(
    SOURCE,
    sectors=90084,
    images=(replace(BIOS, block=20000), replace(UEFI, block=19283)),
    mbr=(MbrPartition(1, "0x00", "0xee", 1, 90083), MbrPartition(2, "0x80", "0x00", 0, 1)),
    partitions=(replace(ISO, size=77068), replace(ESP, start=77132), replace(GAP, start=89420)),
)


def test_the_report_is_read_whole() -> None:
    assert bootreport.parse(REPORT) == SOURCE


def test_a_grown_image_is_alike() -> None:
    assert bootreport.faults(SOURCE) == []
    assert bootreport.differences(SOURCE, SOURCE) == []
    assert bootreport.differences(SOURCE, GROWN) == []
    assert bootreport.differences(SOURCE, replace(GROWN, partitions=GROWN.partitions[:2])) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"images": GROWN.images[:1]}, "El Torito entries"),
        ({"images": ()}, "El Torito entries"),
        ({"images": (replace(BIOS, load=2048), GROWN.images[1])}, "El Torito entries"),
        ({"images": (replace(BIOS, path="/other"), GROWN.images[1])}, "El Torito entries"),
        ({"images": (replace(BIOS, options=frozenset()), GROWN.images[1])}, "El Torito entries"),
        ({"images": (BIOS, UEFI)}, "does not point at the ESP"),
        ({"catalog": ""}, "El Torito catalogue"),
        ({"system_area": frozenset({"MBR", "GPT"})}, "system area"),
        ({"offset": 0}, "partition offset"),
        ({"partitions": (GROWN.partitions[0],)}, "no EFI system partition"),
        ({"partitions": (GROWN.partitions[1],)}, "GPT partitions"),
        ({"partitions": (*GROWN.partitions[:2], replace(GAP, name="More", start=89420))}, "GPT partitions"),
        ({"partitions": (replace(ISO, size=77068), replace(ESP, type=BASIC_DATA, start=77132))}, "GPT partitions"),
        ({"partitions": (ISO, *GROWN.partitions[1:])}, "the ISO partition ends at 73132"),
        ({"partitions": (replace(ISO, size=80000), *GROWN.partitions[1:])}, "partitions 1 and 2 overlap"),
        ({"partitions": (*GROWN.partitions[:2], replace(GAP, start=89420, size=700))}, "reaches beyond"),
        ({"mbr": SOURCE.mbr}, "the protective MBR ends at 86084 of 90084"),
        ({"mbr": GROWN.mbr[:1]}, "MBR partitions"),
    ],
)
def test_what_differs_is_told(changed: dict[str, object], says: str) -> None:
    found = bootreport.differences(SOURCE, replace(GROWN, **changed))  # type: ignore[arg-type]
    assert any(says in line for line in found), found


@pytest.mark.parametrize(
    "damage", [("ISO image size/512 : 86084\n", ""), ("  12288       18283", ""), ("0xee ", "")]
)
def test_a_report_that_cannot_be_understood_is_an_error(damage: tuple[str, str]) -> None:
    with pytest.raises(BuilderError, match="cannot be understood") as caught:
        bootreport.parse(REPORT.replace(*damage))
    assert caught.value.code == Exit.MEDIUM


def test_command_lines() -> None:
    assert bootreport.argv(Path("/a b.iso")) == [
        *("xorriso", "-no_rc", "-report_about", "SORRY", "-indev", "stdio:/a b.iso"),
        *("-report_el_torito", "plain", "-report_system_area", "plain"),
    ]


def test_a_file_without_a_file_system_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    path.write_bytes(bytes(100_000))
    with pytest.raises(BuilderError, match="no ISO 9660 file system"):
        isoimage.file_system(path)
    assert bootreport.gpt_faults(path) == [
        "no primary GPT in sector 1, the image's second",
        "no backup GPT in sector 194, the image's last",
    ]
