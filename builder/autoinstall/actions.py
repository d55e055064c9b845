"""Are storage actions sound? Nothing upstream looks before the disk is being written.

The keys are those that subiquity keeps of an action (subiquity/models/filesystem.py); others vanish without a
word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from builder.autoinstall import shapes
from builder.autoinstall.shapes import Group, Many, OneOf, Shape
from builder.autoinstall.storage import EXTENT, MIB, REST, VOLUME_GROUP
from builder.installer.guard import BOOT, PARTITIONS
from builder.installer.pick import NOT_CHOSEN

Complaint = tuple[str, str]

_NEW = OneOf((False,))  # preserve: nothing that was there is kept

_SHAPES: Mapping[str, Group] = {
    "disk": Group(
        {
            "match": Group({"path": str}),
            "ptable": OneOf(("gpt",)),
            "wipe": OneOf(("superblock-recursive",)),
            "preserve": _NEW,
        },
        {"grub_device": OneOf((True,))},
    ),
    "partition": Group(
        {
            "device": str,
            "number": int,
            "partition_name": OneOf((*PARTITIONS, BOOT)),
            "size": int,
            "wipe": OneOf(("superblock",)),
            "preserve": _NEW,
        },
        {"flag": OneOf(("bios_grub", "boot")), "grub_device": OneOf((True,))},
    ),
    "dm_crypt": Group({"volume": str, "dm_name": str, "key": str, "preserve": _NEW}),
    "lvm_volgroup": Group({"name": OneOf((VOLUME_GROUP,)), "devices": Many(str), "preserve": _NEW}),
    "lvm_partition": Group(
        {"name": str, "volgroup": str, "size": int, "wipe": OneOf(("superblock",)), "preserve": _NEW}
    ),
    "format": Group(
        {"volume": str, "fstype": OneOf(("ext4", "fat32")), "label": str, "preserve": _NEW},
        {"extra_options": Many(str)},
    ),
    "mount": Group({"device": str, "path": str}, {"options": str}),
}

# Which keys name other actions, and of which types those may be.
_VOLUMES = ("partition", "dm_crypt", "lvm_partition")
_REFERENCES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "partition": ("device", ("disk",)),
    "dm_crypt": ("volume", ("partition",)),
    "lvm_volgroup": ("devices", ("partition", "dm_crypt")),
    "lvm_partition": ("volgroup", ("lvm_volgroup",)),
    "format": ("volume", _VOLUMES),
    "mount": ("device", ("format",)),
}
_LEAST_ROOT = 1 << 30  # bytes, as of the spec's storage.root
_LEAST_ESP = 34 * MIB  # bytes; FAT32 has at least 65,525 clusters of a sector
_LABELS = {"ext4": 16, "fat32": 11}  # characters; curtin cuts off the rest


def complaints(config: list[Any], *, finished: bool) -> Iterator[Complaint]:
    """(path, what is wrong) of everything; the rest is judged only once every action has its shape."""
    broken = False
    for complaint in _shapes(config):
        broken = True
        yield complaint
    if broken:
        return
    for judge in (_references, _sizes, _disk, _partitions, _formats, _mounts, _boots):
        yield from judge(config)
    yield from (_picked if finished else _unpicked)(config)


def _shapes(config: list[Any]) -> Iterator[Complaint]:
    for index, action in enumerate(config):
        path = _at(index)
        if not isinstance(action, dict):
            yield path, "must be a group of keys"
            continue
        kind = str(action.get("type"))
        if kind not in _SHAPES:
            yield f"{path}.type", f"must be {' or '.join(_SHAPES)}"
            continue
        shape = _SHAPES[kind]
        whole: dict[str, Shape] = {"id": str, "type": str, **shape.required}
        yield from shapes.complaints(action, Group(whole, shape.optional), path)


def _references(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    """Ids are unique; a reference is to an earlier action of the right type; a volume is used once."""
    seen: dict[str, dict[str, Any]] = {}
    used: dict[str, str] = {}
    for index, action in enumerate(config):
        if action["type"] in _REFERENCES:
            key, kinds = _REFERENCES[action["type"]]
            targets = action[key] if isinstance(action[key], list) else [action[key]]
            path = f"{_at(index)}.{key}"
            if not targets:
                yield path, "names nothing"
            for target in targets:
                if target not in seen:
                    yield path, f"names {target}, and no action before has that id"
                elif seen[target]["type"] not in kinds:
                    yield path, f"names {target}, which is a {seen[target]['type']} and not a {' or '.join(kinds)}"
                elif seen[target]["type"] not in ("disk", "lvm_volgroup") and target in used:
                    yield path, f"names {target}, which {used[target]} uses already"
                used.setdefault(target, action["id"])
        if action["id"] in seen:
            yield f"{_at(index)}.id", f"{action['id']} is another action's, too"
        seen.setdefault(action["id"], action)


def _sizes(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    """Whole units; and only the last on its device takes the rest, as that is what subiquity allows."""
    last = {action.get("device", action.get("volgroup")): action["id"] for _, action in _sized(config)}
    for index, action in _sized(config):
        unit = EXTENT if action["type"] == "lvm_partition" else MIB
        size, path = action["size"], f"{_at(index)}.size"
        if size == REST:
            if last[action.get("device", action.get("volgroup"))] != action["id"]:
                yield path, "takes the rest, and is not the last"
        elif size <= 0 or size % unit:
            yield path, f"must be a multiple of {unit // MIB} MiB, or -1 for the rest"


def _sized(config: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, action in enumerate(config):
        if action["type"] in ("partition", "lvm_partition"):
            yield index, action


def _disk(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    disks = _of(config, "disk")
    if len(disks) != 1:
        yield _ALL, f"must have one disk, and has {len(disks)}"


def _partitions(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    """Numbers as they lie, names once each, and what GRUB needs on either firmware."""
    partitions = _of(config, "partition")
    for number, (index, action) in enumerate(partitions, 1):
        if action["number"] != number:
            yield f"{_at(index)}.number", f"must be {number}, as that is where it lies"
    for kind, key in (("partition", "partition_name"), ("lvm_partition", "name")):
        names = [action[key] for _, action in _of(config, kind)]
        for index, action in _of(config, kind):
            if names.count(action[key]) > 1:
                yield f"{_at(index)}.{key}", f"{action[key]} is another's, too"
    for flag, name, least in (("bios_grub", PARTITIONS[0], MIB), ("boot", PARTITIONS[1], _LEAST_ESP)):
        flagged = [(index, action) for index, action in partitions if action.get("flag") == flag]
        if len(flagged) != 1:
            yield _ALL, f"must have one partition with the flag {flag}, and has {len(flagged)}"
        for index, action in flagged:
            if action["partition_name"] != name:
                yield f"{_at(index)}.partition_name", f"must be {name}, as the flag is {flag}"
            if action["size"] < least:
                yield f"{_at(index)}.size", f"must be at least {least // MIB} MiB"
    if not any(action["partition_name"] == PARTITIONS[2] for _, action in partitions):
        yield _ALL, f"must have a partition called {PARTITIONS[2]}: our guard knows the disk by it"


def _formats(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    for index, action in _of(config, "format"):
        if len(action["label"]) > _LABELS[action["fstype"]]:
            yield f"{_at(index)}.label", f"is over {_LABELS[action['fstype']]} characters"


def _mounts(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    paths = [action["path"] for _, action in _of(config, "mount")]
    for index, action in _of(config, "mount"):
        path = action["path"]
        if not path.startswith("/") or (path != "/" and path.endswith("/")):
            yield f"{_at(index)}.path", "must be an absolute path without a final slash"
        if paths.count(path) > 1:
            yield f"{_at(index)}.path", "is another mount's, too"
    mounted = {action["device"] for _, action in _of(config, "mount")}
    for index, action in _of(config, "format"):
        if action["id"] not in mounted:
            yield _at(index), "is mounted nowhere"


def _boots(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    """Root is there and large enough, the ESP is where GRUB looks, and GRUB can read /boot."""
    stacks = {action["path"]: _stack(config, action) for _, action in _of(config, "mount")}
    root, esp, boot = (stacks.get(path) for path in ("/", "/boot/efi", "/boot"))
    if root is None:
        yield _ALL, "must mount /"
    elif root:
        if root[0]["fstype"] != "ext4":
            yield _ALL, "must have ext4 on /"
        if any(REST != action["size"] < _LEAST_ROOT for action in root if "size" in action):
            yield _ALL, "must give / at least 1024 MiB"
        if boot is None and any(action["type"] == "dm_crypt" for action in root):
            yield _ALL, "must mount /boot from a partition of its own: GRUB cannot read an encrypted one"
    if boot and any(action["type"] == "dm_crypt" for action in boot):
        yield _ALL, "must not encrypt /boot: GRUB could not read it"
    if esp is None:
        yield _ALL, "must mount /boot/efi"
    elif esp and (esp[0]["fstype"] != "fat32" or esp[-1].get("flag") != "boot"):
        yield _ALL, "must mount /boot/efi from the partition with the flag boot, with fat32"


def _stack(config: list[dict[str, Any]], mount: dict[str, Any]) -> list[dict[str, Any]]:
    """What a mount stands on, from its file system down to the partition; empty if it stands on nothing."""
    known = {action["id"]: action for action in config}
    found: list[dict[str, Any]] = []
    action: dict[str, Any] | None = mount
    while action is not None and action["type"] not in ("partition", "disk") and len(found) < len(config):
        key, _kinds = _REFERENCES[action["type"]]
        below = action[key][0] if isinstance(action[key], list) and action[key] else action[key]
        action = known.get(below) if isinstance(below, str) else None
        if action is not None:
            found.append(action)
    return found if action is not None and action["type"] == "partition" and found[0]["type"] == "format" else []


def _unpicked(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    """As it is stored: it must not be able to install anywhere."""
    for index, action in _of(config, "disk"):
        if action["match"]["path"] != NOT_CHOSEN:
            yield f"{_at(index)}.match.path", f"must be {NOT_CHOSEN} until a picker has chosen"
    for index, action in enumerate(config):
        if "grub_device" in action:
            yield f"{_at(index)}.grub_device", "must not be there until a picker knows the firmware"


def _picked(config: list[dict[str, Any]]) -> Iterator[Complaint]:
    """As the picker hands it on: one device, by the kernel's name, and one place for the boot loader."""
    for index, action in _of(config, "disk"):
        # subiquity takes it for a glob.
        device = action["match"]["path"]
        if not device.startswith("/dev/") or any(sign in device for sign in "*?["):
            yield f"{_at(index)}.match.path", "must be the path of a device"
    places = [(index, action) for index, action in enumerate(config) if "grub_device" in action]
    if len(places) != 1:
        yield _ALL, f"must have one grub_device, and has {len(places)}"
    for index, action in places:
        if action["type"] != "disk" and action.get("flag") != "boot":
            yield f"{_at(index)}.grub_device", "must be the disk, or the partition with the flag boot"


_ALL = "storage.config"


def _of(config: list[dict[str, Any]], kind: str) -> list[tuple[int, dict[str, Any]]]:
    return [(index, action) for index, action in enumerate(config) if action["type"] == kind]


def _at(index: int) -> str:
    return f"storage.config[{index}]"
