"""``builder inspect`` on ISOs that the real xorriso made: ours, Ubuntu's, and broken ones."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from builder import lock, plan
from builder.cli import main
from builder.errors import Exit
from builder.lock import Lock, LockedModel
from builder.media import iso, payload
from builder.media.bootkit import BootKit
from builder.media.payload import Payload
from builder.run import run
from builder.sources.apt import Package
from builder.spec.load import load
from tests import isotrees
from tests.conftest import EXAMPLES
from tests.isotrees import LIVE_SERVER

pytestmark = pytest.mark.tools


def builder(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@dataclass(frozen=True)
class Lab:
    """A spec with its lock, and the payload that a build would make of it, its layers a few bytes long."""

    spec: Path
    plan: plan.Plan
    payload: Payload


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    folder = tmp_path / "spec"
    shutil.copytree(EXAMPLES, folder)
    spec = folder / "quickstart.yaml"
    spec.write_text(spec.read_text().replace("quickstart", "lab", 1))
    todo = relock(spec)
    (folder / "layer").write_bytes(b"layer")
    layers = {layer.file: folder / "layer" for layer in todo.layers}
    models = {model.sha256: folder / "models/quickstart.txt" for model in todo.models}
    return Lab(spec, todo, payload.make(todo, layers, models))


def relock(spec: Path, version: str = "5.2") -> plan.Plan:
    """Give the spec a lock that was not resolved."""
    cluster = load(spec)
    model = cluster.models[0]
    size = (spec.parent / str(model.path)).stat().st_size
    models = (LockedModel(model.name, model.sha256 or "", size),)
    packages = (Package("bash", version, "amd64", "main", "pool/bash.deb", 1, "a" * 64),)
    pins = Lock(lock.asks_of(cluster), 1_700_000_000, packages, models)
    lock.save(pins, lock.path_for(spec))
    return plan.make(cluster, pins)


@pytest.fixture
def direct(lab: Lab, tmp_path: Path) -> Path:
    """The direct medium, as it is really written, its loaders a few bytes long."""
    kit = BootKit(tmp_path / "kit")
    kit.folder.mkdir()
    names = ("vmlinuz", "initrd.img", "installer.cpio.zst", "hybrid.img", "bios.img")
    for name in (*names, "shim.efi", "grub.efi", "mm.efi"):
        kit[name].write_bytes(bytes(8192))
    target = tmp_path / "lab.iso"
    iso.write(lab.plan, kit, lab.payload, target)
    return target


def remastered(lab: Lab, target: Path, *, arguments: str | None = None, lacks: str = "") -> Path:
    """The same payload on Ubuntu's ISO, as the contract of the two installers has it."""
    seed = "#cloud-config\nautoinstall: {version: 1, early-commands: [[python3, -B, -m, installer.pick]]}\n"
    wanted = arguments or f"autoinstall ds=nocloud\\;s=/cdrom/builder/live/ builder.manifest={lab.payload.sha256}"
    tree: dict[str, str | bytes] = {
        **LIVE_SERVER,
        "/boot/grub/grub.cfg": isotrees.with_arguments(wanted),
        "/builder/manifest.json": lab.payload.manifest_bytes,
        "/builder/live/user-data": seed,
        "/builder/live/meta-data": "",
        "/autoinstall.yaml": seed,
    }
    for path, file in lab.payload.files.items():
        tree[f"/builder/{path}"] = file if isinstance(file, bytes) else file.read_bytes()
    return isotrees.make(target, {name: text for name, text in tree.items() if name != lacks})


def test_our_direct_medium(lab: Lab, direct: Path) -> None:
    done = builder("inspect", direct, "--against", lab.spec)
    assert (done.exit_code, done.stderr) == (0, "")
    for line in (
        "does      asks nobody: installs the node that the machine turns out to be",
        f"plan      {lab.plan.id}",
        "  node2            10.77.0.12       mac=52:54:00:77:00:02; the largest disk of 4.0 GiB or more",
        f"against   {lab.spec}: the medium is what it would build now",
    ):
        assert line in done.stdout
    assert "problems" not in done.stdout


def test_our_remastered_medium(lab: Lab, tmp_path: Path) -> None:
    done = builder("inspect", remastered(lab, tmp_path / "x.iso"), "--json", "--against", lab.spec)
    assert done.exit_code == 0
    data = json.loads(done.stdout)
    assert data["asks"] is False
    assert data["manifest"] == lab.payload.sha256
    assert [node["address"] for node in data["nodes"]] == ["10.77.0.11", "10.77.0.12"]
    assert data["seeds"] == [{"place": "/cdrom/builder/live/", "here": True, "lacks": []}]
    assert [source["id"] for source in data["sources"]] == ["ubuntu-server-minimal", "ubuntu-server"]
    assert data["models"][0]["sha256"] == lab.plan.models[0].sha256
    assert data["against"] == {"spec": str(lab.spec), "differences": []}


def test_ubuntu_s_own_iso_asks_a_person(tmp_path: Path) -> None:
    done = builder("inspect", isotrees.make(tmp_path / "x.iso", LIVE_SERVER))
    assert done.exit_code == 0
    assert "does      asks a person; no autoinstall\n" in done.stdout
    assert "system    Ubuntu-Server 24.04.3 LTS" in done.stdout


