"""The payload: the manifest is the one expected, and every file that will be read is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from builder.installer import payload
from builder.installer.model import File, InstallError, Match, Model, Node, Storage, Want

LAYER = b"layer" * 1000
MODEL = b"model" * 2000
FILES = {
    "layers/node.squashfs": LAYER,
    f"models/{hashlib.sha256(MODEL).hexdigest()}": MODEL,
    "seeds/node1/user-data": b"#cloud-config\n",
    "seeds/node1/meta-data": b"{}\n",
    "seeds/node10/user-data": b"#cloud-config\n",
}
RAW: dict[str, Any] = {
    "format": 1,
    "cluster": "quickstart",
    "plan": "ab" * 32,
    "volume": "QUICKSTART",
    "files": [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in FILES.items()
    ],
    "layers": ["layers/node.squashfs"],
    "models": [{"name": "tiny.gguf", "path": f"models/{hashlib.sha256(MODEL).hexdigest()}"}],
    "nodes": [
        {
            "name": "node1",
            "match": {"mac": "52:54:00:77:00:01"},
            "disk": {"largest": True, "min_size": 4 << 30, "overwrite": False},
            "seed": "seeds/node1",
        },
        {"name": "node10", "match": {"uuid": "u"}, "disk": {"serial": "S"}, "seed": "seeds/node10"},
    ],
    "storage": {"esp": 1 << 20, "root": None, "models": 0},
    "after": "poweroff",
    "packages": [],
}


def encode(**changes: Any) -> bytes:
    return json.dumps({**RAW, **changes}).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "manifest.json").write_bytes(encode())
    return tmp_path


def node1() -> Node:
    return payload.parse_manifest(encode()).nodes[0]


def used() -> tuple[File, ...]:
    return payload.used_by(payload.parse_manifest(encode()), node1())


def nothing(done: int, total: int) -> None:
    pass


def test_the_manifest_is_read_whole() -> None:
    manifest = payload.parse_manifest(encode())
    assert (manifest.cluster, manifest.plan, manifest.after) == ("quickstart", "ab" * 32, "poweroff")
    assert manifest.storage == Storage(1 << 20, None, 0)
    assert manifest.models == (Model("tiny.gguf", RAW["models"][0]["path"]),)
    assert (manifest.layer_bytes, manifest.model_sizes) == (len(LAYER), (len(MODEL),))
    assert manifest.nodes == (
        Node(
            "node1",
            Match(mac="52:54:00:77:00:01"),
            Want(largest=True, min_size=4 << 30, overwrite=False),
            "seeds/node1",
        ),
        Node("node10", Match(uuid="u"), Want(serial="S", overwrite=False), "seeds/node10"),
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not understood"),
        (b"[]", "not understood"),
        (encode(format=2), "format 2"),
        (encode(nodes=[{"name": "x"}]), "KeyError: 'match'"),
        (encode(files=[{"path": "../x", "size": 0, "sha256": ""}]), "outside the payload"),
        (encode(files=[{"path": "/x", "size": 0, "sha256": ""}]), "outside the payload"),
    ],
)
def test_a_manifest_that_is_not_understood(data: bytes, reason: str) -> None:
    with pytest.raises(InstallError, match=reason):
        payload.parse_manifest(data)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["../x"], "outside the folder"),
        (["a/../../x"], "outside the folder"),
        (["/etc/passwd"], "outside the folder"),
        (["a//b"], "outside the folder"),
        (["a/."], "outside the folder"),
        ([""], "outside the folder"),
        (["a\nb"], "cannot list"),
        (["a\\b"], "cannot list"),
        (["a", "a"], "a twice"),
        (["SHA256SUMS"], "SHA256SUMS twice"),
        (["a/b/c", "a/b"], "a/b as a file and as a folder"),
        (["SHA256SUMS/x"], "SHA256SUMS as a file and as a folder"),
    ],
)
def test_a_model_in_a_place_that_is_not_its_own(names: list[str], reason: str) -> None:
    models = [{"name": name, "path": RAW["models"][0]["path"]} for name in names]
    with pytest.raises(InstallError, match=reason):
        payload.parse_manifest(encode(models=models))


def test_models_may_lie_in_folders_and_share_their_bytes() -> None:
    models = [{"name": name, "path": RAW["models"][0]["path"]} for name in ("a", "org--x/a", "org--x/b/a")]
    manifest = payload.parse_manifest(encode(models=models))
    assert manifest.model_sizes == (len(MODEL),) * 3
    assert len(payload.used_by(manifest, node1())) == len(used())


def test_only_the_expected_manifest_is_taken(folder: Path) -> None:
    digest = hashlib.sha256(encode()).hexdigest()
    assert payload.load(folder, digest).manifest == payload.parse_manifest(encode())
    (folder / "manifest.json").write_bytes(encode() + b"\n")
    with pytest.raises(InstallError, match=f"this boot image wants {digest}"):
        payload.load(folder, digest)
    (folder / "manifest.json").unlink()
    with pytest.raises(InstallError, match="cannot read"):
        payload.load(folder, digest)


def test_the_expected_digest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.sha256"
    with pytest.raises(InstallError, match="was not made by builder"):
        payload.expected_digest(path)
    path.write_text("AB" * 32 + "\n")
    assert payload.expected_digest(path) == "ab" * 32
    path.write_text("abc\n")
    with pytest.raises(InstallError, match="does not hold a sha256"):
        payload.expected_digest(path)


def test_the_digest_that_the_kernel_was_given(tmp_path: Path) -> None:
    cmdline = tmp_path / "cmdline"
    for line, reason in (
        ("quiet autoinstall ds=nocloud", "did not arrive whole"),
        ("builder.manifest=abc", "is no sha256: 'abc'"),
        (f"builder.manifest={'zz' * 32}", "is no sha256"),
    ):
        cmdline.write_text(line + "\n")
        with pytest.raises(InstallError, match=reason):
            payload.argued_digest(cmdline)
    cmdline.write_text(f"autoinstall builder.manifest={'AB' * 32} --- console=tty0\n")
    assert payload.argued_digest(cmdline) == "ab" * 32


def test_an_autoinstall_document_is_used_by_its_node() -> None:
    entry = {"path": "autoinstall/node1.json", "size": 2, "sha256": "0" * 64}
    nodes = [{**RAW["nodes"][0], "autoinstall": "autoinstall/node1.json"}, RAW["nodes"][1]]
    manifest = payload.parse_manifest(encode(nodes=nodes, files=[*RAW["files"], entry]))
    assert [node.autoinstall for node in manifest.nodes] == ["autoinstall/node1.json", ""]
    assert {file.path for file in payload.used_by(manifest, manifest.nodes[0])} == {
        *(file.path for file in used()),
        "autoinstall/node1.json",
    }
    with pytest.raises(InstallError, match=r"names autoinstall/node1\.json but does not list it"):
        payload.used_by(payload.parse_manifest(encode(nodes=nodes)), manifest.nodes[0])


def test_a_node_uses_its_own_seed_the_layers_and_the_models() -> None:
    assert {file.path for file in used()} == set(FILES) - {"seeds/node10/user-data"}


def test_what_the_manifest_does_not_list_cannot_be_used() -> None:
    with pytest.raises(InstallError, match="names layers/other but does not list it"):
        payload.used_by(payload.parse_manifest(encode(layers=["layers/other"])), node1())
    with pytest.raises(InstallError, match="no seed for node1"):
        payload.used_by(payload.parse_manifest(encode(files=RAW["files"][:2])), node1())


def test_a_whole_payload_is_verified_with_progress(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    payload.verify(folder, used(), lambda done, total: seen.append((done, total)))
    total = sum(file.size for file in used())
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


@pytest.mark.parametrize("name", sorted(set(FILES) - {"seeds/node10/user-data"}))
@pytest.mark.parametrize("damage", ["bit", "short", "long", "missing"])
def test_any_damage_to_any_file_is_found(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 1
    path.write_bytes({"short": data[:-1], "long": data + b"\0"}.get(damage, data))
    if damage == "missing":
        path.unlink()
    with pytest.raises(InstallError, match=name):
        payload.verify(folder, used(), nothing)


def test_sizes_are_checked_before_anything_is_read(folder: Path) -> None:
    """A payload that was cut short must not first cost minutes of hashing."""
    (folder / "seeds/node1/user-data").write_bytes(b"x")
    calls: list[int] = []
    with pytest.raises(InstallError, match="it has 1 bytes, the manifest says 14"):
        payload.verify(folder, used()[::-1], lambda done, total: calls.append(done))
    assert calls == []


def test_a_file_of_another_node_may_be_damaged(folder: Path) -> None:
    (folder / "seeds/node10/user-data").unlink()
    payload.verify(folder, used(), nothing)
