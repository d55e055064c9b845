"""The picker: it decides as the direct installer does, and writes the document that subiquity will follow."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from builder.autoinstall import storage
from builder.installer import choose, commands, facts, payload, pick, picked
from builder.installer import live as live_system
from builder.installer.console import Console
from builder.installer.model import Disk, InstallError, Machine, Nic

MAC = "52:54:00:77:00:01"
GIB = 1 << 30
LAYER = b"layer" * 100
DOCUMENT: dict[str, Any] = {
    "version": 1,
    "storage": {
        "swap": {"size": 0},
        "config": [
            {
                "id": "disk",
                "type": "disk",
                "ptable": "gpt",
                "match": {"path": pick.NOT_CHOSEN},
                "grub_device": True,
            },
            {"id": "bios", "type": "partition", "device": "disk", "size": 1 << 20, "flag": "bios_grub"},
            {"id": "esp", "type": "partition", "device": "disk", "size": 1 << 28, "flag": "boot"},
            {"id": "root", "type": "partition", "device": "disk", "size": -1},
        ],
    },
    "user-data": {"users": [{"name": "admin", "gecos": "lab administrator"}]},
}


def action(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (one for one in document["storage"]["config"] if one["id"] == name)
    return dict(found)


def changed(**storage: Any) -> dict[str, Any]:
    return {**DOCUMENT, "storage": {**DOCUMENT["storage"], **storage}}


# The document


def test_bios_gets_grub_on_the_disk() -> None:
    done = pick.finish(DOCUMENT, "/dev/vda", uefi=False)
    assert action(done, "disk") == {**action(DOCUMENT, "disk"), "match": {"path": "/dev/vda"}, "grub_device": True}
    assert "grub_device" not in action(done, "esp")


def test_uefi_gets_grub_on_the_esp() -> None:
    done = pick.finish(DOCUMENT, "/dev/nvme0n1", uefi=True)
    assert action(done, "esp") == {**action(DOCUMENT, "esp"), "grub_device": True}
    assert action(done, "disk")["match"] == {"path": "/dev/nvme0n1"}
    assert "grub_device" not in action(done, "disk")


@pytest.mark.parametrize("uefi", [False, True])
def test_nothing_else_is_changed(uefi: bool) -> None:
    before = json.dumps(DOCUMENT)
    done = pick.finish(DOCUMENT, "/dev/vda", uefi=uefi)
    assert json.dumps(DOCUMENT) == before
    assert [one["id"] for one in done["storage"]["config"]] == ["disk", "bios", "esp", "root"]
    assert {key: done[key] for key in done if key != "storage"} == {
        key: DOCUMENT[key] for key in DOCUMENT if key != "storage"
    }
    assert done["storage"]["swap"] == {"size": 0}
    for name in ("bios", "root"):
        assert action(done, name) == action(DOCUMENT, name)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"version": 1}, "has no storage"),
        ({"version": 1, "storage": {"layout": {"name": "direct"}}}, "no list storage: config"),
        (changed(config=[1]), "no list storage: config"),
        (changed(config=DOCUMENT["storage"]["config"][1:]), "0 storage actions disk"),
        (changed(config=DOCUMENT["storage"]["config"] * 2), "2 storage actions disk"),
        (changed(config=DOCUMENT["storage"]["config"][:2]), "0 storage actions esp"),
        (changed(config=[{"id": "disk", "match": {"size": "largest"}}, {"id": "esp"}]), "names a disk"),
        (changed(config=[{"id": "disk", "path": "/dev/sda"}, {"id": "esp"}]), "names a disk"),
    ],
)
def test_a_document_that_is_not_ours_is_refused(document: dict[str, Any], reason: str) -> None:
    with pytest.raises(InstallError, match=reason):
        pick.finish(document, "/dev/vda", uefi=False)


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=40), max_size=4))
def test_the_json_that_is_written_is_yaml(extra: dict[str, str]) -> None:
    """Whatever somebody calls a cluster or has as a password's hash; surrogates are no characters."""
    text = pick.as_yaml({"version": 1, "user-data": extra})
    assert json.loads(text)["user-data"] == extra
    assert yaml.safe_load(text)["user-data"] == extra


