"""The spine's last steps for Ubuntu's ISO: a plan, the live-server fixture, and what is then on the medium.

Ubuntu's archive is out of reach here, so the lock is made up, and the layers are a few files each.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from builder import build, inputs, inspect, lock, plan, resolve
from builder.cache import Cache
from builder.console import human
from builder.errors import BuilderError, Exit
from builder.files import sha256_of
from builder.inspect import against, show
from builder.lock import Lock
from builder.media import baseiso, isoimage, payload
from builder.media.bootkit import BootKit
from builder.media.payload import Payload
from builder.netboot import live, tree
from builder.run import Completed, run
from builder.sources.apt import Package
from builder.spec.load import load
from tests import liveserver
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.tools


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The pair's spec, with the fixture as the ISO that the user has already."""
    iso = liveserver.make(tmp_path / "live-server.iso", kernel=b"kernel" * 999, initrd=b"initrd" * 999, hwe=True)
    text = (EXAMPLES / "rtx5070-pair.yaml").read_text()
    text = text.replace("installer: subiquity", f"installer: subiquity\n  base_iso: {iso.name}")
    spec = tmp_path / "pair.yaml"
    spec.write_text(text.replace("  serial: null", "  serial: ttyS0,115200"))
    return spec


def planned(spec: Path, cache: Cache) -> plan.Plan:
    cluster = load(spec)
    base = lock.base_iso_of(cluster)
    assert base is not None
    packages = (Package("bash", "5.2.21-2ubuntu4", "amd64", "main", "pool/main/b/bash/bash.deb", 900, "ab" * 32),)
    pins = Lock(lock.asks_of(cluster), 1_760_000_000, packages, (), iso=baseiso.resolve(base, spec.parent, cache))
    lock.save(pins, lock.path_for(spec))
    assert lock.load(lock.path_for(spec)) == pins
    return plan.make(cluster, pins)


def gathered(spec: Path, cache: Cache) -> tuple[plan.Plan, list[Path], Payload]:
    todo = planned(spec, cache)
    stack: list[Path] = []
    for layer in todo.layers:
        tree = spec.parent / layer.name
        (tree / "etc").mkdir(parents=True, exist_ok=True)
        (tree / "etc" / layer.name).write_text("x" * 1000)
        stack.append(spec.parent / layer.file)
        run(["mksquashfs", tree, stack[-1], "-noappend", "-quiet"], step="making a layer")
    return todo, stack, payload.make(todo, {layer.name: layer for layer in stack}, {})


def medium(spec: Path, cache: Cache) -> tuple[plan.Plan, Path]:
    todo, stack, content = gathered(spec, cache)
    target = spec.parent / "pair.iso"
    build.write_medium(todo, inputs.base_iso(todo, spec.parent, cache), stack, content, target, cache)
    return todo, target


