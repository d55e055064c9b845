"""The placing, on a folder in place of a node's file systems; and the package as a live system runs it.

GRUB needs a disk of its own: the boot test installs it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from builder import run as host
from builder.canonical import PACKAGE
from builder.installer import facts, live, payload, picked, place, system
from builder.installer.console import Console
from builder.installer.disk import Volume, Volumes
from builder.installer.model import Disk, InstallError, Match, Node, Want

pytestmark = pytest.mark.tools

PLAN = "cd" * 32
MODEL = os.urandom(1 << 20)
DIGEST = hashlib.sha256(MODEL).hexdigest()
FILES = {
    "layers/node.squashfs": b"layer",
    f"models/{DIGEST}": MODEL,
    "seeds/node1/user-data": b"#cloud-config\n",
    "seeds/node1/meta-data": b"instance-id: x\n",
    "seeds/node1/network-config": b"version: 2\n",
}
FSTAB = "/dev/disk/by-uuid/4aa5 / ext4 errors=remount-ro 0 1\n"
# As the layers, curtin and subiquity leave a node.
INSTALLED = {
    "etc/fstab": FSTAB,
    "curtin/curtin-hooks": "#!/bin/sh\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/cloud/cloud.cfg.d/90-builder.cfg": "datasource_list: [NoCloud, None]\n",
    "etc/cloud/cloud.cfg.d/99-installer.cfg": "datasource_list: [None]\n",
    "etc/cloud/cloud.cfg.d/90-installer-network.cfg": "network: {}\n",
    "boot/efi/EFI/ubuntu/grub.cfg": "curtin's\n",
}


@pytest.fixture
def medium(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A payload folder, its digest on the kernel's command line."""
    root = tmp_path / "cdrom/builder"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    node: dict[str, Any] = {"name": "node1", "match": {"mac": "52:54:00:77:00:01"}, "disk": {"largest": True}}
    manifest = {
        "format": 1,
        "cluster": "test",
        "plan": PLAN,
        "files": [
            {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in FILES.items()
        ],
        "layers": ["layers/node.squashfs"],
        "models": [{"name": "org--name/tiny.gguf", "path": f"models/{DIGEST}"}],
        "nodes": [{**node, "seed": "seeds/node1"}],
        "storage": {"esp": 64 << 20, "root": None, "models": 100 << 20},
        "after": "reboot",
    }
    (root / "manifest.json").write_text(json.dumps(manifest))
    # Not in the manifest, so it must not reach the node.
    (root / "seeds/node1/vendor-data").write_text("#cloud-config\n")
    digest = hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()
    monkeypatch.setattr(payload, "argued_digest", lambda: digest)
    monkeypatch.setattr(live, "PAYLOAD", root)
    return root


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node as subiquity hands it over, on the disk that the picker chose."""
    root = tmp_path / "target"
    for name, text in INSTALLED.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setenv("TARGET_MOUNT_POINT", str(root))
    monkeypatch.setattr(picked, "PATH", tmp_path / "run/picked.json")
    picked.PATH.parent.mkdir()
    picked.PATH.write_text(json.dumps({"node": "node1", "disk": "/dev/vda", "sector": 512}))
    volumes = {root: "/dev/vda3", root / "boot/efi": "/dev/vda2", root / "srv/models": "/dev/vda4"}
    monkeypatch.setattr(place, "mounted", lambda point, console: Volume(volumes[point], f"u-{volumes[point]}"))
    monkeypatch.setattr(facts, "parent_devices", lambda device: frozenset({"vda3", "vda"}))
    monkeypatch.setattr(place, "active_ttys", lambda: ())
    monkeypatch.setattr(place, "Console", lambda ttys: Console(ttys, tmp_path / "run/install.log"))
    return root


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, Volumes]]:
    """What GRUB is to be installed to."""
    asked: list[tuple[str, int, Volumes]] = []
    monkeypatch.setattr(
        system,
        "boot_loader",
        lambda target, device, sector, volumes, log: asked.append((device, sector, volumes)),
    )
    return asked


def test_the_node_is_the_one_that_the_direct_installer_makes(
    medium: Path, target: Path, loaders: list[tuple[str, int, Volumes]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.main() == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == f"builder-installed node1 {PLAN}"
    assert all(line.startswith("builder: place: ") for line in lines[:-1])

    seed = target / system.SEED
    assert {path.name: path.read_bytes() for path in seed.iterdir()} == {
        name.rpartition("/")[2]: data for name, data in FILES.items() if name.startswith("seeds/")
    }
    assert {path.stat().st_mode & 0o777 for path in seed.iterdir()} == {0o600}
    assert (target / "etc/builder/node").read_text() == "node1\n"
    manifest = (medium / "manifest.json").read_bytes()
    assert (target / "usr/share/builder/manifest.json").read_bytes() == manifest
    assert (target / "etc/machine-id").read_bytes() == b""
    assert (target / "etc/fstab").read_text() == FSTAB
    assert not (target / "curtin").exists()
    assert [path.name for path in (target / "etc/cloud/cloud.cfg.d").iterdir()] == ["90-builder.cfg"]
    assert (target / "srv/models/org--name/tiny.gguf").read_bytes() == MODEL
    host.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], step="checking", cwd=target / "srv/models")
    assert "builder: place" in (target / "var/log/builder/install.log").read_text()
    assert (target / f"boot/efi/EFI/builder/{PLAN}").exists()
    ((device, sector, volumes),) = loaders
    assert (device, sector, volumes.root.path, volumes.esp.path) == ("/dev/vda", 512, "/dev/vda3", "/dev/vda2")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("picker", "nobody knows which node this is"),
        ("node", "the picker chose node9, which is no node of this medium"),
        ("disk", "is on vda, vda3, and the picker chose /dev/vdb"),
        ("manifest", "manifest.json has sha256"),
        ("hook", "curtin did not run the layers' /curtin/curtin-hooks"),
        ("seed", "copying user-data: No such file or directory"),
        ("model", f"models/{DIGEST} read differently while it was copied"),
        ("loader", "GRUB will not"),
    ],
)
def test_a_node_that_is_not_whole_gets_no_marker(
    spoil: str,
    reason: str,
    medium: Path,
    target: Path,
    loaders: list[tuple[str, int, Volumes]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept = {"node": "node1", "disk": "/dev/vda", "sector": 512}
    if spoil == "picker":
        picked.PATH.unlink()
    if spoil in ("node", "disk"):
        other = {"node": "node9"} if spoil == "node" else {"disk": "/dev/vdb"}
        picked.PATH.write_text(json.dumps({**kept, **other}))
    if spoil == "manifest":
        (medium / "manifest.json").write_text("{}")
    if spoil == "hook":
        (target / "etc/fstab").write_text("# UNCONFIGURED FSTAB FOR BASE SYSTEM\n")
    if spoil == "seed":
        (medium / "seeds/node1/user-data").unlink()
    if spoil == "model":
        (medium / f"models/{DIGEST}").write_bytes(MODEL[:-1] + bytes([MODEL[-1] ^ 1]))
    if spoil == "loader":

        def fail(*arguments: object) -> None:
            raise InstallError("GRUB will not")

        monkeypatch.setattr(system, "boot_loader", fail)
    assert place.main() == 1
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("builder-failed "))
    assert said.startswith("builder-failed place: ")
    assert reason in said
    assert "was already being written" in said
    assert not (target / f"boot/efi/EFI/builder/{PLAN}").exists()


def test_what_is_mounted_is_asked_of_the_kernel(tmp_path: Path) -> None:
    if host.which("findmnt") is None:
        pytest.skip("findmnt is not installed")
    console = Console((), tmp_path / "log")
    assert place.mounted(Path("/proc"), console).fs == "proc"
    with pytest.raises(InstallError, match=f"nothing is mounted at {tmp_path}"):
        place.mounted(tmp_path, console)


def test_the_package_runs_where_there_is_only_python(tmp_path: Path) -> None:
    """Copied to the medium, it is imported from there, with nothing but the standard library."""
    shutil.copytree(PACKAGE / "installer", tmp_path / "installer", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import installer.pick, installer.curthook, installer.place; print(installer.__file__)"
    done = host.run([sys.executable, "-S", "-B", "-c", code], step="importing", env={"PYTHONPATH": str(tmp_path)})
    assert done.stdout.strip() == str(tmp_path / "installer/__init__.py")
    assert not list(tmp_path.rglob("__pycache__"))


def test_what_the_picker_keeps_is_what_the_placing_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picked, "PATH", tmp_path / "run/picked.json")
    picked.remember(Node("n", Match(), Want(), "seeds/n"), Disk("nvme0n1", "/dev/nvme0n1", sector=4096))
    assert picked.read() == picked.Picked("n", "/dev/nvme0n1", 4096)
