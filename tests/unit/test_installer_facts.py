"""Facts: lsblk's JSON (recorded shapes), sysfs trees made of files, and the zero probe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from builder.installer import facts, guard
from builder.installer.model import Child, Disk, Nic


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """One device as lsblk (util-linux 2.38 to 2.41) prints it."""
    plain: dict[str, Any] = {
        "name": name,
        "kname": name,
        "path": f"/dev/{name}",
        "type": "disk",
        "size": 1 << 30,
    }
    flags = {"log-sec": 512, "ro": False, "rm": False, "hotplug": False, "tran": None, "serial": None}
    names = {"wwn": None, "vendor": None, "model": None, "pttype": None, "fstype": None, "label": None}
    return {**plain, **flags, **names, "partlabel": None, "mountpoints": [None], **changes}


def parse(*entries: dict[str, Any], zeros: bool = True, **found: dict[str, tuple[str, ...]]) -> tuple[Disk, ...]:
    return facts.parse_lsblk(
        {"blockdevices": list(entries)},
        links=found.get("links", {}),
        holders=found.get("holders", {}),
        zeros=lambda path: zeros,
    )


def test_a_disk_with_everything() -> None:
    tree = entry(
        "sda",
        tran="sata",
        serial="S1 ",
        wwn="0x5a",
        vendor="ATA     ",
        model="Disk X",
        pttype="gpt",
        children=[
            entry(
                "sda1",
                type="part",
                fstype="LVM2_member",
                children=[entry("dm-0", path="/dev/mapper/vg-root", type="lvm", mountpoints=["/", None])],
            ),
            entry("sda2", type="part", fstype="ext4", label="data", partlabel="home"),
        ],
    )
    (disk,) = parse(tree, links={"sda": ("/dev/disk/by-id/ata-X",)}, holders={"sda1": ("dm-0",)})
    assert disk == Disk(
        "sda",
        "/dev/sda",
        size=1 << 30,
        transport="sata",
        serial="S1",
        wwn="0x5a",
        model="ATA Disk X",
        links=("/dev/disk/by-id/ata-X",),
        table="gpt",
        children=(
            Child("sda1", "/dev/sda1", size=1 << 30, fstype="LVM2_member", holders=("dm-0",)),
            Child("dm-0", "/dev/mapper/vg-root", type="lvm", size=1 << 30, mountpoints=("/",)),
            Child("sda2", "/dev/sda2", size=1 << 30, fstype="ext4", label="data", partlabel="home"),
        ),
    )


@pytest.mark.parametrize(("key", "field"), [("ro", "read_only"), ("rm", "removable"), ("hotplug", "hotplug")])
def test_flags_and_missing_flags(key: str, field: str) -> None:
    for value, expected in ((True, True), ("1", True), (False, False), ("0", False)):
        assert getattr(parse(entry("sda", **{key: value}))[0], field) is expected
    lacking = entry("sda")
    del lacking[key]
    assert getattr(parse(lacking)[0], field) is True  # not known counts against the disk


def test_zeros_are_asked_only_where_nothing_was_recognised() -> None:
    assert guard.content(parse(entry("sda"), zeros=True)[0]) == "blank"
    assert guard.content(parse(entry("sda"), zeros=False)[0]) == "foreign"
    assert parse(entry("sda", pttype="gpt"), entry("sr0", type="rom"), zeros=False)[0].zeros


@pytest.mark.parametrize("place", [0, 5000, (1 << 20) - 1, 40 << 20, (64 << 20) - 1, (64 << 20) - (1 << 20)])
def test_data_without_a_signature_is_found(tmp_path: Path, place: int) -> None:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
        assert facts.reads_as_zeros(str(image))
        file.seek(place)
        file.write(b"x")
    assert not facts.reads_as_zeros(str(image))


def test_what_cannot_be_read_is_not_blank(tmp_path: Path) -> None:
    assert not facts.reads_as_zeros(str(tmp_path / "missing"))


def test_a_disk_smaller_than_the_probes(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(512))
    assert facts.reads_as_zeros(str(tmp_path / "disk"))


def test_links_and_holders(tmp_path: Path) -> None:
    (tmp_path / "by-id").mkdir()
    for name in ("sda", "sda1"):
        (tmp_path / name).touch()
        (tmp_path / "by-id" / f"ata-{name}").symlink_to(f"../{name}")
    assert facts.read_links(tmp_path) == {
        "sda": (f"{tmp_path}/by-id/ata-sda",),
        "sda1": (f"{tmp_path}/by-id/ata-sda1",),
    }
    (tmp_path / "block/sda/holders/dm-0").mkdir(parents=True)
    (tmp_path / "block/sdb/holders").mkdir(parents=True)
    assert facts.read_holders(tmp_path / "block") == {"sda": ("dm-0",)}


def test_the_machine(tmp_path: Path) -> None:
    dmi, net = tmp_path / "class/dmi/id", tmp_path / "class/net"
    dmi.mkdir(parents=True)
    for name, text in {
        "product_serial": "Default string",
        "product_uuid": "4C4C-AB",
        "sys_vendor": "Acme",
    }.items():
        (dmi / name).write_text(text + "\n")
    for name in ("eth0", "lo"):
        (net / name).mkdir(parents=True)
        (net / name / "address").write_text("52:54:00:AA:00:01\n")
    (tmp_path / "virtio_net").mkdir()
    (net / "eth0/device").mkdir()
    (net / "eth0/device/driver").symlink_to(tmp_path / "virtio_net")
    machine = facts.read_machine(tmp_path)
    assert machine.nics == (
        Nic("eth0", "52:54:00:aa:00:01", True, "virtio_net"),
        Nic("lo", "52:54:00:aa:00:01", False),
    )
    assert (machine.serial, machine.uuid, machine.vendor, machine.product) == ("", "4c4c-ab", "Acme", "")


def test_the_devices_below_a_file_system(tmp_path: Path) -> None:
    """dm-0 (253:0) on sdb1, a partition of sdb: all three are the payload's."""
    sdb1 = tmp_path / "devices/sdb/sdb1"
    sdb1.mkdir(parents=True)
    (sdb1 / "partition").touch()
    slaves = tmp_path / "devices/dm-0/slaves"
    slaves.mkdir(parents=True)
    (slaves / "sdb1").symlink_to(sdb1)
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / "dev/block/253:0").symlink_to(tmp_path / "devices/dm-0")
    device = 253 << 8
    assert facts.parent_devices(device, tmp_path) == {"dm-0", "sdb1", "sdb"}
    assert facts.parent_devices(5, tmp_path) == frozenset()  # major 0: tmpfs, the initramfs


