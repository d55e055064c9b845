"""The tree and its signature, with the real openssl on both ends."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.errors import BuilderError, Exit
from builder.installer import facts, net, signature
from builder.installer.console import Console
from builder.installer.model import InstallError
from builder.netboot import keys, tree
from builder.run import run
from tests import sites
from tests.netlab import BUILDER

pytestmark = pytest.mark.tools
ROOT = Path(__file__).parents[2]


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[Path]:
    """A folder with a manifest, its signature, and the public key."""
    (tmp_path / "manifest.json").write_bytes(b'{"format": 1}\n')
    key = keys.secret("lab", tmp_path / "keys")
    keys.sign(key, tmp_path / "manifest.json", tmp_path / "manifest.sig")
    (tmp_path / "manifest.pub").write_bytes(keys.public(key))
    yield tmp_path


def require(folder: Path, manifest: bytes | None = None, sig: bytes | None = None) -> None:
    data = (folder / "manifest.json").read_bytes() if manifest is None else manifest
    found = (folder / "manifest.sig").read_bytes() if sig is None else sig
    signature.require(data, found, folder / "manifest.pub")


def test_the_installer_takes_what_was_signed_and_nothing_else(signed: Path) -> None:
    require(signed)
    good = (signed / "manifest.sig").read_bytes()
    for manifest, sig in (
        (b'{"format": 2}\n', None),
        (b"", None),
        (None, b""),
        (None, bytes(64)),
        (None, good[:-1]),
        (None, bytes([good[0] ^ 1]) + good[1:]),
    ):
        with pytest.raises(InstallError, match="is not signed with this cluster's key"):
            require(signed, manifest, sig)


def test_another_cluster_s_key_is_another_key(signed: Path) -> None:
    (signed / "manifest.pub").write_bytes(keys.public(keys.secret("other", signed / "keys")))
    with pytest.raises(InstallError, match="is not signed"):
        require(signed)
    (signed / "manifest.pub").unlink()
    with pytest.raises(InstallError, match="was not made for the network"):
        require(signed)


def test_the_key_is_made_once_and_for_its_owner_s_eyes(tmp_path: Path) -> None:
    key = keys.secret("lab", tmp_path / "keys")
    before = key.read_bytes()
    assert keys.secret("lab", tmp_path / "keys").read_bytes() == before
    assert key.stat().st_mode & 0o777 == 0o600 and key.parent.stat().st_mode & 0o077 == 0
    key.chmod(0o644)
    with pytest.raises(BuilderError, match="others can read the cluster's secret key"):
        keys.secret("lab", tmp_path / "keys")


def test_a_built_tree_is_signed_linked_and_the_same_twice(tmp_path: Path) -> None:
    """By the command that a user runs; the layers come from the cache, if they are there."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    spec = tmp_path / "examples/quickstart.yaml"
    sums = []
    for out in ("one", "two"):
        argv: list[str | Path] = [BUILDER, "pxe", spec, "--out", tmp_path / out, "--json"]
        made = json.loads(run(argv, step="builder pxe", env={"BUILDER_KEYS": str(tmp_path / "keys")}).stdout)
        found = tree.read(Path(made["path"]))
        assert (found.plan, found.manifest) == (made["plan"], made["manifest"])
        public = tmp_path / "public"
        public.write_bytes(keys.public(tmp_path / "keys/quickstart.pem"))
        manifest = (found.payload / "manifest.json").read_bytes()
        signature.require(manifest, (found.payload / "manifest.sig").read_bytes(), public)
        lines = run(["find", ".", "-type", "f", "-exec", "sha256sum", "{}", "+"], step="sum", cwd=found.folder)
        sums.append(sorted(lines.stdout.splitlines()))
    assert sums[0] == sums[1]
    for name in ("builder/layers/node.squashfs", "boot/vmlinuz", "boot/grubx64.efi"):
        assert (tmp_path / "one/quickstart/pxe" / name).samefile(tmp_path / "two/quickstart/pxe" / name)


def test_a_tree_with_a_file_missing_or_cut_is_not_served(tmp_path: Path) -> None:
    folder = tmp_path / "pxe"
    sites.make_tree(folder, "lab", {"layers/a": b"12345"})
    assert tree.read(folder).cluster == "lab"
    for path, message in (
        ("boot/initramfs.img", r"boot/initramfs\.img is missing"),
        ("builder/layers/a", "builder/layers/a is missing"),
        ("builder/manifest.sig", "is missing"),
        ("builder/manifest.json", "no network-boot tree"),
        ("tree.json", "no network-boot tree"),
    ):
        kept = (folder / path).read_bytes()
        (folder / path).unlink()
        with pytest.raises(BuilderError, match=message) as caught:
            tree.read(folder)
        assert caught.value.code == Exit.MEDIUM and "make pxe" in caught.value.hint
        (folder / path).write_bytes(kept)
    for text in ("{", "[]", '{"format": 9}'):
        (folder / "tree.json").write_text(text)
        with pytest.raises(BuilderError, match="is damaged"):
            tree.read(folder)


def test_while_it_is_served_it_is_not_made(tmp_path: Path) -> None:
    with tree.served(tmp_path / "pxe"):
        for other in (tree.served, tree.unserved):
            with pytest.raises(BuilderError, match=r"is being (served|made)"), other(tmp_path / "pxe"):
                pass
    with tree.unserved(tmp_path / "pxe"):
        pass


@pytest.fixture
def payload_server(signed: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(signed))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


MANIFEST = {
    "format": 1, "cluster": "lab", "plan": "ab" * 32, "files": [], "layers": [], "models": [], "nodes": [],
    "storage": {"esp": 1, "root": None, "models": 0, "keep": True}, "after": "reboot",
}  # fmt: skip


def test_a_manifest_is_believed_when_it_is_signed_and_the_one_that_was_meant(
    signed: Path, payload_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.secret("lab", signed / "keys")
    old, new = (json.dumps({**MANIFEST, "plan": plan * 32}).encode() for plan in ("00", "ff"))

    def publish(manifest: bytes) -> None:
        (signed / "manifest.json").write_bytes(manifest)
        keys.sign(key, signed / "manifest.json", signed / "manifest.sig")

    console = Console((), signed / "log")
    arguments = {"builder.payload": payload_server, "builder.manifest": hashlib.sha256(new).hexdigest()}
    monkeypatch.setattr(facts, "kernel_argument", lambda name, *_path: arguments.get(name, ""))
    # Its default is bound when it is defined, so the key's place is handed over here.
    ours = partial(signature.require, key=signed / "manifest.pub")
    monkeypatch.setattr(signature, "require", ours)
    publish(new)
    source, found = net.find(console)
    assert found.manifest.plan == "ff" * 32 and found.manifest.storage.keep and source.manifest() == new
    publish(old)  # signed as well, by us, last year
    with pytest.raises(InstallError, match="asks for"):
        net.find(console)
    publish(new)
    (signed / "manifest.json").write_bytes(new.replace(b"reboot", b"poweroff"))
    with pytest.raises(InstallError, match="is not signed"):
        net.find(console)
    (signed / "manifest.sig").unlink()
    with pytest.raises(InstallError, match=r"manifest\.sig is missing"):
        net.find(console)
