"""The installer's disk work with the real programs, on image files and, where possible, loop devices.

``test_install_to_image`` is a whole installation but for what needs a machine of its own, which the boot test
covers: the machine's facts name the image file as the only disk, and GRUB is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import run as host
from builder.installer import __main__ as recipe
from builder.installer import choose, commands, disk, facts, guard, layout, payload, report, system
from builder.installer.console import Console
from builder.installer.model import (
    Disk,
    File,
    InstallError,
    Machine,
    Manifest,
    Model,
    Nic,
    Storage,
    Want,
)

pytestmark = pytest.mark.tools

MIB = 1 << 20
GIB = 1 << 30
MAC = "52:54:00:77:00:01"
MODEL = os.urandom(MIB) * 30


def tool(*argv: str | Path) -> str:
    """Run a host tool to check what the installer did."""
    return host.run(argv, step=str(argv[0])).stdout


def need(*programs: str) -> None:
    for program in programs:
        if host.which(program) is None:
            pytest.skip(f"{program} is not installed")


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


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


def test_what_the_boot_image_lacks_is_named_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "PROGRAMS", ("mount", "mkfs.none"))
    monkeypatch.setattr(disk, "FILE_SYSTEMS", ("proc", "nonefs"))
    with pytest.raises(InstallError, match=r"the boot image lacks mkfs\.none, the nonefs driver"):
        disk.require()


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
        ["/boot/efi", "vfat", "umask=0077"],
        ["/srv/models", "ext4", "ro,nodev,nosuid,noexec"],
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


def squash(source: Path, target: Path) -> Path:
    tool("mksquashfs", source, target, "-noappend", "-no-progress", "-quiet", "-all-root")
    return target


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """Two layers; the upper one changes a file of the lower one and adds one."""
    need("mksquashfs", "unsquashfs")
    made = []
    for name, files in {
        "node": {"etc/hostname": "base\n", "usr/lib/big": "x" * MIB},
        "node.site": {"etc/hostname": "site\n", "etc/builder/site": "yes\n"},
    }.items():
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        made.append(squash(tmp_path / name, tmp_path / f"{name}.squashfs"))
    return made[0], made[1]


def test_layers_are_unpacked_lowest_first(layers: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "target"
    system.unpack(layers, target, lambda done, total: None)
    assert (target / "etc/hostname").read_text() == "site\n"
    assert (target / "usr/lib/big").stat().st_size == MIB
    assert (target / "etc/builder/site").read_text() == "yes\n"


def test_unpacking_reports_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("mksquashfs", "unsquashfs")
    (tmp_path / "tree").mkdir()
    for index in range(40):
        (tmp_path / f"tree/{index}").write_bytes(os.urandom(4 * MIB))
    layer = squash(tmp_path / "tree", tmp_path / "layer.squashfs")
    seen: list[tuple[int, int]] = []
    defaults = {**(commands.run.__kwdefaults__ or {}), "poll_every": 0.01}
    monkeypatch.setattr(commands.run, "__kwdefaults__", defaults)
    system.unpack((layer,), tmp_path / "target", lambda done, total: seen.append((done, total)))
    assert {total for _, total in seen} == {layer.stat().st_size}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert 0 < seen[-1][0] <= layer.stat().st_size


def test_a_damaged_layer_fails_the_step(layers: tuple[Path, Path], tmp_path: Path) -> None:
    layers[0].write_bytes(b"not a squashfs")
    with pytest.raises(InstallError, match=r"unpacking node\.squashfs: unsquashfs exited 1"):
        system.unpack(layers[:1], tmp_path / "target", lambda done, total: None)


def test_a_copy_is_verified_while_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(MODEL)
    good = File("models/x", len(MODEL), hashlib.sha256(MODEL).hexdigest())
    system.copy(tmp_path / "source", tmp_path / "copy", good)
    assert (tmp_path / "copy").read_bytes() == MODEL
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o444
    with pytest.raises(InstallError, match="models/x read differently"):
        system.copy(tmp_path / "source", tmp_path / "other", File("models/x", len(MODEL), "0" * 64))


def test_models_are_copied_with_their_folders(tmp_path: Path) -> None:
    contents = {"tiny.gguf": MODEL, "org--name/config.json": b"{}", "org--name/a b/w.bin": MODEL}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    (tmp_path / "medium/models").mkdir(parents=True)
    for name, data in contents.items():
        (tmp_path / "medium/models" / digests[name]).write_bytes(data)
    files = tuple(
        File(f"models/{digest}", size, digest)
        for digest, size in {digests[name]: len(data) for name, data in contents.items()}.items()
    )
    manifest = Manifest(
        cluster="test",
        plan="x",
        files=files,
        layers=(),
        models=tuple(Model(name, f"models/{digest}") for name, digest in digests.items()),
        nodes=(),
        storage=Storage(0, None, 0),
        index={file.path: file for file in files},
    )
    seen: list[tuple[int, int]] = []
    system.models(tmp_path / "node", tmp_path / "medium", manifest, lambda *done: seen.append(done))
    placed = tmp_path / "node/srv/models"
    assert {name: (placed / name).read_bytes() for name in contents} == contents
    assert {(placed / name).parent.stat().st_mode & 0o777 for name in contents} == {0o755}
    assert seen[-1] == (2 * len(MODEL) + 2,) * 2
    host.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], step="checking", cwd=placed)


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


# A whole installation into an image file

IMAGE_SIZE = 2 * GIB


@pytest.fixture
def medium(layers: tuple[Path, Path], tmp_path: Path) -> Path:
    """A payload folder for node1 with the two layers and one model."""
    root = tmp_path / "medium"
    digest = hashlib.sha256(MODEL).hexdigest()
    files = {
        "layers/node.squashfs": layers[0].read_bytes(),
        "layers/node.site.squashfs": layers[1].read_bytes(),
        f"models/{digest}": MODEL,
        "seeds/node1/user-data": b"#cloud-config\n",
        "seeds/node1/meta-data": b"instance-id: x\n",
        "seeds/node1/network-config": b"version: 2\n",
    }
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    manifest = {
        "format": 1,
        "cluster": "test",
        "plan": "cd" * 32,
        "volume": "TEST",
        "files": [
            {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ],
        "layers": ["layers/node.squashfs", "layers/node.site.squashfs"],
        "models": [{"name": "tiny.gguf", "path": f"models/{digest}"}],
        "nodes": [
            {"name": "node1", "match": {"mac": MAC}, "disk": {"serial": "IMAGE"}, "seed": "seeds/node1"},
            {
                "name": "node2",
                "match": {"mac": MAC[:-1] + "2"},
                "disk": {"serial": "x"},
                "seed": "seeds/node2",
            },
        ],
        "storage": {"esp": 64 * MIB, "root": None, "models": 100 * MIB},
        "after": "reboot",
        "packages": [],
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    # Not in the manifest, so it must not reach the node.
    (root / "seeds/node1/vendor-data").write_text("#cloud-config\n")
    return root


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return sparse(tmp_path / "image", IMAGE_SIZE)


@pytest.fixture
def install(medium: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> recipe.Install:
    """An installation whose machine has one disk, the image file, and the node's network card."""
    entry = Disk("image", str(image), size=IMAGE_SIZE, serial="IMAGE")
    manifest_digest = hashlib.sha256((medium / "manifest.json").read_bytes()).hexdigest()
    monkeypatch.setattr(payload, "expected_digest", lambda: manifest_digest)
    monkeypatch.setattr(facts, "read_machine", lambda: Machine(nics=(Nic("eth0", MAC),)))
    monkeypatch.setattr(facts, "read_disks", lambda log=None: (entry,))
    monkeypatch.setattr(choose, "SLOW_NICS", 0.0)
    # Only what can be mounted here; test_install_to_image says how it does without vfat.
    monkeypatch.setattr(disk, "FILE_SYSTEMS", ("ext4",))
    monkeypatch.setattr(recipe, "TARGET", tmp_path / "target")
    monkeypatch.setattr(recipe, "ESP", tmp_path / "esp")
    return recipe.Install(Console((), tmp_path / "install.log"), medium)