def test_somebody_s_iso_with_a_seed_that_grub_loses(tmp_path: Path) -> None:
    menu = isotrees.with_arguments("autoinstall ds=nocloud;s=/cdrom/x/")
    tree = {**LIVE_SERVER, "/boot/grub/grub.cfg": menu, "/x/user-data": "#cloud-config\n", "/x/meta-data": ""}
    done = builder("inspect", isotrees.make(tmp_path / "x.iso", tree))
    assert done.exit_code == Exit.MEDIUM
    assert "does      asks a person; no autoinstall\n" in done.stdout
    assert "GRUB ends its kernel line at a ;" in done.stderr


def test_a_medium_that_a_changed_spec_would_not_make(lab: Lab, direct: Path) -> None:
    lab.spec.write_text(lab.spec.read_text().replace("10.77.0.12", "10.77.0.13"))
    relock(lab.spec, "5.3")
    done = builder("inspect", direct, "--against", lab.spec)
    assert done.exit_code == Exit.MEDIUM
    for line in (
        "the medium is not what it would build now\n",
        "  node2: address 10.77.0.12 on the medium, 10.77.0.13 now\n",
        "  node2: its seed differs: network-config (ethernets.cluster.addresses.0)\n",
        "  package bash: 5.2 on the medium, 5.3 now\n",
    ):
        assert line in done.stdout
    assert f"builder iso {lab.spec}" in done.stderr
    machine = json.loads(builder("inspect", direct, "--json", "--against", lab.spec).stdout)
    assert "package bash: 5.2 on the medium, 5.3 now" in machine["against"]["differences"]


def test_a_foreign_iso_against_a_spec(lab: Lab, tmp_path: Path) -> None:
    done = builder("inspect", isotrees.make(tmp_path / "x.iso", LIVE_SERVER), "--against", lab.spec)
    assert done.exit_code == Exit.MEDIUM
    assert "  it is not a medium that this builder made\n" in done.stdout


def test_a_spec_without_a_lock(lab: Lab, direct: Path) -> None:
    lock.path_for(lab.spec).unlink()
    done = builder("inspect", direct, "--against", lab.spec)
    assert done.exit_code == Exit.SPEC
    assert "has no lock yet" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("lacks", "problem"),
    [
        ("/builder/layers/node.squashfs", "/builder/layers/node.squashfs is missing"),
        ("/builder/seeds/node1/user-data", "/builder/seeds/node1/user-data is missing"),
        ("/builder/live/meta-data", "the seed /cdrom/builder/live/ lacks meta-data"),
    ],
)
def test_a_medium_that_lacks_a_file(lab: Lab, tmp_path: Path, lacks: str, problem: str) -> None:
    done = builder("inspect", remastered(lab, tmp_path / "x.iso", lacks=lacks))
    assert done.exit_code == Exit.MEDIUM
    assert f"  {problem}\n" in done.stdout


def test_boot_files_of_another_build(lab: Lab, direct: Path, tmp_path: Path) -> None:
    other = remastered(lab, tmp_path / "x.iso", arguments=f"autoinstall builder.manifest={'0' * 64}")
    done = builder("inspect", other)
    assert done.exit_code == Exit.MEDIUM
    assert "its kernel line accepts another manifest, 0000000000000000…" in done.stdout
    changed = tmp_path / "manifest.json"
    changed.write_bytes(lab.payload.manifest_bytes.replace(b'"reboot"', b'"poweroff"'))
    edit = ("-boot_image", "any", "keep", "-update", changed, "/builder/manifest.json", "-end")
    run(["xorriso", "-dev", direct, *edit], step="editing the medium")
    done = builder("inspect", direct)
    assert done.exit_code == Exit.MEDIUM
    assert f"/boot/initramfs.img accepts another manifest, {lab.payload.sha256[:16]}…" in done.stdout


def test_a_manifest_that_cannot_be_understood(tmp_path: Path) -> None:
    done = builder("inspect", isotrees.make(tmp_path / "x.iso", {"/builder/manifest.json": '{"format": 99}'}))
    assert done.exit_code == Exit.MEDIUM
    assert "format 99" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("content", [b"", b"hello", bytes(1 << 20)])
def test_what_is_no_iso(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.iso").write_bytes(content)
    done = builder("inspect", tmp_path / "x.iso")
    assert done.exit_code == Exit.MEDIUM
    assert "is not an ISO image" in done.stderr


def test_a_medium_that_was_cut(direct: Path) -> None:
    with direct.open("r+b") as file:
        file.truncate(direct.stat().st_size - 1)
    done = builder("inspect", direct)
    assert done.exit_code == Exit.MEDIUM
    assert "is cut short" in done.stderr


def test_looking_changes_nothing(direct: Path) -> None:
    before = direct.read_bytes()
    direct.chmod(0o444)
    assert builder("inspect", direct).exit_code == 0
    assert direct.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a loop device")
def test_a_stick_is_read_like_the_file_it_was_made_from(direct: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick.img"
    stick.write_bytes(direct.read_bytes() + bytes(8 << 20))
    made = run(["losetup", "--find", "--show", "--read-only", stick], step="making a loop device", check=False)
    if made.returncode != 0:
        pytest.skip("no loop devices here")
    device = Path(made.stdout.strip())
    try:
        done = builder("inspect", device)
    finally:
        run(["losetup", "--detach", device], step="removing the loop device")
    assert done.exit_code == 0
    assert f"medium    {device.name}: " in done.stdout
