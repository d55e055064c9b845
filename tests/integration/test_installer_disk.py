"""The installer's disk work with the real programs, on image files and, where possible, loop devices."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from builder.installer import disk, facts, guard, layout, report, system
from builder.installer.model import Disk, InstallError, Storage, Want
from tests.integration.imagelab import GIB, MIB, can_mount, need, sparse, tool

pytestmark = pytest.mark.tools


def test_what_the_boot_image_lacks_is_named_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "PROGRAMS", ("mount", "mkfs.none"))
    monkeypatch.setattr(disk, "FILE_SYSTEMS", ("proc", "nonefs"))
    with pytest.raises(InstallError, match=r"the boot image lacks mkfs\.none, the nonefs driver"):
        disk.require()


@pytest.mark.parametrize(
    "storage",
    [
        Storage(100 * MIB, None, 0),
        Storage(100 * MIB, None, GIB),
        Storage(100 * MIB, GIB, None),
        Storage(MIB, GIB, GIB),
    ],
    ids=["root-rest", "root-rest-models", "models-rest", "fixed"],
)
def test_sfdisk_makes_exactly_the_layout(storage: Storage, tmp_path: Path) -> None:
    need("sfdisk")
    size = 4 * GIB + 12345
    image = sparse(tmp_path / "disk", size)
    plan = layout.plan(storage, size, 100 * MIB)
    disk.partition(str(image), plan, 512)
    table = json.loads(tool("sfdisk", "--json", image))["partitiontable"]
    assert table["label"] == "gpt"
    made = {part["name"]: part for part in table["partitions"]}
    assert set(made) == {part.name for part in plan.partitions}
    for part in plan.partitions:
        found = made[part.name]
        assert found["node"].endswith(f"disk{part.number}")
        assert (found["start"] * 512, found["size"] * 512) == (part.start, part.size)
    assert "No errors detected" in tool("sfdisk", "--verify", image)


def test_a_disk_is_cleared_and_partitioned_again(tmp_path: Path) -> None:
    """A second install onto a node of ours, with another layout, leaves nothing of the first."""
    need("sfdisk", "wipefs")
    image = sparse(tmp_path / "disk", 4 * GIB)
    first = layout.plan(Storage(100 * MIB, None, GIB), 4 * GIB, 0)
    disk.partition(str(image), first, 512)
    disk.clear(Disk("disk", str(image)))
    assert tool("wipefs", image) == ""
    disk.partition(str(image), layout.plan(Storage(100 * MIB, None, 0), 4 * GIB, 0), 512)
    names = [part["name"] for part in json.loads(tool("sfdisk", "--json", image))["partitiontable"]["partitions"]]
    assert names == ["builder-bios", "builder-esp", "builder-root"]


@pytest.mark.parametrize(
    ("device", "number", "name"),
    [
        ("/dev/sda", 3, "/dev/sda3"),
        ("/dev/nvme0n1", 3, "/dev/nvme0n1p3"),
        ("/dev/mmcblk0", 1, "/dev/mmcblk0p1"),
    ],
)
def test_partition_names(device: str, number: int, name: str) -> None:
    assert disk.partition_path(device, number) == name


def test_file_systems_have_the_uuids_that_fstab_names(tmp_path: Path) -> None:
    need("mkfs.vfat", "mkfs.ext4", "blkid")
    devices = {
        "builder-esp": str(sparse(tmp_path / "esp", 64 * MIB)),
        "builder-root": str(sparse(tmp_path / "root", 512 * MIB)),
        "builder-models": str(sparse(tmp_path / "models", 64 * MIB)),
    }
    volumes = disk.make_file_systems(devices)
    assert volumes.models
    for volume, label, kind in (
        (volumes.esp, "BUILDER-ESP", "vfat"),
        (volumes.root, "builder-root", "ext4"),
        (volumes.models, "builder-models", "ext4"),
    ):
        export = tool("blkid", "-p", "-o", "export", volume.path)
        found = dict(line.split("=", 1) for line in export.splitlines())
        assert (found["LABEL"], found["TYPE"], found["UUID"]) == (label, kind, volume.uuid)
    disk.check_clean(volumes.root.path)
    rows = [line.split() for line in system.fstab(volumes).splitlines() if not line.startswith("#")]
    assert [row[0] for row in rows] == [
        f"UUID={volume.uuid}" for volume in (volumes.root, volumes.esp, volumes.models)
    ]
    assert [row[1:4] for row in rows] == [
        ["/", "ext4", "errors=remount-ro"],
        ["/boot/efi", "vfat", "umask=0077,nofail"],
        ["/srv/models", "ext4", "ro,nodev,nosuid,noexec,nofail,x-systemd.device-timeout=5min"],
    ]


@pytest.mark.parametrize(
    "sizes", [(1,), (700 * MIB,), (5 * GIB, 3 * GIB), (40 * GIB,), (100 * GIB,) * 4, (5,) * 200]
)
def test_the_least_models_partition_holds_the_models(sizes: tuple[int, ...], tmp_path: Path) -> None:
    """The sum of :func:`layout.models_need`, against what mkfs really leaves free."""
    need("mkfs.ext4", "dumpe2fs")
    image = sparse(tmp_path / "models", layout.models_need(sizes))
    disk.make_models(str(image))
    header = tool("dumpe2fs", "-h", image)
    found = {key: int(value) for key, value in re.findall(r"^(Free \w+|Block size): +(\d+)$", header, re.M)}
    extents = sum(1 + size // (340 * 128 * MIB) for size in sizes)  # index blocks, should any be needed
    blocks = sum(-(-size // 4096) for size in sizes) + extents + 2
    assert found["Block size"] == 4096
    assert found["Free blocks"] >= blocks
    assert found["Free inodes"] >= 2 * len(sizes) + 1  # each in a folder of its own, and SHA256SUMS


@pytest.mark.parametrize("bit", ["clean", "recovery"])
def test_a_file_system_that_is_not_clean_is_found(bit: str, tmp_path: Path) -> None:
    need("mkfs.ext4", "debugfs")
    image = sparse(tmp_path / "root", 64 * MIB)
    disk.make_root(str(image))
    change = {"clean": "set_super_value state 0", "recovery": "feature needs_recovery"}[bit]
    tool("debugfs", "-w", "-R", change, image)
    with pytest.raises(InstallError, match="not clean"):
        disk.check_clean(str(image))


def test_something_that_holds_the_target_fails_the_install(tmp_path: Path) -> None:
    """Shared facts, pitfall 5: a second mount of the file system survives umount, and must be noticed."""
    if reason := can_mount(tmp_path):
        pytest.skip(reason)
    image = sparse(tmp_path / "root", 64 * MIB)
    disk.make_root(str(image))
    loop = tool("losetup", "--find", "--show", image).strip()
    try:
        for name in ("target", "holder"):
            disk.mount(disk.Volume(loop, ""), tmp_path / name)
        disk.unmount(tmp_path / "target")
        with pytest.raises(InstallError, match="still in use"):
            disk.release(loop, seconds=0.3)
        disk.unmount(tmp_path / "holder")
        disk.release(loop)
        disk.check_clean(loop)
    finally:
        tool("losetup", "--detach", loop)


def test_an_open_file_keeps_the_target_from_being_let_go(tmp_path: Path) -> None:
    if reason := can_mount(tmp_path):
        pytest.skip(reason)
    image = sparse(tmp_path / "root", 64 * MIB)
    target = tmp_path / "target"
    disk.mount(disk.make_root(str(image)), target)
    with (target / "file").open("w"), pytest.raises(InstallError, match=f"flushing {target}"):
        disk.unmount(target)
    disk.unmount(target)
    disk.check_clean(str(image))


def test_this_machines_disks_are_listed_and_the_system_disk_is_refused() -> None:
    """Real lsblk output of the host: whatever is mounted here must not be writable."""
    need("lsblk")
    disks = facts.read_disks()
    for entry in disks:
        points = [*entry.mountpoints, *(point for child in entry.children for point in child.mountpoints)]
        if points:
            answer = guard.decide((entry,), Want(largest=True, overwrite=True), payload=frozenset(), need=0)
            assert isinstance(answer, guard.Refused)
    assert report.report(facts.read_machine(), disks)


def test_a_models_partition_stays_to_the_byte_while_all_else_goes(tmp_path: Path) -> None:
    need("sfdisk", "wipefs", "mkfs.ext4", "e2fsck", "blkid", "debugfs")
    image, size = sparse(tmp_path / "disk", 4 * GIB), 4 * GIB
    storage = Storage(100 * MIB, None, 64 * MIB)
    plan = layout.plan(storage, size, 0)
    disk.partition(str(image), plan, 512)
    models, root = plan.get("builder-models"), plan.get("builder-root")
    assert models and root
    volume = disk.make_models(str(sparse(tmp_path / "models", models.size)))
    (tmp_path / "weights").write_bytes(b"w" * MIB)
    tool("debugfs", "-w", "-R", f"write {tmp_path / 'weights'} weights", volume.path)
    with image.open("r+b") as file:
        file.seek(models.start)
        file.write((tmp_path / "models").read_bytes())
        file.seek(root.start + 1024 + 0x38)
        file.write(b"\x53\xef")  # what the old root file system began with
    disk.clear(Disk("disk", str(image)), kept=str(tmp_path / "no-child"))
    assert "gpt" in tool("wipefs", image)  # the table stays until the new one is written
    disk.partition(str(image), plan, 512, keep=True)
    with image.open("rb") as file:
        file.seek(models.start)
        assert file.read(models.size) == (tmp_path / "models").read_bytes()
    assert disk.keep_models(str(tmp_path / "models")) == volume


def test_what_cannot_be_kept_is_made_anew(tmp_path: Path) -> None:
    need("mkfs.ext4", "e2fsck", "debugfs", "blkid")
    image = sparse(tmp_path / "models", 64 * MIB)
    assert disk.keep_models(str(image)) is None
    made = disk.make_models(str(image))
    assert disk.keep_models(str(image)) == made
    # A power cut left its journal full: that is replayed, and the file system kept.
    tool("debugfs", "-w", "-R", "set_super_value state 0", image)
    assert disk.keep_models(str(image)) == made
    with image.open("r+b") as file:  # beyond repair
        file.write(bytes(32 * MIB))
    assert disk.keep_models(str(image)) is None
