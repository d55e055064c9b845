"""What Ubuntu's schema lets through, our check refuses, with the place."""

# ruff: noqa: E501  (tables: one case a line)

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder import autoinstall
from builder.autoinstall import check
from builder.errors import BuilderError, Exit
from tests.unit.test_autoinstall import LUKS, PASSPHRASE, made, spec, ubuntu_s_schema

Edit = Callable[[dict[str, Any]], None]
SECRET = "hunter2 hunter2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specs")


def put(path: str, value: Any) -> Edit:
    """``put("storage/config/esp/size", 1)``: actions are named by their id."""

    def edit(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        target: Any = document
        for key in parents:
            target = at(target, key)
        target[int(last) if isinstance(target, list) else last] = value

    return edit


def drop(path: str) -> Edit:
    def edit(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        target: Any = document
        for key in parents:
            target = at(target, key)
        if isinstance(target, list):
            target.remove(at(target, last))
        else:
            del target[last]

    return edit


def add(action: dict[str, Any]) -> Edit:
    return lambda document: document["storage"]["config"].append(action)


def at(target: Any, key: str) -> Any:
    if isinstance(target, list):
        return (
            next((one for one in target if isinstance(one, dict) and one.get("id") == key), None)
            or target[int(key)]
        )
    return target[key]


C = "storage/config/"
DATA = {
    "id": "data",
    "type": "partition",
    "device": "disk",
    "number": 5,
    "partition_name": "builder-boot",
    "size": 1 << 30,
    "wipe": "superblock",
    "preserve": False,
}
EXTRA = {
    "id": "data-format",
    "type": "format",
    "volume": "models",
    "fstype": "ext4",
    "label": "x",
    "preserve": False,
}

# Of the direct layout: disk 0, bios 1, esp 2, models 3, root 4, formats root 5, esp 6, models 7, mounts root 8, esp 9, models 10.
DIRECT: list[tuple[Edit, str, str]] = [
    # top level
    (put("version", 2), "version", "must be 1"),
    (put("version", True), "version", "must be 1"),
    (drop("version"), "version", "is missing"),
    (put("earlycommands", []), "earlycommands", "unknown key; known here: "),
    (put("early-commands", [["true"]]), "early-commands", "never run in a node's document: they are over when it is put in place"),
    (put("identity", {}), "identity", "would make an account besides those of user-data"),
    (put("interactive-sections", ["storage"]), "interactive-sections", "would wait for a person"),
    (put("kernel", {"package": "linux-generic"}), "kernel", "unknown key; known here: "),
    (put("kernel-crash-dumps", {"enabled": False}), "kernel-crash-dumps", "unknown key; known here: "),
    (put("ubuntu-pro", {"token": "C1"}), "ubuntu-pro", "unknown key; known here: "),
    (put("late-commands", ["poweroff"]), "late-commands[0]", "must be a list"),
    (put("late-commands", [[]]), "late-commands[0]", "is an empty command"),
    (put("late-commands", []), "late-commands", "is empty"),
    (put("late-commands", [["sleep", 1]]), "late-commands[0][1]", "must be text"),
    (drop("error-commands"), "error-commands", "is missing"),
    (put("shutdown", "halt"), "shutdown", "must be reboot or poweroff"),
    (put("updates", "none"), "updates", "must be security or all"),
    # nested keys that the schema does not look at
    (put("source/search_driver", False), "source.search_driver", "unknown key; known here: id, search_drivers"),
    (put("source/id", "ubuntu-server"), "source.id", "must be node"),
    (put("source/search_drivers", True), "source.search_drivers", "must be False"),
    (put("drivers/install", True), "drivers.install", "must be False"),
    (put("oem/install", "auto"), "oem.install", "must be False"),
    (put("refresh-installer/update", True), "refresh-installer.update", "must be False"),
    (put("apt/fallback", "abort"), "apt.fallback", "must be offline-install"),
    (put("apt/geoip", True), "apt.geoip", "must be False"),
    (put("apt/preserve_sources_list", False), "apt.preserve_sources_list", "must be True"),
    (put("apt/mirror_selection", {}), "apt.mirror_selection", "unknown key; known here: "),
    (drop("apt/mirror-selection"), "apt.mirror-selection", "is missing"),
    (put("ssh/authorised-keys", []), "ssh.authorised-keys", "unknown key; known here: install-server, authorized-keys, allow-pw"),
    (put("ssh/allow-pw", "no"), "ssh.allow-pw", "must be true or false"),
    (put("codecs/instal", False), "codecs.instal", "unknown key; known here: install"),
    (put("reporting/hook", {"type": "webhook"}), "reporting.hook", "unknown key; known here: builtin"),
    (put("network/ethernets/cluster/dhcp", True), "network.ethernets.cluster.dhcp", "unknown key; known here: "),
    (put("network/ethernets/cluster/match/mac", "x"), "network.ethernets.cluster.match.mac", "unknown key; known here: macaddress, name"),
    (put("network/ethernets", {}), "network.ethernets", "is empty"),
    (put("user-data", {}), "user-data.users", "is missing: without an identity section, nobody could log in"),
    (put("user-data", []), "user-data", "must be a group of keys"),
    # storage
    (put("storage/layout", {"name": "lvmm"}), "storage.layout", "must not be there: a name that subiquity does not know makes another layout"),
    (put("storage/layout", {"name": "lvm"}), "storage.layout", "must not be there: a name that subiquity does not know makes another layout"),
    (put("storage/configs", []), "storage.configs", "unknown key; known here: config, swap, grub"),
    (put("storage/swap/size", "4G"), "storage.swap.size", "must be a whole number"),
    (put("storage/grub/update-nvram", True), "storage.grub.update-nvram", "unknown key; known here: "),
    (put("storage/config", {}), "storage.config", "must be a list"),
    (put("storage/config", ["disk"]), "storage.config[0]", "must be a group of keys"),
    (put("storage/config", []), "storage.config", "must have one disk, and has 0"),
    (put(C + "disk/type", "disc"), "storage.config[0].type", "must be disk or partition or dm_crypt or lvm_volgroup or lvm_partition or format or mount"),
    (drop(C + "disk/type"), "storage.config[0].type", "must be disk or "),
    (drop(C + "disk/id"), "storage.config[0].id", "is missing"),
    (put(C + "disk/ptable", "msdos"), "storage.config[0].ptable", "must be gpt"),
    (put(C + "disk/preserve", True), "storage.config[0].preserve", "must be False"),
    (put(C + "disk/wipe", "zero"), "storage.config[0].wipe", "must be superblock-recursive"),
    (put(C + "disk/grub-device", True), "storage.config[0].grub-device", "unknown key; known here: "),
    (put(C + "disk/match", {"size": "largest"}), "storage.config[0].match.size", "unknown key; known here: path"),
    (put(C + "disk/match/path", "/dev/sda"), "storage.config[0].match.path", "must be chosen-by-the-picker until a picker has chosen"),
    (put(C + "disk/grub_device", True), "storage.config[0].grub_device", "must not be there until a picker knows the firmware"),
    (put(C + "esp/grub_device", True), "storage.config[2].grub_device", "must not be there until a picker knows the firmware"),
    (put(C + "esp/name", "x"), "storage.config[2].name", "unknown key; known here: "),
    (put(C + "esp/partition_name", "esp"), "storage.config[2].partition_name", "must be builder-bios or builder-esp or builder-root or builder-models or builder-boot"),
    (put(C + "esp/partition_name", "builder-root"), "storage.config[2].partition_name", "builder-root is another's, too"),
    (put(C + "esp/flag", "bios_grub"), "storage.config", "must have one partition with the flag bios_grub, and has 2"),
    (drop(C + "esp/flag"), "storage.config", "must have one partition with the flag boot, and has 0"),
    (put(C + "esp/size", 1 << 20), "storage.config[2].size", "must be at least 34 MiB"),
    (put(C + "esp/size", "256M"), "storage.config[2].size", "must be a whole number"),
    (put(C + "esp/size", (256 << 20) + 1), "storage.config[2].size", "must be a multiple of 1 MiB, or -1 for the rest"),
    (put(C + "esp/size", 0), "storage.config[2].size", "must be a multiple of 1 MiB, or -1 for the rest"),
    (put(C + "esp/size", -2), "storage.config[2].size", "must be a multiple of 1 MiB, or -1 for the rest"),
    (put(C + "models/size", -1), "storage.config[3].size", "takes the rest, and is not the last"),
    (put(C + "root/size", 1 << 29), "storage.config", "must give / at least 1024 MiB"),
    (put(C + "root/number", 3), "storage.config[4].number", "must be 4, as that is where it lies"),
    (put(C + "root/device", "sda"), "storage.config[4].device", "names sda, and no action before has that id"),
    (put(C + "root/device", "esp"), "storage.config[4].device", "names esp, which is a partition and not a disk"),
    (put(C + "root/id", "models"), "storage.config[4].id", "models is another action's, too"),
    (put(C + "root/partition_name", "builder-boot"), "storage.config", "must have a partition called builder-root: our guard knows the disk by it"),
    (put(C + "root-format/volume", "rooot"), "storage.config[5].volume", "names rooot, and no action before has that id"),
    (put(C + "root-format/volume", "disk"), "storage.config[5].volume", "names disk, which is a disk and not a partition or dm_crypt or lvm_partition"),
    (put(C + "root-format/fstype", "ext5"), "storage.config[5].fstype", "must be ext4 or fat32"),
    (put(C + "root-format/fstype", "fat32"), "storage.config", "must have ext4 on /"),
    (put(C + "root-format/label", "x" * 17), "storage.config[5].label", "is over 16 characters"),
    (put(C + "esp-format/label", "x" * 12), "storage.config[6].label", "is over 11 characters"),
    (put(C + "esp-format/fstype", "ext4"), "storage.config", "must mount /boot/efi from the partition with the flag boot, with fat32"),
    (put(C + "esp-mount/device", "esp"), "storage.config[9].device", "names esp, which is a partition and not a format"),
    (put(C + "esp-mount/path", "/boot/EFI"), "storage.config", "must mount /boot/efi"),
    (put(C + "esp-mount/path", "/"), "storage.config[9].path", "is another mount's, too"),
    (put(C + "esp-mount/path", "boot/efi"), "storage.config[9].path", "must be an absolute path without a final slash"),
    (put(C + "models-mount/path", "/srv/models/"), "storage.config[10].path", "must be an absolute path without a final slash"),
    (put(C + "models-mount/passno", "2"), "storage.config[10].passno", "unknown key; known here: "),
    (drop(C + "root-mount"), "storage.config", "must mount /"),
    (drop(C + "esp-mount"), "storage.config", "must mount /boot/efi"),
    (drop(C + "models-mount"), "storage.config[7]", "is mounted nowhere"),
    (add(EXTRA), "storage.config[11].volume", "names models, which models-format uses already"),
    (add(DATA), "storage.config[4].size", "takes the rest, and is not the last"),
    (lambda document: document["storage"]["config"].reverse(), "storage.config[0].device", "names models-format, and no action before has that id"),
]  # fmt: skip

# disk 0, bios 1, esp 2, boot 3, pv 4, crypt 5, vg 6, models 7, root 8, formats root 9, boot 10, esp 11, models 12, mounts root 13, boot 14, ...
LVM_LUKS: list[tuple[Edit, str, str]] = [
    (drop(C + "crypt/key"), "storage.config[5].key", "is missing"),
    (put(C + "crypt/key", 12345678), "storage.config[5].key", "must be text"),
    (put(C + "crypt/keyfile", SECRET), "storage.config[5].keyfile", "unknown key; known here: "),
    (put(C + "crypt/options", ["luks"]), "storage.config[5].options", "unknown key; known here: "),
    (put(C + "crypt/volume", "disk"), "storage.config[5].volume", "names disk, which is a disk and not a partition"),
    (put(C + "boot-format/volume", "crypt"), "storage.config", "must not encrypt /boot: GRUB could not read it"),
    (put(C + "vg/devices", []), "storage.config[6].devices", "names nothing"),
    (put(C + "vg/devices", ["pv"]), "storage.config[6].devices", "names pv, which crypt uses already"),
    (put(C + "vg/devices", "crypt"), "storage.config[6].devices", "must be a list"),
    (put(C + "vg/name", "ubuntu-vg"), "storage.config[6].name", "must be builder"),
    (put(C + "models/size", 5 << 20), "storage.config[7].size", "must be a multiple of 4 MiB, or -1 for the rest"),
    (put(C + "models/size", -1), "storage.config[7].size", "takes the rest, and is not the last"),
    (put(C + "models/name", "root"), "storage.config[7].name", "root is another's, too"),
    (put(C + "root/volgroup", "crypt"), "storage.config[8].volgroup", "names crypt, which is a dm_crypt and not a lvm_volgroup"),
    (put(C + "root-format/volume", "vg"), "storage.config[9].volume", "names vg, which is a lvm_volgroup and not a partition or dm_crypt or lvm_partition"),
    (put(C + "boot-mount/path", "/mnt"), "storage.config", "must mount /boot from a partition of its own: GRUB cannot read an encrypted one"),
    (drop("kernel"), "kernel", "is missing: the release would install its own and purge the one of the layers"),
    (put("kernel", {"flavor": "hwe"}), "kernel.flavor", "unknown key; known here: package"),
    (put("kernel-crash-dumps/enabled", None), "kernel-crash-dumps.enabled", "must be False"),
]  # fmt: skip

FINISHED: list[tuple[Edit, str, str]] = [
    (drop(C + "disk/grub_device"), "storage.config", "must have one grub_device, and has 0"),
    (put(C + "disk/grub_device", False), "storage.config[0].grub_device", "must be True"),
    (put(C + "esp/grub_device", True), "storage.config", "must have one grub_device, and has 2"),
    (lambda d: (drop(C + "disk/grub_device")(d), put(C + "root/grub_device", True)(d), None)[-1], "storage.config[4].grub_device", "must be the disk, or the partition with the flag boot"),
    (put(C + "disk/match/path", "chosen-by-the-picker"), "storage.config[0].match.path", "must be the path of a device"),
    (put(C + "disk/match/path", "/dev/sd*"), "storage.config[0].match.path", "must be the path of a device"),
]  # fmt: skip


def refuses(document: dict[str, Any], codename: str, path: str, message: str, *, finished: bool = False) -> None:
    with pytest.raises(BuilderError) as caught:
        check.document(document, codename, what="the document", finished=finished)
    assert caught.value.code == Exit.BUG
    first, *lines = caught.value.message.split("\n")
    assert first == "the document is not sound"
    found = [line.strip().partition(": ")[::2] for line in lines]
    assert any(where == path and said.startswith(message) for where, said in found), found
    assert not any(secret in str(caught.value) for secret in (PASSPHRASE, SECRET))


@pytest.mark.parametrize(("edit", "path", "message"), DIRECT)
def test_a_direct_document(edit: Edit, path: str, message: str, folder: Path) -> None:
    document = made(spec(folder))
    check.document(document, "noble", what="the document")
    edit(document)
    refuses(document, "noble", path, message)


@pytest.mark.parametrize(("edit", "path", "message"), LVM_LUKS)
def test_an_encrypted_document_with_volumes(edit: Edit, path: str, message: str, folder: Path) -> None:
    document = made(spec(folder, "26.04", f"{{layout: lvm, {LUKS}}}"))
    check.document(document, "resolute", what="the document")
    edit(document)
    refuses(document, "resolute", path, message)


@pytest.mark.parametrize(("edit", "path", "message"), FINISHED)
def test_a_finished_document(edit: Edit, path: str, message: str, folder: Path) -> None:
    document = made(spec(folder))
    put(C + "disk/match/path", "/dev/sda")(document)
    put(C + "disk/grub_device", True)(document)
    check.document(document, "noble", what="the document", finished=True)
    edit(document)
    refuses(document, "noble", path, message, finished=True)


BOOTSTRAPS: list[tuple[Edit, str, str]] = [
    (put("version", "1"), "version", "must be 1"),
    (drop("early-commands"), "early-commands", "is missing"),
    (put("early-commands", []), "early-commands", "is empty"),
    (put("early-commands", [[]]), "early-commands[0]", "is an empty command"),
    (put("early-commands", ["pick"]), "early-commands[0]", "must be a list"),
    (put("early-commands", None), "early-commands", "must be a list"),
    (drop("error-commands"), "error-commands", "is missing"),
    (put("storage", {}), "storage", "unknown key; known here: version, early-commands, error-commands, reporting"),
    (put("interactive-sections", ["*"]), "interactive-sections", "unknown key; known here: "),
]


@pytest.mark.parametrize(("edit", "path", "message"), BOOTSTRAPS)
def test_the_document_that_runs_the_picker(edit: Edit, path: str, message: str, folder: Path) -> None:
    document = autoinstall.bootstrap(spec(folder))
    edit(document)
    with pytest.raises(BuilderError) as caught:
        check.bootstrap(document, "noble", what="the document")
    assert f"\n  {path}: {message}" in caught.value.message


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every mapping of a document but those of user-data, which is cloud-init's, and of names that are free."""
    if isinstance(value, dict):
        if path not in (("network", "ethernets"),):
            yield path
        for key, inner in value.items():
            if key != "user-data":
                yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


@pytest.mark.parametrize("release", ["24.04", "26.04"])
@pytest.mark.parametrize("layout", ["{}", f"{{layout: lvm, {LUKS}}}"])
def test_no_unknown_key_anywhere(release: str, layout: str, folder: Path) -> None:
    """And how much of it Ubuntu's own schema would have seen."""
    codename = {"24.04": "noble", "26.04": "resolute"}[release]
    schema = ubuntu_s_schema(release)
    good = made(spec(folder, release, layout))
    seen = 0
    for path in places(good):
        document = copy.deepcopy(good)
        target: Any = document
        for key in path:
            target = target[key]
        target["odd"] = 1
        assert [where for where, _ in check.node_complaints(document, codename) if where.endswith("odd")], path
        seen += not schema.is_valid(document)
    assert seen < 10  # of some forty


@pytest.mark.parametrize("layout", ["{}", f"{{layout: lvm, {LUKS}}}"])
def test_nothing_may_be_left_out(layout: str, folder: Path) -> None:
    good = made(spec(folder, "26.04", layout))
    may_go = {
        *("match", "macaddress", "dhcp4", "addresses", "routes", "nameservers"),
        *("optional", "kernel-crash-dumps"),
    }
    for path in places(good):
        for name in list(target_of(good, path)):
            if name in ("extra_options", "options") or (name in may_go and path[:2] != ("storage", "config")):
                continue
            document = copy.deepcopy(good)
            del target_of(document, path)[name]
            assert list(check.node_complaints(document, "resolute")), (*path, name)


def target_of(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    target: Any = document
    for key in path:
        target = target[key]
    assert isinstance(target, dict)
    return target


def test_a_check_of_nonsense_complains_and_does_not_fall(folder: Path) -> None:
    good = made(spec(folder))
    values: tuple[Any, ...] = (None, 1, "x", [], {}, [[]], [{}], {"x": 1}, True)
    for value in values:
        for key in good:
            document = copy.deepcopy(good)
            document[key] = value
            for finished in (True, False):
                list(check.node_complaints(document, "noble", finished=finished))
        for action in range(len(good["storage"]["config"])):
            for key in good["storage"]["config"][action]:
                document = copy.deepcopy(good)
                document["storage"]["config"][action][key] = value
                list(check.node_complaints(document, "noble"))
