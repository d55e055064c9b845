"""The partition layout: a golden script, and properties over all sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.installer import layout
from builder.installer.model import InstallError, Storage

MIB = 1 << 20
GIB = 1 << 30


def test_script_with_root_as_the_rest() -> None:
    plan = layout.plan(Storage(512 * MIB, None, 2 * GIB), 20 * GIB, 160 * MIB, (1 * GIB,))
    assert layout.sfdisk_script(plan) == (
        "label: gpt\n"
        "unit: sectors\n"
        "\n"
        '1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name="builder-bios"\n'
        '2 : start=4096, size=1048576, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="builder-esp"\n'
        '4 : start=1052672, size=4194304, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="builder-models"\n'
        '3 : start=5246976, size=36694016, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="builder-root"\n'
    )


def test_script_in_large_sectors() -> None:
    plan = layout.plan(Storage(512 * MIB, None, 0), 20 * GIB, 0)
    assert "1 : start=256, size=256, " in layout.sfdisk_script(plan, sector=4096)


def test_order_when_models_take_the_rest_and_when_nobody_does() -> None:
    for models in (None, 2 * GIB):
        plan = layout.plan(Storage(512 * MIB, 4 * GIB, models), 20 * GIB, 0)
        assert [part.number for part in plan.partitions] == [1, 2, 3, 4]


def test_no_models_partition_when_none_is_wanted() -> None:
    plan = layout.plan(Storage(512 * MIB, None, 0), 20 * GIB, 0)
    assert [part.number for part in plan.partitions] == [1, 2, 3]
    assert plan.get("builder-models") is None


@pytest.mark.parametrize(
    ("storage", "size", "layers", "models", "reason"),
    [
        (Storage(MIB, None, None), 20 * GIB, 0, (), "both want the rest"),
        (
            Storage(MIB, 30 * GIB, 0),
            20 * GIB,
            0,
            (),
            "the partitions need 30.0 GiB and the disk has 20.0 GiB",
        ),
        (Storage(MIB, None, 0), 2 * GIB, 2 * GIB, (), "the partitions need 6.3 GiB"),
        (Storage(MIB, GIB, 0), 20 * GIB, GIB, (), "root is 1.0 GiB, and the layers need 3.2 GiB"),
        (Storage(MIB, None, GIB), 20 * GIB, 0, (GIB,), "models partition is 1.0 GiB, and the models need"),
        (Storage(MIB, None, 0), 20 * GIB, 0, (1,), "models partition is 0 B"),
        (Storage(MIB, GIB, None), 3 * GIB, 0, (3 * GIB,), "the partitions need"),
    ],
)
def test_what_does_not_fit(storage: Storage, size: int, layers: int, models: tuple[int, ...], reason: str) -> None:
    with pytest.raises(InstallError, match=reason):
        layout.plan(storage, size, layers, models)


sizes = st.integers(0, 40 * GIB)


@given(
    esp=st.integers(MIB, GIB),
    root=st.none() | sizes,
    models=st.none() | st.just(0) | sizes,
    disk=st.integers(0, 100 * GIB),
    layers=st.integers(0, 8 * GIB),
    files=st.lists(sizes, max_size=3),
)
def test_a_layout_is_sound_or_refused(
    esp: int, root: int | None, models: int | None, disk: int, layers: int, files: list[int]
) -> None:
    storage = Storage(esp, root, models)
    try:
        least = layout.need(storage, layers, tuple(files))
    except InstallError:
        with pytest.raises(InstallError):
            layout.plan(storage, 1 << 50, layers, tuple(files))
        return
    if disk < least:
        with pytest.raises(InstallError):
            layout.plan(storage, disk, layers, tuple(files))
        return
    parts = layout.plan(storage, disk, layers, tuple(files)).partitions
    end = MIB
    for part in parts:
        assert part.start == end  # no overlap, no gap
        assert part.start % MIB == part.size % MIB == 0
        assert part.size > 0
        end = part.start + part.size
    assert end <= disk - 33 * 512  # the backup GPT
    named = {part.name: part.size for part in parts}
    assert named["builder-esp"] >= esp
    assert named["builder-root"] >= max(root or 0, 3 * layers)
    assert named.get("builder-models", 0) >= max(models or 0, sum(files))
    if root is None or models is None:
        assert disk - end < 2 * MIB  # the rest is the rest
        assert parts[-1].name == ("builder-root" if root is None else "builder-models")
    else:
        assert end + MIB == least


@given(st.integers(MIB, GIB), st.none() | st.integers(GIB, 9 * GIB), st.integers(0, GIB // 4))
def test_the_need_is_exact(esp: int, root: int | None, layers: int) -> None:
    """The guard refuses by ``need`` what ``plan`` would refuse, and nothing else."""
    storage = Storage(esp, root, 0)
    least = layout.need(storage, layers)
    layout.plan(storage, least, layers)
    with pytest.raises(InstallError):
        layout.plan(storage, least - 1, layers)
