"""Reading an ISO: its head, xorriso's listing, GRUB's menu, Ubuntu's own words."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from builder.media import grubmenu, isoimage, liveiso
from builder.media.grubmenu import Entry
from builder.media.isoimage import HEAD, Extent, Place
from builder.media.liveiso import Info
from tests.isotrees import CATALOGUE, MENU


def head(sectors: int = 100, backup: int | None = None) -> bytes:
    data = bytearray(HEAD)
    data[0x8000:0x8006] = b"\x01CD001"
    data[0x8028:0x8048] = b"LAB".ljust(32)
    struct.pack_into("<I", data, 0x8050, sectors)
    if backup is not None:
        data[512:520] = b"EFI PART"
        struct.pack_into("<Q", data, 544, backup)
    return bytes(data)


def test_the_head_says_how_long_the_image_is() -> None:
    found = isoimage.parse_head(head())
    assert found == isoimage.Head("LAB", 100 * 2048)


def test_a_hybrid_image_ends_with_the_backup_of_its_partition_table() -> None:
    found = isoimage.parse_head(head(backup=999))
    assert found is not None and found.need == 1000 * 512
    found = isoimage.parse_head(head(backup=10))
    assert found is not None and found.need == 100 * 2048


@pytest.mark.parametrize("data", [b"", b"<html>", bytes(HEAD), head()[:-1]])
def test_what_is_no_iso(data: bytes) -> None:
    assert isoimage.parse_head(data) is None


def test_the_listing_of_xorriso() -> None:
    text = (
        "Report layout: xt , Startlba ,   Blocks , Filesize , ISO image path\n"
        "File data lba:  0 ,       37 ,        1 ,        6 , '/.disk/info'\n"
        "File data lba:  0 ,      800 ,  2097151 , 4294971392 , '/big'\n"
        "File data lba:  1 ,  2097951 ,        3 , 4294971392 , '/big'\n"
        "File data lba:  0 ,       38 ,        1 ,        2 , '/it'\"'\"'s a file'\n"
        "File data lba:  0 ,       39 ,        1 ,        1 , '/new\nline'\n"
        "File data lba:  0 ,       36 ,        0 ,        0 , '/empty'\n"
        "Drive current: -indev 'stdio:/x/y.iso'\n"
    )
    found = isoimage.parse_listing(text)
    assert found == {
        "/.disk/info": Place((Extent(37, 6),)),
        "/big": Place((Extent(800, 2097151 * 2048), Extent(2097951, 6144))),
        "/it's a file": Place((Extent(38, 2),)),
        "/new\nline": Place((Extent(39, 1),)),
        "/empty": Place((Extent(36, 0),)),
    }
    assert (found["/big"].start, found["/big"].size) == (800 * 2048, 4294971392)


def test_the_command_line() -> None:
    assert isoimage.argv(Path("/x/y.iso")) == [
        *("xorriso", "-no_rc", "-abort_on", "FAILURE", "-iso_rr_pattern", "off", "-indev", "stdio:/x/y.iso"),
        *("-find", "/", "-type", "f", "-exec", "report_lba", "--"),
    ]


def test_ubuntu_s_menu_has_one_kernel_of_linux() -> None:
    assert grubmenu.entries(MENU) == (Entry(("Try or Install Ubuntu Server",), "/casper/vmlinuz", ("---",)),)


@pytest.mark.parametrize(
    ("written", "arguments", "lost"),
    [
        (r"autoinstall ds=nocloud\;s=/cdrom/x/ ---", ("autoinstall", "ds=nocloud;s=/cdrom/x/", "---"), ""),
        ('"ds=nocloud;s=/cdrom/x/" quiet', ("ds=nocloud;s=/cdrom/x/", "quiet"), ""),
        ("'ds=nocloud;s=/cdrom/x/'", ("ds=nocloud;s=/cdrom/x/",), ""),
        ("ds=nocloud;s=/cdrom/x/ quiet", ("ds=nocloud",), "s=/cdrom/x/ quiet"),
        ("a#b $c d=${e}", ("a#b", "$c", "d=${e}"), ""),
        ("one \\\n  two", ("one", "two"), ""),
    ],
)
def test_a_kernel_line_is_read_as_grub_reads_it(written: str, arguments: tuple[str, ...], lost: str) -> None:
    (entry,) = grubmenu.entries(f"menuentry 'X' --id x {{\n  linux /vmlinuz {written}\n}}\n")
    assert (entry.arguments, entry.lost) == (arguments, lost)


def test_submenus_name_their_entries() -> None:
    text = """\
# menuentry "not me" { linux /no }
linux /first
submenu "By name" {
  menuentry "node1" {
    linuxefi /a x=1 x=2 y
  }
  menuentry bare { # not a title's end
    linux /b
  }
}
function f {
  linux /c "not ended
}
menuentry "last" {
  linux /d
}
"""
    found = grubmenu.entries(text)
    assert [(entry.title, entry.kernel) for entry in found] == [
        ("(no title)", "/first"),
        ("By name > node1", "/a"),
        ("By name > bare", "/b"),
        ("last", "/d"),
    ]
    assert (found[1].value("x"), found[1].value("y")) == ("2", None)


@pytest.mark.parametrize(
    ("text", "info"),
    [
        (
            'Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release amd64 (20250805.1)',
            Info("Ubuntu-Server", "24.04.3", "amd64"),
        ),
        (
            'Ubuntu-Server 26.04 LTS "Resolute Raccoon" - Daily amd64 (20260210)\n',
            Info("Ubuntu-Server", "26.04", "amd64"),
        ),
        (
            'Ubuntu-Server 24.04.3 LTS "Noble Numbat" - Release arm64 (20250805.1)',
            Info("Ubuntu-Server", "24.04.3", "arm64"),
        ),
        ("Ubuntu-Server 26.04.1", Info("Ubuntu-Server", "26.04.1", "")),
        ("Debian GNU/Linux 13.0.0", None),
        ("quickstart 0123456789abcdef", None),
        ("Ubuntu-Server 24.04.3x", None),
        ("", None),
    ],
)
def test_disk_info(text: str, info: Info | None) -> None:
    assert liveiso.parse_info(text) == info


def test_the_release_of_a_point_release() -> None:
    assert Info("Ubuntu-Server", "24.04.3", "amd64").release == "24.04"
    assert Info("Ubuntu-Server", "26.04", "amd64").release == "26.04"


def test_the_catalogue_has_two_forms() -> None:
    first = liveiso.parse_catalogue(CATALOGUE)
    assert [(source.id, source.size, source.default) for source in first] == [
        ("ubuntu-server-minimal", 596627456, False),
        ("ubuntu-server", 1233199104, True),
    ]
    indented = "".join(f"  {line}\n" for line in CATALOGUE.splitlines())
    second = f"version: 2\nkernel:\n  default: linux-generic\nsources:\n{indented}"
    assert liveiso.parse_catalogue(second) == first


@pytest.mark.parametrize("text", ["", "7", "{", "[7]", "- id: x", "version: 2", "- &a [*a]"])
def test_what_is_no_catalogue(text: str) -> None:
    assert liveiso.parse_catalogue(text) == ()
