"""A models partition that stays: where it may, and what is laid around it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.installer import keep, layout
from builder.installer.guard import PARTITIONS
from builder.installer.model import Child, Disk, InstallError, Storage

MIB, GIB = 1 << 20, 1 << 30
DISK = 40 * GIB


def kept_of(plan: layout.Layout) -> layout.Kept:
    part = plan.get("builder-models")
    assert part is not None
    return layout.Kept("/dev/vda4", part.start, part.size)


@pytest.mark.parametrize(
    "storage", [Storage(GIB, None, 8 * GIB), Storage(GIB, 8 * GIB, None), Storage(GIB, 8 * GIB, GIB)]
)
def test_the_same_spec_keeps_its_own_partition(storage: Storage) -> None:
    before = layout.plan(storage, DISK, 100 * MIB, (300 * MIB,))
    assert layout.around(kept_of(before), storage, DISK, 100 * MIB, (300 * MIB,)) == before


def test_a_larger_one_stays_as_it_is_and_root_gets_less() -> None:
    old = layout.plan(Storage(GIB, None, 9 * GIB), DISK, 100 * MIB, ())
    now = layout.around(kept_of(old), Storage(GIB, None, 4 * GIB), DISK, 100 * MIB, (GIB,))
    assert isinstance(now, layout.Layout) and kept_of(now) == kept_of(old)


@pytest.mark.parametrize(
    ("old", "now", "models", "why"),
    [
        (Storage(GIB, None, GIB), Storage(GIB, None, 3 * GIB), (2 * GIB,), "it has 1.0 GiB, and the models"),
        (Storage(GIB, None, GIB), Storage(2 * GIB, None, GIB), (), "it does not lie where"),
        (Storage(GIB, None, GIB), Storage(GIB, 8 * GIB, GIB), (), "it does not lie where"),
        (Storage(GIB, None, GIB), Storage(GIB, None, 0), (), "the spec wants no models partition"),
    ],
)  # fmt: skip
def test_what_cannot_stay(old: Storage, now: Storage, models: tuple[int, ...], why: str) -> None:
    kept = kept_of(layout.plan(old, DISK, 100 * MIB, ()))
    answer = layout.around(kept, now, DISK, 100 * MIB, models)
    assert isinstance(answer, str) and why in answer


sizes = st.one_of(st.none(), st.integers(256 * MIB, 30 * GIB))


@given(sizes, sizes, sizes, sizes, st.integers(0, 4 * GIB))
def test_it_stays_to_the_byte_or_not_at_all(
    root: int | None, models: int | None, root_now: int | None, models_now: int | None, model: int
) -> None:
    """Whatever the specs before and now: nothing overlaps, and nothing lies beyond the disk."""
    try:
        old = layout.plan(Storage(GIB, root, models), DISK, 0, ())
        kept = kept_of(old)
        answer = layout.around(kept, Storage(GIB, root_now, models_now), DISK, 0, (model,) if model else ())
    except InstallError:
        return
    if isinstance(answer, str):
        return
    assert kept_of(answer) == kept
    ends = [part.start + part.size for part in answer.partitions]
    assert all(end <= part.start for end, part in zip(ends, answer.partitions[1:], strict=False))
    assert ends[-1] <= DISK - MIB
    names = [part.name for part in answer.partitions]
    assert sorted(names) == sorted(PARTITIONS)


def test_layers_that_lie_beside_what_they_become_need_room_too() -> None:
    plan = layout.plan(Storage(GIB, 2 * GIB, GIB), DISK, 500 * MIB, ())
    layout.require_room(plan, 500 * MIB, 0)
    layout.require_room(plan, 500 * MIB, 292 * MIB)
    with pytest.raises(
        InstallError, match=r"root is 2\.0 GiB, and the layers need 2\.0 GiB while they are unpacked"
    ):
        layout.require_room(plan, 500 * MIB, 293 * MIB)


def disk_with(*children: Child) -> Disk:
    return Disk("vda", "/dev/vda", table="gpt", children=children)


def test_only_a_file_system_of_ours_is_found() -> None:
    ours = Child("vda4", "/dev/vda4", size=GIB, fstype="ext4", partlabel="builder-models")
    assert keep.partition(disk_with(ours), lambda name: 5 * MIB) == layout.Kept("/dev/vda4", 5 * MIB, GIB)
    assert keep.partition(disk_with(ours), lambda name: None) is None
    other = Child("vda4", "/dev/vda4", size=GIB, fstype="xfs", partlabel="builder-models")
    assert keep.partition(disk_with(other), lambda name: 0) is None
    assert keep.partition(disk_with(), lambda name: 0) is None
