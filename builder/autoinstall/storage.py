"""The disk as storage actions (curtin's storage format), never as one of subiquity's layouts.

    direct   bios  esp  [boot]  root, models: partitions
    lvm      bios  esp  [boot]  pv: one volume group, with logical volumes root and models

With LUKS there is a /boot of its own, as GRUB does not read what cryptsetup makes by default; root is encrypted,
or the whole physical volume. Partitions lie in the order of their numbers, and what takes the rest of the disk
comes last: both are conditions of subiquity's. A size of -1 is that rest.

``partition_name`` is what our guard knows a disk of ours by. curtin writes it in its second storage version only,
so the kernel's command line has to say ``subiquity-storage-version=2``; otherwise the actions do in either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.installer.guard import BOOT, PARTITIONS
from builder.installer.pick import NOT_CHOSEN

Action = dict[str, Any]

MIB = 1 << 20
EXTENT = 4 * MIB  # of LVM
BIOS_SIZE = MIB
BOOT_SIZE = 1024 * MIB  # three kernels with their initramfs, firmware of every network card and GPU included
REST = -1
_LUKS_HEADER = 16 * MIB  # cryptsetup's default for LUKS2
_LVM_EDGES = 4 * EXTENT  # metadata, both volumes rounded up to extents, and what is left over at the end

VOLUME_GROUP = "builder"
CRYPT = "builder-crypt"  # below /dev/mapper

# As the direct installer makes it (installer/disk.py, make_models), and as the sizes are reckoned.
MODELS_OPTIONS = ("-m", "0", "-i", "1048576", "-I", "256", "-b", "4096", "-J", "size=16", "-O", "^resize_inode")

_BIOS_NAME, _ESP_NAME, _ROOT_NAME, _MODELS_NAME = PARTITIONS


def section(layout: str, passphrase: str | None, sizes: Mapping[str, int | None]) -> dict[str, Any]:
    """The document's ``storage``.

    ``sizes``: bytes of "esp", "root" and "models"; None takes the rest of the disk, 0 is no partition.
    """
    return {
        "config": actions(layout, passphrase, sizes),
        # The nodes of the direct installer have no swap file, either.
        "swap": {"size": 0},
        "grub": {
            "probe_additional_os": False,
            "remove_old_uefi_loaders": False,
            "reorder_uefi": False,
            # Ours is in /etc/default/grub; else it is replaced by what the live system was started with.
            "replace_linux_default": False,
            "terminal": "unmodified",
            "update_nvram": True,
        },
    }


def besides(layout: str, *, encrypted: bool) -> int:
    """The bytes of the disk that ESP, root and models do not have, where the direct installer would give them."""
    return (BOOT_SIZE + _LUKS_HEADER if encrypted else 0) + (_LVM_EDGES if layout == "lvm" else 0)


def actions(layout: str, passphrase: str | None, sizes: Mapping[str, int | None]) -> list[Action]:
    """Every action, each after what it builds on."""
    esp = _up(sizes["esp"] or 0, MIB)
    made = [disk()]
    plan: list[tuple[str, str, int, str]] = [
        ("bios", _BIOS_NAME, BIOS_SIZE, "bios_grub"),
        ("esp", _ESP_NAME, esp, "boot"),
    ]
    if passphrase is not None:
        plan.append(("boot", BOOT, BOOT_SIZE, ""))
    if layout == "lvm":
        plan.append(("pv", _ROOT_NAME, REST, ""))
    else:
        names = {"root": _ROOT_NAME, "models": _MODELS_NAME}
        plan += [(what, names[what], size, "") for what, size in _data(sizes, MIB)]
    for number, (what, name, size, flag) in enumerate(plan, 1):
        made.append(partition(what, number, name, size, flag))
    encrypted = "pv" if layout == "lvm" else "root"
    holder = encrypted
    if passphrase is not None:
        made.append(crypt(encrypted, passphrase))
        holder = "crypt"
    if layout == "lvm":
        made.append(volume_group(holder))
        made += [logical_volume(what, size) for what, size in _data(sizes, EXTENT)]
        holder = "root"
    return [*made, *_file_systems(holder, boot=passphrase is not None, models=sizes["models"] != 0)]


def disk() -> Action:
    """The disk, which the picker fills in."""
    return {
        "id": "disk",
        "type": "disk",
        "match": {"path": NOT_CHOSEN},
        "ptable": "gpt",
        "wipe": "superblock-recursive",
        "preserve": False,
    }


def partition(what: str, number: int, name: str, size: int, flag: str) -> Action:
    """One partition; ``size`` in bytes, a multiple of 1 MiB, or REST."""
    return {
        "id": what,
        "type": "partition",
        "device": "disk",
        "number": number,
        "partition_name": name,
        "size": size,
        **({"flag": flag} if flag else {}),
        "wipe": "superblock",
        "preserve": False,
    }


def crypt(volume: str, passphrase: str) -> Action:
    """LUKS on a partition. The name is written to the node's crypttab."""
    return {
        "id": "crypt",
        "type": "dm_crypt",
        "volume": volume,
        "dm_name": CRYPT,
        "key": passphrase,
        "preserve": False,
    }


