"""The YAML that a person pastes: it loads, says what the machine says, and never names a disk by itself."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from builder.installer.model import Child, Disk, Machine, Nic
from builder.installer.report import report

MACHINE = Machine(
    nics=(
        Nic("lo", "00:00:00:00:00:00", physical=False),
        Nic("enp1s0", "52:54:00:12:34:56", driver="virtio_net"),
        Nic("enp2s0", "11:22:33:44:55:06", driver="r8169"),
    ),
    serial="0012E45",
    uuid="4c4c4544-0042-3510-8054-b4c04f4a4d32",
    vendor="Acme",
    product="Node 1",
)
DISKS = (
    Disk(
        "vda",
        "/dev/vda",
        size=20 << 30,
        serial="00123",
        model="QEMU",
        links=("/dev/disk/by-path/pci-0000:00:04.0",),
        table="gpt",
        children=(Child("vda1", "/dev/vda1", fstype="ntfs", label="Windows"),),
    ),
    Disk("sr0", "/dev/sr0", type="rom", size=1 << 30, serial="QM1"),
)


def test_whole() -> None:
    assert report(MACHINE, DISKS) == (
        "# Acme Node 1: paste this under `nodes:` in cluster.yaml\n"
        '- name: "node1"  # choose one\n'
        "  match:\n"
        '    mac: "52:54:00:12:34:56"  # enp1s0 virtio_net\n'
        '    # mac: "11:22:33:44:55:06"  # enp2s0 r8169\n'
        '    # uuid: "4c4c4544-0042-3510-8054-b4c04f4a4d32"\n'
        '    # serial: "0012E45"\n'
        "  # To name the disk, which allows that it is wiped, take away one `# `:\n"
        "  # /dev/vda: 20.0 GiB QEMU: foreign: gpt partition table, /dev/vda1 ntfs 'Windows'\n"
        '  # disk: {serial: "00123"}\n'
        '  # disk: {path: "/dev/disk/by-path/pci-0000:00:04.0"}\n'
        "  # /dev/sr0: 1.0 GiB rom: blank: nothing\n"
    )


def test_it_loads_and_no_disk_is_named() -> None:
    assert yaml.safe_load(report(MACHINE, DISKS)) == [
        {"name": "node1", "match": {"mac": "52:54:00:12:34:56"}},
    ]


def test_every_offer_loads_when_its_comment_is_taken_away() -> None:
    text = report(MACHINE, DISKS)
    for key, expected in (("serial", "00123"), ("path", "/dev/disk/by-path/pci-0000:00:04.0")):
        edited = text.replace(f"# disk: {{{key}", f"disk: {{{key}")
        assert yaml.safe_load(edited)[0]["disk"] == {key: expected}
    edited = text.replace('# serial: "0012E45"', 'serial: "0012E45"')
    assert yaml.safe_load(edited)[0]["match"]["serial"] == "0012E45"


def test_a_machine_without_anything_still_loads() -> None:
    assert yaml.safe_load(report(Machine(), ())) == [{"name": "node1", "match": {"mac": ""}}]


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_whatever_a_device_is_called(serial: str, model: str, label: str) -> None:
    machine = Machine(serial=serial, vendor=model, product=label)
    entry = Disk("sda", "/dev/sda", size=1, serial=serial, model=model, fstype="ext4", label=label)
    text = report(machine, (entry,))
    assert yaml.safe_load(text) == [{"name": "node1", "match": {"serial": serial}}]
    edited = text.replace("# disk: {serial", "disk: {serial")
    assert yaml.safe_load(edited)[0]["disk"] == {"serial": serial}
