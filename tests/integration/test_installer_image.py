"""A whole installation into an image file, but for what needs a machine of its own, which the boot test covers.

The machine's facts name the image file as the only disk, and GRUB is left out.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder import run as host
from builder.installer import __main__ as recipe
from builder.installer import choose, disk, facts, layout, net, payload, system, web
from builder.installer.console import Console
from builder.installer.model import Disk, InstallError, Machine, Nic
from tests.integration.imagelab import GIB, MIB, MODEL, can_mount, need, sparse, tool

pytestmark = pytest.mark.tools

MAC = "52:54:00:77:00:01"
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
    monkeypatch.setattr(disk, "make_file_systems", lambda devices, log, keep: 1 / 0)
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

    require_installed(loops, tmp_path)


def require_installed(loops: dict[str, str], tmp_path: Path) -> None:
    """Mount what was installed, and look at it."""
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
        assert sorted(path.name for path in node.iterdir() if path.name.startswith(".")) == []
    finally:
        tool("umount", "-R", tmp_path / "installed")


@pytest.mark.parametrize("room", [0, GIB], ids=["to-the-disk", "held"])
def test_install_from_a_server(
    room: int,
    install: recipe.Install,
    medium: Path,
    loops: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The same node, whether the layers fit into memory or not."""
    need("sfdisk", "wipefs", "mkfs.vfat", "mkfs.ext4", "losetup", "unsquashfs")
    if reason := can_mount(tmp_path):
        pytest.skip(reason)
    monkeypatch.setattr(system, "boot_loader", lambda *arguments: None)
    if "vfat" not in Path("/proc/filesystems").read_text().split():
        monkeypatch.setattr(disk, "make_esp", disk.make_root)
    handler = partial(SimpleHTTPRequestHandler, directory=str(medium))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            base = f"http://127.0.0.1:{server.server_address[1]}"
            source = web.Web(base, room=room, held=tmp_path / "held")
            found = payload.Payload(payload.NOWHERE, payload.parse_manifest(source.manifest()), frozenset())
            monkeypatch.setattr(net, "address", lambda: base)
            monkeypatch.setattr(net, "find", lambda console: (source, found))
            monkeypatch.setattr(recipe, "STAGING", tmp_path / "target/.builder-layers")
            install.run()
        finally:
            server.shutdown()
            thread.join()
    assert f"builder-installed node1 {'cd' * 32}" in capsys.readouterr().err
    assert room == 0 or list((tmp_path / "held").iterdir()) == []
    require_installed(loops, tmp_path)
