"""Disk images, made and looked into with the real sfdisk and e2fsprogs."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from builder.run import run, which
from builder.verify.disks import (
    BYSTANDER_SIZE,
    GIB,
    MIB,
    check_clean,
    digest,
    ext_partitions,
    make_blank,
    make_bystander,
    make_copy,
    partitions,
    read_file,
)
from builder.verify.report import StepFailed

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(not (which("sfdisk") and which("mke2fs")), reason="sfdisk or mke2fs is not installed"),
]
ROOT_AT = 34 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """8 GiB, sparse: an ESP and an ext4 root that holds var/log/install.log."""
    path = tmp_path / "disk.raw"
    make_blank(path, 8 * GIB)
    layout = "label: gpt\nstart=1MiB, size=32MiB, type=U, name=esp\nstart=34MiB, size=100MiB, type=L, name=root\n"
    run(["sfdisk", "-q", path], step="partitioning", stdin=layout)
    root = tmp_path / "root"
    (root / "var/log").mkdir(parents=True)
    (root / "var/log/install.log").write_text("unpack: done\n")
    argv: list[str | Path] = [
        "mke2fs",
        "-q",
        "-F",
        "-t",
        "ext4",
        "-O",
        "^metadata_csum",
        "-d",
        root,
        "-E",
        f"offset={ROOT_AT}",
        path,
        "100M",
    ]
    run(argv, step="making root")
    return path


def test_partitions_and_file_systems(disk: Path) -> None:
    assert [(one.number, one.offset, one.size, one.name) for one in partitions(disk)] == [
        (1, MIB, 32 * MIB, "esp"),
        (2, ROOT_AT, 100 * MIB, "root"),
    ]
    assert [one.name for one in ext_partitions(disk)] == ["root"]


def test_a_clean_file_system_is_evidence(disk: Path) -> None:
    said = check_clean(disk)
    assert "partition 2 (root)" in said
    assert "Filesystem state:" in said


def test_a_journal_to_replay_is_found(disk: Path) -> None:
    """Pitfall: a machine killed at "installed" leaves needs_recovery; later edits vanish at the replay."""
    with disk.open("r+b") as file:
        at = ROOT_AT + 1024 + 0x60  # s_feature_incompat
        (flags,) = struct.unpack("<I", os.pread(file.fileno(), 4, at))
        os.pwrite(file.fileno(), struct.pack("<I", flags | 0x4), at)  # EXT4_FEATURE_INCOMPAT_RECOVER
    with pytest.raises(StepFailed, match=r"partition 2 \(root\)") as caught:
        check_clean(disk)
    assert "was not unmounted by the installer" in caught.value.reason
    assert "needs_recovery" in caught.value.evidence


@pytest.mark.parametrize(
    ("at", "head", "kind"), [(512, b"LABELONE", "LVM"), (0, b"LUKS\xba\xbe\0\x02", "LUKS")], ids=["lvm", "luks"]
)
def test_what_holds_the_file_systems_is_named(disk: Path, at: int, head: bytes, kind: str) -> None:
    """As subiquity makes it; nothing is passed that nobody looked at."""
    with disk.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(4 * MIB), ROOT_AT)
    with pytest.raises(StepFailed, match="no ext4 file system"):
        check_clean(disk)
    with disk.open("r+b") as file:
        os.pwrite(file.fileno(), head, ROOT_AT + at)
    assert check_clean(disk) == f"partition 2 (root): {kind}, not looked into"


def test_a_blank_disk_is_not_an_install(tmp_path: Path) -> None:
    make_blank(tmp_path / "blank.raw", MIB)
    with pytest.raises(StepFailed, match="has no GPT"):
        check_clean(tmp_path / "blank.raw")
    assert not read_file(tmp_path / "blank.raw", "/x", tmp_path / "x")


def test_the_install_log_is_taken_off_the_disk(disk: Path, tmp_path: Path) -> None:
    assert read_file(disk, "/var/log/install.log", tmp_path / "log")
    assert (tmp_path / "log").read_text() == "unpack: done\n"
    assert not read_file(disk, "/var/log/other.log", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_digest_sees_data_and_not_holes(tmp_path: Path) -> None:
    path = tmp_path / "d.raw"
    make_blank(path, 4 * GIB + 5)
    blank = digest(path)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(3 * MIB), GIB + 7)
    assert digest(path) == blank, "zeros written are what a hole reads as"
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"\1", 4 * GIB + 4)
    changed = digest(path)
    assert changed != blank
    make_copy(tmp_path / "copy.raw", path, MIB)
    assert digest(tmp_path / "copy.raw") == changed
    assert (tmp_path / "copy.raw").stat().st_blocks * 512 < 64 * MIB


def test_the_bystander_is_a_file_system_with_data(tmp_path: Path) -> None:
    path = tmp_path / "bystander.raw"
    make_bystander(path)
    assert path.stat().st_size == BYSTANDER_SIZE
    assert [entry.name for entry in tmp_path.iterdir()] == ["bystander.raw"]
    said = run(["dumpe2fs", "-h", path], step="looking").stdout
    assert "bystander" in said
    before = digest(path)
    run(["tune2fs", "-L", "touched", path], step="touching")
    assert digest(path) != before
