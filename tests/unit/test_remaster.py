"""The remaster's decisions: which commands, which files, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from builder.errors import BuilderError, Exit
from builder.media import bootreport, grow, grubconfig, remaster
from builder.media.catalog import CATALOG, MD5SUMS, Source
from builder.media.isoimage import Extent, Place
from builder.media.payload import Payload
from tests import liveserver
from tests.unit.test_bootreport import SOURCE
from tests.unit.test_grubconfig import MENU

SHA = "0123456789abcdef" * 4
# What xorriso reports of an ISO laid out as Ubuntu's is: -report_el_torito cmd.
REPORT = """\
-volid 'Ubuntu-Server 24.04.3 LTS amd64'
-volume_date uuid '2025080513200000'
-boot_image grub grub2_mbr=--interval:imported_iso:0s-15s:zero_mbrpt,zero_gpt:'n.iso'
-boot_image any partition_table=on
-boot_image any partition_cyl_align=off
-boot_image any partition_offset=16
-boot_image any partition_hd_cyl=64
-boot_image any partition_sec_hd=32
-boot_image any mbr_force_bootable=on
-append_partition 2 28732ac11ff8d211ba4b00a0c93ec93b --interval:imported_iso:73132d-85419d::'n.iso'
-boot_image any appended_part_as=gpt
-boot_image any iso_mbr_part_type=a2a0d0ebe5b9334487c068b6b72699c7
-boot_image any cat_path='/boot.catalog'
-boot_image grub bin_path='/boot/grub/i386-pc/eltorito.img'
-boot_image any platform_id=0x00
-boot_image any emul_type=no_emulation
-boot_image any load_size=2048
-boot_image any boot_info_table=on
-boot_image grub grub2_boot_info=on
-boot_image any next
-boot_image any efi_path='--interval:appended_partition_2_start_18283s_size_12288d:all::'
-boot_image any platform_id=0xef
-boot_image any emul_type=no_emulation
-boot_image any load_size=6291456
"""


def test_the_whole_script(golden: Callable[[str, str], None]) -> None:
    files = {
        "/casper/node.squashfs": Path("/made/it's a layer"),
        "/builder/layers/node.squashfs": Path("/made/it's a layer"),
        "/builder/manifest.json": Path("/made/small0"),
        "/boot/grub/grub.cfg": Path("/made/small1"),
    }
    equipment = grow.replayed(REPORT, Path("/in/source: a.iso"))
    script = grow.commands(Path("/out.iso.part"), equipment, files, SHA, 1_700_000_000, joliet=True)
    golden("ubuntu/grow.txt", script)


def test_command_lines() -> None:
    assert grow.report_argv(Path("/a b.iso")) == [
        *("xorriso", "-no_rc", "-report_about", "SORRY", "-indev", "stdio:/a b.iso", "-report_el_torito", "cmd")
    ]
    assert grow.xorriso_argv(Path("/script")) == [
        *("xorriso", "-no_rc", "-abort_on", "SORRY", "-return_with", "SORRY", "32"),
        *("-report_about", "WARNING", "-options_from_file", Path("/script")),
    ]


def test_the_equipment_is_the_reports_and_nothing_else() -> None:
    """All but where it is read from, which appended partition is meant, and the date."""
    lines = [line for line in REPORT.splitlines() if not line.startswith("-volume_date")]
    replayed = grow.replayed(REPORT, Path("/s.iso"))
    assert [words[0] for words in replayed] == [line.split()[0] for line in lines]
    intervals = [word for words in replayed for word in words if "--interval:" in word]
    assert intervals == [
        "grub2_mbr=--interval:local_fs:0s-15s:zero_mbrpt,zero_gpt:/s.iso",
        "--interval:local_fs:73132d-85419d::/s.iso",
        "efi_path=--interval:appended_partition_2:all::",
    ]
    plain = [words for words in replayed if not any("--interval:" in word for word in words)]
    assert plain == [
        ["-volid", "Ubuntu-Server 24.04.3 LTS amd64"],
        *(line.replace("'", "").split() for line in lines[1:] if "--interval:" not in line),
    ]


def test_an_esp_that_is_a_file_is_refused() -> None:
    report = "\n".join(line for line in REPORT.splitlines() if not line.startswith("-append_partition"))
    with pytest.raises(BuilderError, match=r"s\.iso: its ESP is not an appended partition") as caught:
        grow.replayed(report, Path("/s.iso"))
    assert caught.value.code == Exit.MEDIUM


def test_what_is_new_and_what_changes() -> None:
    layers = ["layers/node.squashfs", "layers/node.site.squashfs"]
    payload = Payload(
        {"layers": layers},
        {**{layer: Path("/made") / layer for layer in layers}, "seeds/node1/user-data": b"#cloud-config\n"},
    )
    new = remaster.additions(payload, {"installer/pick.py": b"pass\n"}, b"version: 1\n", b"by hand\n")
    assert new == {
        "/autoinstall.yaml": b"version: 1\n",
        "/builder/layers/node.site.squashfs": Path("/made/layers/node.site.squashfs"),
        "/builder/layers/node.squashfs": Path("/made/layers/node.squashfs"),
        "/builder/live/by-hand.yaml": b"by hand\n",
        "/builder/live/installer/pick.py": b"pass\n",
        "/builder/manifest.json": payload.manifest_bytes,
        "/builder/seeds/node1/user-data": b"#cloud-config\n",
        "/casper/node.site.squashfs": Path("/made/layers/node.site.squashfs"),
        "/casper/node.squashfs": Path("/made/layers/node.squashfs"),
    }
    texts = {grubconfig.GRUB_CFG: liveserver.menu(), CATALOG: liveserver.catalog(1)}
    ours = Source("node.site.squashfs", 1, "a", "b")
    assert set(remaster.changes(texts, MENU, ours)) == {grubconfig.GRUB_CFG, CATALOG}
    more = {**texts, grubconfig.LOOPBACK_CFG: liveserver.loopback_menu(), MD5SUMS: ""}
    assert set(remaster.changes(more, MENU, ours)) == set(more)


def test_by_hand_every_question_is_asked() -> None:
    assert yaml.safe_load(remaster.by_hand("ubuntu-server")) == {
        "version": 1,
        "interactive-sections": ["*"],
        "source": {"id": "ubuntu-server"},
    }


def test_an_iso_that_is_no_live_server_is_refused_with_all_that_is_missing() -> None:
    there = {path: Place((Extent(1, 1),)) for path in ("/.disk/info", "/casper/vmlinuz", "/casper/initrd")}
    with pytest.raises(BuilderError) as caught:
        remaster.require_live_server("x.iso", there, SOURCE)
    assert "it has no /boot/grub/grub.cfg" in caught.value.message
    assert f"it has no {CATALOG}" in caught.value.message
    whole = there | {grubconfig.GRUB_CFG: Place((Extent(1, 1),)), CATALOG: Place((Extent(1, 1),))}
    remaster.require_live_server("x.iso", whole, SOURCE)
    headless = bootreport.BootReport(100, 0, frozenset(), "", (), (), ())
    with pytest.raises(BuilderError, match="no EFI system partition"):
        remaster.require_live_server("x.iso", whole, headless)


def test_a_stick_that_is_too_small_is_told_in_numbers() -> None:
    remaster.require_fit(5 << 30, None)
    remaster.require_fit(5 << 30, 5 << 30)
    with pytest.raises(BuilderError, match=r"needs 5\.0 GiB, and media\.stick_size is 4\.0 GiB"):
        remaster.require_fit(5 << 30, 4 << 30)
    with pytest.raises(BuilderError, match=r"needs 5,368,709,121 bytes, and media\.stick_size is 5,368,709,120"):
        remaster.require_fit((5 << 30) + 1, 5 << 30)


def test_a_copy_between_file_systems_that_cannot_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"bytes" * 1000)

    def no_such_thing(*_arguments: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.copy_file_range", no_such_thing)
    remaster.copy(source, target)
    assert target.read_bytes() == source.read_bytes()