def test_the_documents_are_made_for_the_picker() -> None:
    """Both halves of one agreement; the picker cannot import the other one on a live system."""
    config = storage.section("direct", None, {"esp": 1 << 28, "root": None, "models": 0})["config"]
    done = pick.finish({"storage": {"config": config}}, "/dev/vda", uefi=True)
    assert action(done, "disk")["match"] == {"path": "/dev/vda"}


# The whole


class Live:
    """A live system with a medium at /cdrom, made of files; ``console`` keeps the lines."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "cdrom/builder"
        self.cmdline = folder / "cmdline"
        self.efi = folder / "efi"
        self.document = folder / "autoinstall.yaml"
        self.picked = folder / "run/picked.json"
        self.console = Console((), folder / "run/install.log")
        self.machine = Machine(nics=(Nic("eth0", MAC),))
        self.disks: tuple[Disk, ...] = (Disk("vda", "/dev/vda", size=8 * GIB, sector=512),)
        self.files = {
            "layers/node.squashfs": LAYER,
            "autoinstall/node1.json": json.dumps(DOCUMENT).encode(),
            "seeds/node1/user-data": b"#cloud-config\n",
            "seeds/node2/user-data": b"#cloud-config\n",
        }
        self.write()
        for module, name, value in (
            (live_system, "PAYLOAD", self.root),
            (pick, "DOCUMENT", self.document),
            (picked, "PATH", self.picked),
            (pick, "EFI", self.efi),
            (choose, "SLOW_NICS", 0.0),
            (commands, "PATH", "/nowhere"),
        ):
            monkeypatch.setattr(module, name, value)
        digest = payload.argued_digest
        monkeypatch.setattr(payload, "argued_digest", lambda: digest(self.cmdline))
        monkeypatch.setattr(facts, "parent_devices", lambda device: frozenset({"sr0"}))
        monkeypatch.setattr(facts, "read_machine", lambda: self.machine)
        monkeypatch.setattr(facts, "read_disks", lambda log=None: self.disks)

    def write(self) -> None:
        """The payload and the kernel's command line that goes with it."""
        for name, data in self.files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(data)
        nodes = [
            {"name": "node1", "match": {"mac": MAC}, "autoinstall": "autoinstall/node1.json"},
            {"name": "node2", "match": {"mac": MAC[:-1] + "2"}},
        ]
        manifest = {
            "format": 1,
            "cluster": "lab",
            "plan": "ab" * 32,
            "files": [
                {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for path, data in self.files.items()
            ],
            "layers": ["layers/node.squashfs"],
            "models": [],
            "nodes": [{**node, "disk": {"largest": True}, "seed": f"seeds/{node['name']}"} for node in nodes],
            "storage": {"esp": 1 << 20, "root": None, "models": 0},
            "after": "reboot",
        }
        data = json.dumps(manifest).encode()
        (self.root / "manifest.json").write_bytes(data)
        self.cmdline.write_text(f"autoinstall builder.manifest={hashlib.sha256(data).hexdigest()} console=tty0\n")

    def pick(self, name: str = "") -> str:
        picked = pick.pick(self.console, name)
        assert picked is not None
        manifest, node = picked
        return f"{node.name} {manifest.plan[:4]}"


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    return Live(tmp_path, monkeypatch)


@pytest.mark.parametrize("uefi", [False, True])
def test_the_node_of_this_machine_is_picked(live: Live, uefi: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if uefi:
        live.efi.mkdir()
    assert live.pick() == "node1 abab"
    assert yaml.safe_load(live.document.read_text()) == pick.finish(DOCUMENT, "/dev/vda", uefi=uefi)
    assert live.document.stat().st_mode & 0o777 == 0o600
    assert list(live.document.parent.glob("autoinstall.yaml*")) == [live.document]
    assert json.loads(live.picked.read_text()) == {"node": "node1", "disk": "/dev/vda", "sector": 512}
    phases = [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()]
    assert list(dict.fromkeys(phases)) == ["payload", "node", "disk", "verify", "document"]


def test_a_person_may_name_the_node(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live.machine = Machine()
    assert live.pick("node1") == "node1 abab"
    said = capsys.readouterr().err
    assert "builder: node: node1 (builder.node=node1 on the kernel's command line)" in said
    assert "identifiers that this machine does not have" in said


def test_naming_the_node_that_it_is_needs_no_note(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    live.pick("node1")
    assert "note:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "phase", "reason"),
    [
        ("cmdline", "payload", "no builder.manifest="),
        ("digest", "payload", "is no sha256"),
        ("manifest", "payload", "manifest.json has sha256"),
        ("medium", "payload", "cannot read"),
        ("mac", "node", "this machine is none of the cluster's nodes: node1, node2"),
        ("name", "node", "builder.node=node9: the cluster has no such node, but node1, node2"),
        ("none", "disk", "the machine has no disk that may be written"),
        ("foreign", "disk", "it holds data"),
        ("used", "disk", "is in use at /cdrom"),
        ("layer", "verify", "layers/node.squashfs is damaged"),
        ("seed", "verify", "seeds/node1/user-data is missing"),
        ("document", "verify", "autoinstall/node1.json is damaged"),
        ("other", "document", "no autoinstall document for node2"),
    ],
)
def test_nothing_is_picked_when_anything_is_wrong(live: Live, spoil: str, phase: str, reason: str) -> None:
    entry = live.disks[0]
    disks = {
        "none": (),
        "foreign": (Disk("vda", "/dev/vda", size=8 * GIB, table="dos"),),
        "used": (Disk("vda", "/dev/vda", size=8 * GIB, mountpoints=("/cdrom",)),),
    }
    live.disks = disks.get(spoil, (entry,))
    if spoil == "mac":
        live.machine = Machine(nics=(Nic("eth0", "52:54:00:99:99:99"),))
    if spoil == "cmdline":
        live.cmdline.write_text("autoinstall ds=nocloud\n")
    if spoil == "digest":
        live.cmdline.write_text("builder.manifest=abc\n")
    if spoil == "manifest":
        (live.root / "manifest.json").write_text("{}")
    if spoil == "medium":
        (live.root / "manifest.json").unlink()
    if spoil == "seed":
        (live.root / "seeds/node1/user-data").unlink()
    for name, path in (("layer", "layers/node.squashfs"), ("document", "autoinstall/node1.json")):
        if spoil == name:
            data = bytearray((live.root / path).read_bytes())
            data[-1] ^= 1
            (live.root / path).write_bytes(data)
    with pytest.raises(InstallError, match=reason):
        live.pick({"name": "node9", "other": "node2"}.get(spoil, ""))
    assert live.console.phase == phase
    assert not live.document.exists()
    assert not live.picked.exists()


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff"])
def test_a_document_that_is_none(live: Live, content: bytes) -> None:
    live.files["autoinstall/node1.json"] = content
    live.write()
    with pytest.raises(InstallError, match=r"autoinstall/node1\.json"):
        live.pick()


def test_the_disk_that_the_medium_is_on_is_never_picked(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "parent_devices", lambda device: frozenset({"loop3", "sdb1", "sdb"}))
    live.disks = (Disk("sdb", "/dev/sdb", size=64 * GIB), Disk("vda", "/dev/vda", size=8 * GIB))
    live.pick()
    assert json.loads(live.picked.read_text())["disk"] == "/dev/vda"


def test_a_failure_says_what_the_machine_is(
    live: Live, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    live.machine = Machine(nics=(Nic("eth0", "52:54:00:99:99:99"),))
    monkeypatch.setattr(pick, "active_ttys", lambda: ())
    monkeypatch.setattr(pick, "Console", lambda ttys: live.console)
    monkeypatch.setattr(facts, "kernel_argument", lambda name: "")
    monkeypatch.setattr(payload, "argued_digest", lambda: hashlib.sha256(manifest(live)).hexdigest())
    assert pick.main() == 1
    said = capsys.readouterr().err
    assert "builder-failed node: this machine is none of the cluster's nodes" in said
    assert "Nothing was written to any disk." in said
    assert '    mac: "52:54:00:99:99:99"' in said
    assert "/dev/vda: 8.0 GiB" in said

    live.machine = Machine(nics=(Nic("eth0", MAC),))
    assert pick.main() == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"builder-picked node1 {'ab' * 32}"


def manifest(live: Live) -> bytes:
    return (live.root / "manifest.json").read_bytes()