def test_one_stick_for_the_pair(pair: Path, tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    todo, iso = medium(pair, Cache(tmp_path / "cache"))
    image = isoimage.read(iso)
    menu = image.read("/boot/grub/grub.cfg").decode()
    wanted = "autoinstall ds=nocloud\\;s=/cdrom/builder/live/ builder.manifest="
    (line,) = set(re.findall(r"linux\s+/casper/hwe-vmlinuz (autoinstall [^\n]*?) +---", menu)) - set(
        re.findall(r"linux\s+/casper/hwe-vmlinuz (autoinstall [^\n]*builder\.node=[^\n]*?) +---", menu)
    )
    assert line.startswith(wanted) and line.endswith("console=tty0 console=ttyS0,115200")

    bootstrap = yaml.safe_load(image.read("/autoinstall.yaml"))
    seed = yaml.safe_load(image.read("/builder/live/user-data"))
    assert seed["autoinstall"] == bootstrap
    assert "/builder/live/installer/pick.py" in image.files
    for name in ("left", "right"):
        document = json.loads(image.read(f"/builder/autoinstall/{name}.json"))
        assert document == yaml.safe_load(image.read(f"/builder/autoinstall/{name}.json"))
        golden(f"rtx5070-pair/{name}.json", json.dumps(document, indent=1) + "\n")
    (ours,) = (one for one in yaml.safe_load(image.read("/casper/install-sources.yaml")) if one.get("default"))
    assert (ours["id"], ours["path"]) == ("node", "node.gpu.site.squashfs")
    assert 3000 <= ours["size"] < 4000

    content = inspect.gather(image)
    carried = inspect.carried(content)
    assert todo.lock is not None and todo.lock.iso is not None
    assert f"\nfrom      live-server.iso {human(todo.lock.iso.size):>10}  {todo.lock.iso.sha256[:16]}\n" in (
        show.table(inspect.inspect(content))
    )
    assert against.differences(carried, against.wanted(todo)) == ()
    pair.write_text(pair.read_text().replace("192.168.1.52", "192.168.1.53"))
    told = against.differences(carried, against.wanted(planned(pair, Cache(tmp_path / "cache"))))
    assert any("192.168.1.53" in line for line in told), told
    assert "right: its autoinstall document differs (network.ethernets.cluster.addresses.0)" in told


def test_the_same_over_the_network(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_KEYS", str(tmp_path / "keys"))
    todo, stack, content = gathered(pair, Cache(tmp_path / "cache"))
    kit = BootKit(tmp_path / "kit")
    kit.folder.mkdir()
    for name in tree.BOOT.values():
        (kit.folder / name).write_text(name)
    ubuntu = live.Ubuntu(tmp_path / "live-server.iso", stack)
    sums = set()
    for number in "12":
        made = tree.write(todo, kit, content, tmp_path / number / "pxe", ubuntu)
        assert tree.read(made.folder) == made
        files = sorted(path for path in made.folder.rglob("*") if path.is_file())
        sums.add(tuple((str(path.relative_to(made.folder)), sha256_of(path)) for path in files))
    assert len(sums) == 1

    # The newer kernel, as the medium's menu would take it; the fixture's are the same bytes.
    assert (made.boot / "vmlinuz").read_bytes() == b"kernel" * 999
    assert (made.boot / "initramfs.img").read_bytes() == live.initramfs(b"initrd" * 999, todo.epoch)
    assert made.live is not None and made.live.iso == f"{todo.cluster.name}.iso"
    iso = made.boot / made.live.iso
    assert made.live.size == iso.stat().st_size and made.live.memory == made.live.size + live.SYSTEM
    image = isoimage.read(iso)
    assert {"/builder/manifest.json", "/casper/node.gpu.site.squashfs", "/autoinstall.yaml"} <= set(image.files)
    assert image.read("/builder/manifest.json") == (made.payload / "manifest.json").read_bytes()
    seed = yaml.safe_load((made.seed / "user-data").read_text())
    assert seed["autoinstall"] == yaml.safe_load(image.read("/autoinstall.yaml"))

    for path in (iso, made.seed / "meta-data"):
        path.rename(tmp_path / "gone")
        with pytest.raises(BuilderError, match=f"{path.name} is missing") as caught:
            tree.read(made.folder)
        assert "make pxe" in caught.value.hint
        (tmp_path / "gone").rename(path)


def test_a_stick_from_another_iso_is_told(pair: Path, tmp_path: Path) -> None:
    """Though it has the same name, and all else is as it was."""
    cache = Cache(tmp_path / "cache")
    old, iso = medium(pair, cache)
    liveserver.make(tmp_path / "live-server.iso", kernel=b"newer!" * 999, initrd=b"initrd" * 999, hwe=True)
    new = planned(pair, cache)
    assert old.lock is not None and old.lock.iso is not None and new.lock is not None and new.lock.iso is not None
    told = against.differences(inspect.carried(inspect.gather(isoimage.read(iso))), against.wanted(new))
    was, now = old.lock.iso.sha256[:12], new.lock.iso.sha256[:12]
    assert told[1:] == (f"base ISO: live-server.iso, {was} on the medium, live-server.iso, {now} now",)
    assert told[0].startswith("plan: ") and was != now


IN_THE_ISO = {
    "own document": ({"/autoinstall.yaml": b"version: 1\n"}, r"its own where ours go.* /autoinstall\.yaml"),
    "source": (
        {"/casper/install-sources.yaml": liveserver.catalog(1).replace("ubuntu-server", "node", 1).encode()},
        "",
    ),
    "menu": ({"/boot/grub/grub.cfg": f"if true; then\n{liveserver.menu()}fi\n".encode()}, "in a way that is not"),
}


@pytest.mark.parametrize("what", IN_THE_ISO)
def test_an_iso_that_cannot_be_remastered_is_refused_before_the_archive_is_asked(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("BUILDER_MIRROR", "http://127.0.0.1:9/ubuntu")
    files, says = IN_THE_ISO[what]
    liveserver.make(tmp_path / "live-server.iso", kernel=b"kernel", initrd=b"initrd", hwe=True, files=files)
    with pytest.raises(BuilderError, match=says or "has a source 'node' already") as caught:
        resolve.make(load(pair), pair, Cache(tmp_path / "cache"))
    assert caught.value.code == Exit.MEDIUM


def test_an_iso_of_another_release_is_refused_before_anything_is_fetched(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDER_MIRROR", "http://127.0.0.1:9/ubuntu")
    pair.write_text(pair.read_text().replace('release: "24.04"', 'release: "26.04"').replace("hwe", "generic"))
    cache = Cache(tmp_path / "cache")
    planned(pair, cache)
    for make in (
        lambda: resolve.make(load(pair), pair, cache),
        lambda: build.build_iso(pair, tmp_path / "out", cache),
    ):
        with pytest.raises(BuilderError, match=r"is Ubuntu 24\.04\.3, and the nodes are to run 26\.04") as caught:
            make()
        assert caught.value.code == Exit.MEDIUM
    assert not (tmp_path / "out").exists()


def test_an_iso_that_changed_since_the_lock_is_refused(pair: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    todo = planned(pair, cache)
    iso = tmp_path / "live-server.iso"
    shutil.copy(iso, tmp_path / "keep")
    with iso.open("r+b") as file:
        file.seek(-4096, 2)
        file.write(b"x")
    with pytest.raises(BuilderError, match="wrong content"):
        inputs.base_iso(todo, tmp_path, cache)


@pytest.fixture
def apt(tmp_path: Path) -> Callable[[], Completed]:
    """``apt-get update`` with the sources below ``tmp_path``, and packages on a medium that nobody has signed."""
    for folder in ("etc/sources.list.d", "state", "cdrom/dists/resolute/main/binary-amd64"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cdrom/dists/resolute/Release").write_text("Codename: resolute\nComponents: main\nSHA256:\n")
    where = {"Etc": "etc", "State": "state", "Cache": "state", "Etc::Trusted": "none", "Etc::TrustedParts": "none"}
    options = [f"--option=Dir::{name}={tmp_path / path}" for name, path in where.items()]
    argv = ["apt-get", "update", "--option=APT::Sandbox::User=root", *options]
    return lambda: run(argv, step="reading the medium's packages", check=False)


def test_the_installer_reads_no_packages_that_it_has_no_key_for(
    apt: Callable[[], Completed], tmp_path: Path
) -> None:
    """What subiquity 26.04.1 does in what it installs, before it copies it (server/apt.py,
    configure_for_install): with cdrom.sources there, that; without, the medium without the key."""
    (tmp_path / "etc/sources.list").write_text(f"deb [check-date=no] file:{tmp_path}/cdrom resolute main\n")
    failed = apt()
    assert failed.returncode == 100
    assert "is not signed" in failed.stderr

    (tmp_path / "etc/sources.list").unlink()
    (ours,) = (file for file in plan.for_subiquity() if file.path == "/etc/apt/sources.list.d/cdrom.sources")
    (tmp_path / "etc/sources.list.d/cdrom.sources").write_bytes(ours.content)
    done = apt()
    assert (done.returncode, done.stderr) == (0, "")
    # It is that one word which does it: apt takes the file for what it is.
    (tmp_path / "etc/sources.list.d/cdrom.sources").write_bytes(
        ours.content.replace(b"Enabled: no", b"Enabled: yes")
    )
    assert apt().returncode == 100