def volume_group(device: str) -> Action:
    return {
        "id": "vg",
        "type": "lvm_volgroup",
        "name": VOLUME_GROUP,
        "devices": [device],
        "preserve": False,
    }


def logical_volume(what: str, size: int) -> Action:
    """One logical volume; ``size`` in bytes, a multiple of 4 MiB, or REST."""
    return {
        "id": what,
        "type": "lvm_partition",
        "name": what,
        "volgroup": "vg",
        "size": size,
        "wipe": "superblock",
        "preserve": False,
    }


def _file_systems(root: str, *, boot: bool, models: bool) -> Iterator[Action]:
    """``root``: the volume that root is made on. Mounts come in the order in which they can be made."""
    yield _format("root", root, "ext4", "builder-root")
    if boot:
        yield _format("boot", "boot", "ext4", BOOT)
    # FAT32, whatever the size: some firmware reads no FAT16 ESP.
    yield _format("esp", "esp", "fat32", "BUILDER-ESP")
    if models:
        yield {**_format("models", "models", "ext4", "builder-models"), "extra_options": list(MODELS_OPTIONS)}
    yield _mount("root", "/", "errors=remount-ro")
    if boot:
        yield _mount("boot", "/boot", "nodev,nosuid")
    # Only root is needed to boot, so the others may fail to show up (installer/system.py, fstab).
    yield _mount("esp", "/boot/efi", "umask=0077,nofail")
    if models:
        # Data that nobody may change or run. The installer makes it writable while it copies.
        yield _mount("models", "/srv/models", "ro,nodev,nosuid,noexec,nofail,x-systemd.device-timeout=5min")


def _format(what: str, volume: str, fstype: str, label: str) -> Action:
    return {
        "id": f"{what}-format",
        "type": "format",
        "volume": volume,
        "fstype": fstype,
        "label": label,
        "preserve": False,
    }


def _mount(what: str, path: str, options: str) -> Action:
    return {
        "id": f"{what}-mount",
        "type": "mount",
        "device": f"{what}-format",
        "path": path,
        "options": options,
    }


def _data(sizes: Mapping[str, int | None], unit: int) -> list[tuple[str, int]]:
    """Root and models with their sizes in whole units, the one that takes the rest last; no models, no entry."""
    wanted = [(what, sizes[what]) for what in ("root", "models") if sizes[what] != 0]
    made = [(what, REST if size is None else _up(size, unit)) for what, size in wanted]
    return sorted(made, key=lambda entry: entry[1] == REST)


def _up(size: int, unit: int) -> int:
    """Rounded up to whole units."""
    return -(-size // unit) * unit