def failure(install: recipe.Install, capsys: pytest.CaptureFixture[str]) -> str:
    """Run to the failure, report it as the installer does, and return what the console shows."""
    with pytest.raises(InstallError) as caught:
        install.run()
    recipe.fail(install, caught.value)
    return capsys.readouterr().err


def untouched(image: Path) -> bool:
    """A sparse file that nothing was written to has no blocks."""
    return image.stat().st_blocks == 0


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        ("manifest", "builder-failed payload: manifest.json has sha256"),
        ("layer", "builder-failed verify: layers/node.site.squashfs is damaged"),
        ("model", "builder-failed verify: models/"),
        ("seed", "builder-failed verify: seeds/node1/user-data is missing"),
        ("mac", "builder-failed node: this machine is none of the cluster's nodes: node1, node2"),
        ("serial", "builder-failed disk: no disk has serial IMAGE"),
        ("two", "builder-failed disk: serial IMAGE is ambiguous"),
        ("small", "builder-failed disk: "),
        ("foreign", "builder-failed disk: "),
        ("changed", "builder-failed disk: the disks changed while the payload was being checked"),
    ],
)
def test_nothing_is_written_when_anything_is_wrong(
    spoil: str,
    expected: str,
    install: recipe.Install,
    medium: Path,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = Disk("image", str(image), size=IMAGE_SIZE, serial="IMAGE")
    lists: dict[str, list[tuple[Disk, ...]]] = {
        "serial": [(Disk("image", str(image), size=IMAGE_SIZE, serial="other"),)],
        "two": [(entry, Disk("other", "/dev/null", serial="IMAGE"))],
        "small": [(Disk("image", str(image), size=100 * MIB, serial="IMAGE"),)],
        "foreign": [(Disk("image", str(image), size=IMAGE_SIZE, serial="IMAGE", table="dos"),)],
        "changed": [(entry,), (Disk("image", str(image), size=IMAGE_SIZE * 2, serial="IMAGE"),)],
    }
    if spoil in lists:
        answers = iter(lists[spoil] + [lists[spoil][-1]] * 3)
        monkeypatch.setattr(facts, "read_disks", lambda log=None: next(answers))
    if spoil == "manifest":
        (medium / "manifest.json").write_text("{}")
    if spoil == "layer":
        data = bytearray((medium / "layers/node.site.squashfs").read_bytes())
        data[-1] ^= 1
        (medium / "layers/node.site.squashfs").write_bytes(data)
    if spoil == "model":
        (medium / "models" / hashlib.sha256(MODEL).hexdigest()).write_bytes(MODEL[:-1])
    if spoil == "seed":
        (medium / "seeds/node1/user-data").unlink()
    if spoil == "mac":
        monkeypatch.setattr(facts, "read_machine", lambda: Machine(nics=(Nic("eth0", "52:54:00:00:00:99"),)))
    shown = failure(install, capsys)
    assert expected in shown
    assert "Nothing was written to any disk." in shown
    assert '- name: "node1"  # choose one' in shown
    assert untouched(image)


def test_a_failure_after_the_first_write_says_so(
    install: recipe.Install, image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need("sfdisk", "wipefs")
    monkeypatch.setattr(disk, "make_file_systems", lambda devices, log: 1 / 0)
    monkeypatch.setattr(disk, "partition_devices", lambda path, plan, log: {})
    with pytest.raises(ZeroDivisionError) as caught:
        install.run()
    recipe.fail(install, caught.value)
    shown = capsys.readouterr().err
    assert "builder-failed partition: unexpected ZeroDivisionError: division by zero" in shown
    assert f"(the disk {image} was already being written)" in shown
    assert "Nothing was written" not in shown
    assert "  | __main__.py:" in shown


@pytest.fixture
def loops(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Loop devices in place of the kernel's partitions of the image."""
    devices: dict[str, str] = {}

    def attach(path: str, plan: layout.Layout, log: object) -> dict[str, str]:
        for part in plan.partitions:
            where = ["--offset", str(part.start), "--sizelimit", str(part.size)]
            devices[part.name] = tool("losetup", "--find", "--show", *where, path).strip()
        return devices

    monkeypatch.setattr(disk, "partition_devices", attach)
    yield devices
    for name in ("target", "esp"):
        disk.unmount(tmp_path / name)
    for device in devices.values():
        tool("losetup", "--detach", device)


def can_mount(folder: Path) -> str:
    """Why loop devices cannot be mounted here; empty when they can."""
    if os.geteuid() != 0:
        return "needs root"
    image = sparse(folder / "probe", 8 * MIB)
    tool("mkfs.ext4", "-q", image)
    (folder / "mnt").mkdir()
    probe = host.run(["mount", "-o", "loop", image, folder / "mnt"], step="probing", check=False)
    if probe.returncode != 0:
        return f"loop devices cannot be mounted here: {probe.stderr.strip()}"
    tool("umount", folder / "mnt")
    return ""


def test_install_to_image(
    install: recipe.Install,
    loops: dict[str, str],
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    need("sfdisk", "wipefs", "mkfs.vfat", "mkfs.ext4", "losetup", "unsquashfs")
    if reason := can_mount(tmp_path):
        pytest.skip(reason)
    monkeypatch.setattr(system, "boot_loader", lambda *arguments: None)
    fat = "vfat" in Path("/proc/filesystems").read_text().split()
    if not fat:  # the kernel of a sandbox may lack it; an ext4 in its place tests all but FAT itself
        monkeypatch.setattr(disk, "make_esp", disk.make_root)
    install.run()
    lines = capsys.readouterr().err.splitlines()
    phases = [line.split(":")[1].strip() for line in lines if line.startswith("builder:")]
    assert list(dict.fromkeys(phases)) == [
        *("payload", "node", "disk", "verify", "partition", "unpack", "bootloader", "seed", "models", "done")
    ]
    assert lines[-1] == f"builder-installed node1 {'cd' * 32}"

    # Nothing holds the image any more, and the file systems are clean.
    assert disk.mounts_below(tmp_path / "target") == []
    for name in ("builder-root", "builder-models"):
        header = tool("dumpe2fs", "-h", loops[name])
        assert "Filesystem state:         clean" in header
        assert "needs_recovery" not in header
        tool("e2fsck", "-f", "-n", loops[name])
    if fat:
        tool("fsck.vfat", "-n", loops["builder-esp"])

    (tmp_path / "installed").mkdir()
    for name, point in (("builder-root", ""), ("builder-esp", "boot/efi"), ("builder-models", "srv/models")):
        tool("mount", "-o", "ro", loops[name], tmp_path / "installed" / point)
    try:
        node = tmp_path / "installed"
        assert (node / "etc/hostname").read_text() == "site\n"
        assert (node / "etc/builder/node").read_text() == "node1\n"
        assert (node / "usr/share/builder/manifest.json").read_bytes() == (
            tmp_path / "medium/manifest.json"
        ).read_bytes()
        seed = node / "var/lib/cloud/seed/nocloud"
        assert sorted(path.name for path in seed.iterdir()) == ["meta-data", "network-config", "user-data"]
        assert (seed / "user-data").stat().st_mode & 0o777 == 0o600
        assert (node / "srv/models/tiny.gguf").read_bytes() == MODEL
        assert (node / "srv/models/tiny.gguf").stat().st_mode & 0o777 == 0o444
        host.run(["sha256sum", "--check", "SHA256SUMS"], step="checking", cwd=node / "srv/models")
        assert (node / f"boot/efi/EFI/builder/{'cd' * 32}").exists()
        assert "builder: unpack" in (node / "var/log/builder/install.log").read_text()
    finally:
        tool("umount", "-R", tmp_path / "installed")


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