def test_the_devices_behind_a_loop_device(tmp_path: Path) -> None:
    """loop3 (7:3) shows a file, as when GRUB starts an ISO that lies on a stick."""
    image = tmp_path / "live.iso"
    image.touch()
    loop = tmp_path / "devices/virtual/block/loop3/loop"
    loop.mkdir(parents=True)
    (loop / "backing_file").write_text(f"{image}\n")
    holder = tmp_path / "devices/disk"
    holder.mkdir()
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / "dev/block/7:3").symlink_to(loop.parent)
    device = image.stat().st_dev
    below = set()
    if os.major(device):  # major 0: a file system without a device
        (tmp_path / f"dev/block/{os.major(device)}:{os.minor(device)}").symlink_to(holder)
        below = {"disk"}
    assert facts.parent_devices(7 << 8 | 3, tmp_path) == {"loop3", *below}
    image.unlink()
    assert facts.parent_devices(7 << 8 | 3, tmp_path) == {"loop3"}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("builder.node=a quiet", "a"),
        ("builder.node=a --- builder.node=b\n", "b"),
        ("builder.node= quiet", ""),
        ("xbuilder.node=a builder.nodes=b", ""),
        ("", ""),
    ],
)
def test_a_kernel_argument(line: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_text(line)
    assert facts.kernel_argument("builder.node", tmp_path / "cmdline") == value
