"""The disk guard: worked cases, mutations of every safety check, and ten thousand generated machines.

The oracle below states what must never happen in its own words and shares no code with the guard.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.installer import guard
from builder.installer.model import Child, Disk, Want

GIB = 1 << 30
NEED = 4 * GIB
LARGEST = Want(largest=True)


def ours(name: str = "vda", *extra: str) -> tuple[Child, ...]:
    labels = ("builder-bios", "builder-esp", "builder-root", *extra)
    return tuple(Child(f"{name}{n}", f"/dev/{name}{n}", partlabel=label) for n, label in enumerate(labels, 1))


def disk(name: str, size: int = 20 * GIB, **facts: object) -> Disk:
    serial = str(facts.pop("serial", f"S-{name}"))
    return replace(Disk(name, f"/dev/{name}", size=size, serial=serial), **facts)  # type: ignore[arg-type]


def decide(
    *disks: Disk, want: Want = LARGEST, payload: tuple[str, ...] = (), need: int = NEED
) -> guard.Chosen | guard.Refused:
    return guard.decide(disks, want, payload=frozenset(payload), need=need)


def chosen(answer: guard.Chosen | guard.Refused) -> str:
    assert isinstance(answer, guard.Chosen), answer
    return answer.disk.name


def refused(answer: guard.Chosen | guard.Refused) -> str:
    assert isinstance(answer, guard.Refused), answer
    return answer.reason


# Worked cases


def test_a_single_blank_disk_is_taken() -> None:
    assert chosen(decide(disk("vda"))) == "vda"


def test_the_largest_of_blank_disks_is_taken_and_says_why() -> None:
    answer = decide(disk("vda"), disk("vdb", 40 * GIB))
    assert chosen(answer) == "vdb"
    assert isinstance(answer, guard.Chosen)
    assert answer.why == "the largest disk, 40.0 GiB, blank: nothing"


def test_a_node_of_ours_is_reinstalled_without_asking() -> None:
    assert chosen(decide(disk("vda", table="gpt", children=ours(), zeros=False))) == "vda"
    assert chosen(decide(disk("vda", table="gpt", children=ours("vda", "builder-models")))) == "vda"


@pytest.mark.parametrize(
    "foreign",
    [
        disk("vda", table="gpt", children=(*ours(), Child("vda9", "/dev/vda9", partlabel="home"))),
        disk("vda", table="gpt", children=ours()[:2]),
        disk("vda", table="gpt", children=(*ours(), ours()[0])),
        disk("vda", table="dos", children=ours()),
        disk("vda", table="dos"),
        disk("vda", fstype="LVM2_member"),
        disk("vda", zeros=False),
        disk("vda", table="gpt", children=(Child("vda1", "/dev/vda1", fstype="ntfs", label="Windows"),)),
    ],
    ids=["extra", "half", "twice", "dos", "empty-table", "lvm", "no-signature", "windows"],
)
def test_anything_else_is_foreign_and_needs_consent(foreign: Disk) -> None:
    reason = refused(decide(foreign))
    assert 'name it by serial: "S-vda", or set overwrite: true' in reason
    assert guard.contents(foreign) in reason
    assert chosen(decide(foreign, want=replace(LARGEST, overwrite=True))) == "vda"
    assert chosen(decide(foreign, want=Want(serial="S-vda", overwrite=True))) == "vda"
    assert "holds data" in refused(decide(foreign, want=Want(serial="S-vda", overwrite=False)))


def test_what_is_on_a_refused_disk_is_named() -> None:
    windows = disk("vda", table="gpt", children=(Child("vda1", "/dev/vda1", fstype="ntfs", label="Windows"),))
    assert "gpt partition table, /dev/vda1 ntfs 'Windows'" in refused(decide(windows))


@pytest.mark.parametrize(
    "big",
    [
        disk("vdb", 40 * GIB, fstype="ext4"),
        disk("vdb", 40 * GIB, children=(Child("md0", "/dev/md0", type="raid1"),)),
        disk("vdb", 40 * GIB, mountpoints=("/mnt",)),
    ],
    ids=["foreign", "held", "mounted"],
)
def test_largest_never_falls_back_to_a_smaller_disk(big: Disk) -> None:
    assert "/dev/vdb (the largest disk)" in refused(decide(disk("vda"), big))


def test_largest_passes_over_what_is_no_candidate_by_kind() -> None:
    medium = disk("vdb", 64 * GIB, fstype="iso9660")
    stick = disk("sda", 64 * GIB, removable=True, hotplug=True, transport="usb")
    rom = disk("sr0", 64 * GIB, type="rom")
    assert chosen(decide(medium, stick, rom, disk("vda"), payload=("vdb",))) == "vda"


def test_a_refusal_remarks_on_every_disk() -> None:
    answer = decide(disk("vda", 1 * GIB), disk("sr0", type="rom"))
    assert isinstance(answer, guard.Refused)
    assert answer.disks == (
        ("/dev/vda", "it has 1.0 GiB, and the partitions need 4.0 GiB"),
        ("/dev/sr0", "it is not a disk but of type rom"),
    )


def test_no_disk_and_no_wish() -> None:
    assert refused(decide()) == "the machine has no disk that may be written"
    assert refused(decide(disk("vda"), want=Want(serial="other"))) == "no disk has serial other"
    assert "does not say" in refused(decide(disk("vda"), want=Want()))


@pytest.mark.parametrize(
    "want",
    [
        Want(serial="s-VDA"),
        Want(wwn="5000C500A1B2C3D4"),
        Want(wwn="0x5000c500a1b2c3d4"),
        Want(path="virtio-*"),
        Want(path="/dev/disk/by-path/pci-0000:00:04.0"),
    ],
)
def test_ways_to_name_a_disk(want: Want) -> None:
    named = disk(
        "vda",
        wwn="0x5000c500a1b2c3d4",
        links=("/dev/disk/by-id/virtio-S-vda", "/dev/disk/by-path/pci-0000:00:04.0"),
    )
    assert chosen(decide(disk("vdb", 90 * GIB), named, want=want)) == "vda"


def test_a_disk_without_a_serial_is_not_named_by_an_empty_one() -> None:
    bare = disk("vda", serial="")
    assert refused(decide(bare, want=Want(serial=" "))).startswith("no disk has")
    assert refused(decide(bare, want=Want(wwn="0x"))).startswith("no disk has")


def test_a_usb_disk_may_be_named() -> None:
    usb = disk("sda", transport="usb", hotplug=True, removable=True)
    assert chosen(decide(usb, want=Want(serial="S-sda"))) == "sda"


@pytest.mark.parametrize("name", ["loop0", "ram0", "zram0", "nbd3", "fd0", "sr0", "dm-0", "md127", "mmcblk0boot1"])
def test_devices_that_lsblk_calls_disks_and_are_none(name: str) -> None:
    assert "not a disk" in refused(decide(disk(name), want=Want(serial=f"S-{name}", overwrite=True)))


@pytest.mark.parametrize("name", ["sda", "vda", "xvda", "nvme0n1", "mmcblk0", "hda"])
def test_real_disks_by_name(name: str) -> None:
    assert chosen(decide(disk(name))) == name


# Mutations: with a check in force the machine is refused; without it the same machine would be written.

USB = disk("sda", transport="usb")
MUTANTS = {
    "not_a_disk": (disk("sr0", type="rom"), LARGEST, ()),
    "no_medium": (disk("sda", 0), LARGEST, ()),
    "payload_disk": (disk("vda", children=ours(), table="gpt"), LARGEST, ("vda2",)),
    "read_only": (disk("vda", read_only=True), LARGEST, ()),
    "removable": (disk("sda", removable=True), LARGEST, ()),
    "mounted": (disk("vda", mountpoints=("[SWAP]",)), LARGEST, ()),
    "held": (disk("vda", holders=("md0",)), LARGEST, ()),
    "below_minimum": (disk("vda", 5 * GIB), replace(LARGEST, min_size=6 * GIB), ()),
    "below_layout": (disk("vda", 3 * GIB), LARGEST, ()),
    "foreign": (disk("vda", fstype="ntfs"), LARGEST, ()),
}


def test_every_check_has_a_mutation() -> None:
    assert {check.__name__ for check in guard.KIND + guard.STATE} == set(MUTANTS)


@pytest.mark.parametrize("name", MUTANTS)
def test_without_a_check_its_machine_would_be_written(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, want, payload = MUTANTS[name]
    need = 0 if name == "no_medium" else NEED
    refused(decide(machine, want=want, payload=payload, need=need))
    for table in ("KIND", "STATE"):
        left = tuple(check for check in getattr(guard, table) if check.__name__ != name)
        monkeypatch.setattr(guard, table, left)
    chosen(decide(machine, want=want, payload=payload, need=need))


@pytest.mark.parametrize(
    "want",
    [LARGEST, Want(serial="same"), Want(wwn="0xaa"), Want(path="*")],
    ids=["size", "serial", "wwn", "path"],
)
def test_without_the_ambiguity_check_one_of_two_would_be_written(
    want: Want, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [disk(name, serial="same", wwn="0xaa", links=(f"/dev/disk/by-id/{name}",)) for name in ("vda", "vdb")]
    assert "ambiguous: /dev/vda, /dev/vdb" in refused(decide(*pair, want=want))
    monkeypatch.setattr(guard, "ambiguous", lambda disks, what: None)
    chosen(decide(*pair, want=want))


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("transport", "usb"),
        ("transport", "mmc"),
        ("removable", True),
        ("hotplug", True),
        ("read_only", True),
        ("size", 0),
        ("type", "loop"),
        ("holders", ("bcache0",)),
        ("mountpoints", ("/",)),
        ("children", (Child("vda1", "/dev/vda1", mountpoints=("/",)),)),
        ("children", (Child("vda1", "/dev/vda1", holders=("dm-0",)),)),
        ("children", (Child("dm-0", "/dev/mapper/vg-root", type="lvm"),)),
        ("children", (Child("vda1", "/dev/vda1"), Child("md0", "/dev/md0", type="raid1"))),
    ],
)
def test_each_fact_that_refuses(fact: str, value: object) -> None:
    machine = replace(disk("vda"), **{fact: value})  # type: ignore[arg-type]
    refused(decide(machine, want=replace(LARGEST, overwrite=True)))


# Ten thousand machines

SIZES = (0, GIB, 3 * GIB, 5 * GIB, 20 * GIB, 20 * GIB, 40 * GIB)
NAMES = ("sda", "sdb", "vda", "nvme0n1", "mmcblk0", "sr0", "loop0", "zram0", "nbd0", "fd0", "md0", "dm-0")
rarely = st.sampled_from((False,) * 9 + (True,))
USUAL = ("sda", "sdb", "vda", "nvme0n1", "mmcblk0") * 4


@st.composite
def machines(draw: st.DrawFn) -> tuple[tuple[Disk, ...], Want, frozenset[str], int]:
    """One machine: few disks, values drawn from small pools so that they meet, and mostly harmless facts so
    that many are written."""
    names = draw(st.lists(st.sampled_from(NAMES + USUAL), max_size=4, unique=True))
    disks = []
    for name in names:
        rank = draw(st.integers(0, 2**24 - 1))  # one draw holds what is independent, which keeps 10,000 quick

        def pick(pool: tuple[object, ...]) -> object:
            nonlocal rank
            rank, index = divmod(rank, len(pool))
            return pool[index]

        kind = draw(
            st.sampled_from(
                ("blank", "blank", "blank", "ours", "boot", "parts", "fs", "noise", "table", "lvm", "mount")
            )
        )
        children: tuple[Child, ...] = ()
        if kind in ("ours", "mount", "lvm"):
            children = ours(name)
        if kind == "boot":
            children = ours(name, "builder-boot")
        if kind == "parts":
            children = (*ours(name), Child(f"{name}9", f"/dev/{name}9", fstype="ext4"))
        if kind == "mount":
            children = (*children[:-1], replace(children[-1], mountpoints=("/mnt",)))
        if kind == "lvm":
            children = (*children, Child("dm-7", "/dev/mapper/vg", type="lvm"))
        disks.append(
            Disk(
                name,
                f"/dev/{name}",
                type=str(pick(("disk",) * 9 + ("rom", "loop"))),
                size=int(str(pick(SIZES))),
                read_only=bool(pick((False,) * 11 + (True,))),
                removable=draw(rarely),
                hotplug=draw(rarely),
                transport=str(pick(("", "sata", "nvme", "usb"))),
                serial=str(pick(("A", "B", "C", ""))),
                wwn=str(pick(("0x5a", "0x5b", "", ""))),
                links=tuple(str(pick((f"/dev/disk/by-id/x-{name}", "/dev/disk/by-path/pci-1"))).split()),
                table="gpt" if children else "dos" if kind == "table" else "",
                fstype="ntfs" if kind == "fs" else "",
                zeros=kind != "noise",
                holders=("md9",) if draw(rarely) and kind == "fs" else (),
                children=children,
            )
        )
    want = draw(
        st.sampled_from(
            (
                Want(largest=True),
                Want(largest=True),
                Want(largest=True, min_size=10 * GIB),
                Want(largest=True, overwrite=True),
                Want(serial="A", overwrite=True),
                Want(serial="B"),
                Want(wwn="5A", overwrite=True),
                Want(path="x-*"),
                Want(path="/dev/disk/by-path/pci-*", overwrite=True, min_size=4 * GIB),
                Want(),
            )
        )
    )
    parts = [child.name for entry in disks for child in entry.children]
    medium = draw(st.sampled_from((None, None, *names, *parts)))
    return tuple(disks), want, frozenset([medium] if medium else []), draw(st.sampled_from((0, NEED)))


def forbidden(
    disk: Disk, want: Want, payload: frozenset[str], need: int, all_disks: tuple[Disk, ...]
) -> list[str]:
    """The oracle: every reason why writing this disk would be wrong."""
    family = [disk.name] + [child.name for child in disk.children]
    naming = want.serial != "" or want.wwn != "" or want.path != ""
    wrong = []
    if any(name in payload for name in family):
        wrong.append("medium")
    if not naming and (disk.removable or disk.hotplug or disk.transport == "usb"):
        wrong.append("removable")
    if disk.read_only:
        wrong.append("read-only")
    if disk.mountpoints or [child for child in disk.children if child.mountpoints]:
        wrong.append("mounted")
    if disk.holders or [child for child in disk.children if child.holders or child.type != "part"]:
        wrong.append("held")
    if disk.type != "disk" or disk.name.rstrip("0123456789") in (
        "loop",
        "zram",
        "nbd",
        "fd",
        "sr",
        "md",
        "dm-",
    ):
        wrong.append("type")
    if disk.size == 0 or disk.size < want.min_size or disk.size < need:
        wrong.append("small")
    labels = sorted(child.partlabel for child in disk.children)
    is_ours = disk.table == "gpt" and labels in (
        ["builder-bios", "builder-esp", "builder-root"],
        ["builder-bios", "builder-boot", "builder-esp", "builder-root"],
        ["builder-bios", "builder-esp", "builder-models", "builder-root"],
    )
    has_data = disk.table != "" or disk.fstype != "" or len(disk.children) > 0 or not disk.zeros
    if has_data and not is_ours and not want.overwrite:
        wrong.append("foreign")
    others = [other for other in all_disks if other is not disk]
    if want.serial:
        if disk.serial != want.serial or [other for other in others if other.serial == want.serial]:
            wrong.append("serial")
    elif want.wwn:
        if disk.wwn != "0x5a" or [other for other in others if other.wwn == "0x5a"]:
            wrong.append("wwn")
    elif want.path:
        part = "x-" if want.path == "x-*" else "pci-"
        if part not in disk.links[0] or [other for other in others if part in other.links[0]]:
            wrong.append("path")
    elif want.largest:
        for other in others:
            plain = other.type == "disk" and other.name in ("sda", "sdb", "vda", "nvme0n1", "mmcblk0")
            fixed = not (other.removable or other.hotplug or other.transport == "usb" or other.read_only)
            reading = other.name in payload or [child for child in other.children if child.name in payload]
            if plain and fixed and not reading and other.size >= disk.size:
                wrong.append("not the largest")
    else:
        wrong.append("nothing was asked for")
    return wrong


SEEN: dict[str, int] = {"chosen": 0, "refused": 0}


@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(machines())
def check_machine(machine: tuple[tuple[Disk, ...], Want, frozenset[str], int]) -> None:
    disks, want, payload, need = machine
    answer = guard.decide(disks, want, payload=payload, need=need)
    if isinstance(answer, guard.Chosen):
        SEEN["chosen"] += 1
        assert forbidden(answer.disk, want, payload, need, disks) == []
    else:
        # Not merely safe by refusing everything: a refusal must have a cause for every disk.
        SEEN["refused"] += 1
        assert answer.reason
        assert all(forbidden(disk, want, payload, need, disks) for disk in disks)


def test_ten_thousand_machines() -> None:
    check_machine()
    assert SEEN["chosen"] > 500, SEEN
    assert SEEN["refused"] > 500, SEEN
