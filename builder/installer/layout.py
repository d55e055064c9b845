"""Where the partitions go: a pure function of the manifest's storage section and the disk's size.

GPT, everything aligned to 1 MiB, all numbers in bytes:

    1 builder-bios    1 MiB, GRUB's core image for BIOS
    2 builder-esp     vfat
    3 builder-root    ext4
    4 builder-models  ext4, left out when no models are wanted

Either root or models may take the rest of the disk. The one that does lies last, so that it can grow when the
disk does; the numbers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .guard import PARTITIONS
from .model import InstallError, Storage, human

MIB = 1 << 20
_BIOS = MIB
# The first MiB holds the GPT and the alignment, the last one the backup GPT (33 sectors).
_EDGES = 2 * MIB

_TYPES = {
    "builder-bios": "21686148-6449-6E6F-744E-656564454649",
    "builder-esp": "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    "builder-root": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
    "builder-models": "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
}


@dataclass(frozen=True)
class Partition:
    """One partition: ``number`` in the table, ``start`` and ``size`` in bytes, ``fs`` empty for none."""

    number: int
    name: str
    start: int
    size: int
    fs: str


@dataclass(frozen=True)
class Kept:
    """A models partition that is there already: its device, and where it lies, in bytes."""

    path: str
    start: int
    size: int


Starts = Callable[[str], "int | None"]
"""Returns where the partition of that kernel name begins, in bytes."""


@dataclass(frozen=True)
class Layout:
    """The partitions in the order in which they lie on the disk."""

    partitions: tuple[Partition, ...]

    def get(self, name: str) -> Partition | None:
        """The partition of that name, if the layout has it."""
        return next((part for part in self.partitions if part.name == name), None)


def root_need(layer_bytes: int) -> int:
    """The least root partition for layers that take ``layer_bytes`` on the medium.

    Squashfs makes a Debian root 2.1 to 2.5 times smaller (zstd-1 to xz, shared facts); three times and room
    for the file system itself and the boot files. A guess on the safe side: the layers do not say how large
    they unpack.
    """
    return _up(3 * layer_bytes + 256 * MIB)


def models_need(sizes: tuple[int, ...]) -> int:
    """The least models partition for files of these sizes; 0 for no files.

    ext4 as :func:`disk.make_models` makes it: whole blocks, per 128 MiB group 2 bitmaps, 128 inodes of 256
    bytes and a descriptor (under 0.05 %), a journal of 16 MiB, superblock copies and extent blocks. With an
    inode for each MiB, many small files need room for inodes: one each, one for a folder each, and the system's.
    """
    if not sizes:
        return 0
    blocks = sum(size + 4096 for size in sizes)
    return _up(max(blocks + blocks // 500 + 32 * MIB, (2 * len(sizes) + 16) * MIB))


def need(storage: Storage, layer_bytes: int, model_sizes: tuple[int, ...] = ()) -> int:
    """The smallest disk that :func:`plan` or subiquity accepts, in bytes. Raises InstallError as :func:`plan`."""
    root, models = _sizes(storage, layer_bytes, model_sizes)
    return _EDGES + _BIOS + _up(storage.esp) + root + models + _up(storage.besides)


def plan(storage: Storage, disk_size: int, layer_bytes: int, model_sizes: tuple[int, ...] = ()) -> Layout:
    """Lay the partitions out on a disk of ``disk_size`` bytes.

    Raises InstallError if they do not fit, if root or models are too small for what goes in, or if both want
    the rest of the disk.
    """
    root, models = _sizes(storage, layer_bytes, model_sizes)
    esp = _up(storage.esp)
    end = disk_size // MIB * MIB - MIB
    rest = end - MIB - _BIOS - esp - root - models
    if rest < 0:
        raise InstallError(f"the partitions need {human(disk_size - rest)} and the disk has {human(disk_size)}")
    if storage.root is None:
        root += rest
    elif storage.models is None:
        models += rest
    bios, esp_name, root_name, models_name = PARTITIONS
    order = [(1, bios, _BIOS, ""), (2, esp_name, esp, "vfat"), (3, root_name, root, "ext4")]
    if models:
        order.insert(2 if storage.root is None else 3, (4, models_name, models, "ext4"))
    partitions = []
    start = MIB
    for number, name, size, fs in order:
        partitions.append(Partition(number, name, start, size, fs))
        start += size
    return Layout(tuple(partitions))


def around(
    kept: Kept, storage: Storage, disk_size: int, layer_bytes: int, model_sizes: tuple[int, ...] = ()
) -> Layout | str:
    """The layout with the models partition left where it is, or why that cannot be.

    It stays when the spec as it is now would begin it at the same place, and it is large enough. Raises
    InstallError as :func:`plan` does.
    """
    fresh = plan(storage, disk_size, layer_bytes, model_sizes).get(PARTITIONS[3])
    if fresh is None:
        return "the spec wants no models partition"
    least = models_need(model_sizes)
    if kept.size < least:
        return f"it has {human(kept.size)}, and the models need {human(least)}"
    if kept.size % MIB or kept.start != fresh.start:
        return "it does not lie where the spec as it is now would put it"
    if storage.models is None:
        return plan(storage, kept.start + kept.size + MIB, layer_bytes, model_sizes)
    if storage.root is not None and kept.size > storage.models:
        last = kept.start + kept.size + MIB
        if last > disk_size:
            return "it is larger than what the disk has left"
    return plan(replace(storage, models=kept.size), disk_size, layer_bytes, model_sizes)


def require_room(plan: Layout, layer_bytes: int, beside: int) -> None:
    """Raises InstallError if root does not hold the layers, unpacked, and ``beside`` bytes of packed ones."""
    root, least = plan.get(PARTITIONS[2]), root_need(layer_bytes) + beside
    if beside and root is not None and root.size < least:
        raise InstallError(
            f"root is {human(root.size)}, and the layers need {human(least)} while they are unpacked: the machine "
            "has not the memory to hold them"
        )


def sfdisk_script(layout: Layout, sector: int = 512) -> str:
    """The layout as input for sfdisk(8), for a disk with ``sector`` bytes a logical sector."""
    lines = ["label: gpt", "unit: sectors", ""]
    for part in layout.partitions:
        lines.append(
            f"{part.number} : start={part.start // sector}, size={part.size // sector}, "
            f'type={_TYPES[part.name]}, name="{part.name}"'
        )
    return "\n".join(lines) + "\n"


def _sizes(storage: Storage, layer_bytes: int, model_sizes: tuple[int, ...]) -> tuple[int, int]:
    """Root and models in bytes, the one that takes the rest at its least."""
    if storage.root is None and storage.models is None:
        raise InstallError("root and models both want the rest of the disk")
    least_root, least_models = root_need(layer_bytes), models_need(model_sizes)
    root = least_root if storage.root is None else _up(storage.root)
    # An empty models partition that takes the rest still needs room for a file system.
    models = max(least_models, 64 * MIB) if storage.models is None else _up(storage.models)
    if root < least_root:
        raise InstallError(f"root is {human(root)}, and the layers need {human(least_root)}")
    if models < least_models:
        raise InstallError(f"the models partition is {human(models)}, and the models need {human(least_models)}")
    return root, models


def _up(size: int) -> int:
    """Rounded up to the alignment."""
    return -(-size // MIB) * MIB
