"""Ubuntu's ISO remastered, with the real tools, on fixtures that are laid out as Ubuntu's are."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from builder.errors import BuilderError, Exit
from builder.files import sha256_of
from builder.media import bootreport, grubconfig, imagecopy, isoimage, remaster
from builder.media.bootreport import SECTOR
from builder.media.catalog import CATALOG, MD5SUMS, Source
from builder.media.isoimage import BLOCK
from builder.media.payload import Payload
from builder.nodefacts import Console
from builder.run import run
from tests import liveserver

pytestmark = pytest.mark.tools

PLAN = "0123456789abcdef" * 4
EPOCH = 1_760_000_000
FOUR_GIB = 4 << 30
Release = Literal["24.04.3", "26.04"]
RELEASES: tuple[Release, ...] = ("24.04.3", "26.04")


def source_of(folder: Path, release: Release, **more: Any) -> Path:
    """The fixture of a release: one has two kernels, the other loopback.cfg and the newer catalogue."""
    shape: dict[str, Any] = {"hwe": True} if release == "24.04.3" else {"catalog_version": 2, "loopback": True}
    folder.mkdir(parents=True, exist_ok=True)
    return liveserver.make(
        folder / f"ubuntu {release}: live-server.iso",  # nobody promises that a path is tame
        release=release,
        kernel=b"kernel" * 1000,
        initrd=b"initrd" * 1_000_000,  # large enough to be copied while xorriso writes
        **{**shape, **more},
    )


@pytest.fixture(scope="module", params=RELEASES)
def source_iso(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return source_of(tmp_path_factory.mktemp("source"), request.param)


def payload_in(folder: Path) -> Payload:
    """Two layers, a model and the small files of two nodes."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path | bytes] = {}
    for name, content in {
        "layers/node.squashfs": b"base" * 300_000,
        "layers/node.site.squashfs": b"site" * 2000,
        f"models/{PLAN}": b"weights" * 100_000,
    }.items():
        path = folder / Path(name).name
        path.write_bytes(content)
        files[name] = path
    for node in ("node1", "node2"):
        files[f"seeds/{node}/user-data"] = b"#cloud-config\n"
        files[f"autoinstall/{node}.json"] = b'{"version": 1}\n'
    manifest = {"plan": PLAN, "layers": ["layers/node.squashfs", "layers/node.site.squashfs"]}
    return Payload(manifest, files)


def remastered(source_iso: Path, target: Path, payload: Payload, **more: Any) -> Path:
    menu = grubconfig.Menu(
        cluster="lab",
        plan=PLAN,
        nodes=("node1", "node2"),
        countdown=5,
        serial=Console(0, 115200),
        arguments=grubconfig.arguments(payload.sha256, "console=tty0 console=ttyS0,115200"),
    )
    wanted: dict[str, Any] = {
        "plan_id": PLAN,
        "epoch": EPOCH,
        "live_files": {
            "user-data": b"#cloud-config\n",
            "meta-data": b"",
            "installer/pick.py": Path(remaster.__file__),
        },
        "autoinstall": b"version: 1\n",
        "menu": menu,
        "source": Source("node.site.squashfs", 123_456_789, "Node of lab", "made by builder"),
        **more,
    }
    remaster.write(source_iso=source_iso, target=target, payload=payload, **wanted)
    return target


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return payload_in(tmp_path_factory.mktemp("payload"))


@pytest.fixture(scope="module")
def result(source_iso: Path, payload: Payload, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return remastered(source_iso, tmp_path_factory.mktemp("out") / "lab.iso", payload)


def content(iso: Path, path: str, files: remaster.Listing | None = None) -> bytes:
    return isoimage.content(iso, (files or isoimage.listing(iso))[path])


def through_partition(iso: Path, folder: Path) -> Path:
    """The ISO as who mounts its first partition sees it: casper does, on a stick."""
    report = bootreport.of(iso)
    (partition,) = (p for p in report.partitions if p.start == report.offset * 4)
    cut = folder / "partition.iso"
    with iso.open("rb") as old, cut.open("wb") as new:
        old.seek(partition.start * SECTOR)
        new.write(old.read(partition.size * SECTOR))
    return cut


def test_the_boot_equipment_is_the_sources(source_iso: Path, result: Path) -> None:
    old, new = bootreport.of(source_iso), bootreport.of(result)
    assert bootreport.differences(old, new) == []
    assert bootreport.gpt_faults(result) == []
    assert [(p.name, p.type) for p in new.partitions] == [(p.name, p.type) for p in old.partitions]
    assert new.sectors * SECTOR == result.stat().st_size
    assert "No errors detected." in run(["sfdisk", "--verify", result], step="sfdisk").stdout


def test_the_esp_is_the_sources_byte_for_byte(source_iso: Path, result: Path) -> None:
    old, new = bootreport.of(source_iso).esp, bootreport.of(result).esp
    assert old and new and new.start > old.start
    assert bootreport.partition_sha256(result, new) == bootreport.partition_sha256(source_iso, old)


def test_ubuntus_own_files_stay_where_they_are(source_iso: Path, result: Path) -> None:
    old, new = isoimage.listing(source_iso), isoimage.listing(result)
    changed = {path for path in old if new[path] != old[path]}
    expected = {"/boot/grub/grub.cfg", "/boot/grub/i386-pc/eltorito.img", CATALOG, MD5SUMS}
    assert changed == expected | ({"/boot/grub/loopback.cfg"} & set(old))
    for path in set(old) - changed:
        assert content(result, path, new) == content(source_iso, path, old), path


def test_a_layer_is_there_twice_and_stored_once(result: Path, payload: Payload) -> None:
    files = isoimage.listing(result)
    for layer in ("node.squashfs", "node.site.squashfs"):
        assert files[f"/casper/{layer}"] == files[f"/builder/layers/{layer}"]
        file = payload.files[f"layers/{layer}"]
        assert isinstance(file, Path)
        assert content(result, f"/casper/{layer}", files) == file.read_bytes()


def test_the_payload_is_the_direct_mediums(result: Path, payload: Payload) -> None:
    files = isoimage.listing(result)
    assert content(result, "/builder/manifest.json", files) == payload.manifest_bytes
    for path, file in payload.files.items():
        expected = file if isinstance(file, bytes) else file.read_bytes()
        assert content(result, f"/builder/{path}", files) == expected
    assert content(result, "/autoinstall.yaml", files) == b"version: 1\n"
    assert content(result, "/builder/live/installer/pick.py", files) == Path(remaster.__file__).read_bytes()


def test_who_mounts_the_partition_sees_the_same(result: Path, tmp_path: Path) -> None:
    """With addresses of its own: this is what a grown ISO gets wrong if it is only kept bootable."""
    inside = through_partition(result, tmp_path)
    whole, seen = isoimage.listing(result), isoimage.listing(inside)
    assert set(seen) - set(whole) == {"/boot.catalog"}  # no catalogue there, so a file as any other
    for path in whole:
        assert content(inside, path, seen) == content(result, path, whole), path


def test_grub_reads_the_patched_menus(result: Path) -> None:
    """GRUB's own checker, of the packages that the fixture is made from."""
    check = liveserver.find_grub().root / "usr/bin/grub-script-check"
    files = isoimage.listing(result)
    for path in (grubconfig.GRUB_CFG, grubconfig.LOOPBACK_CFG):
        if path in files:
            text = content(result, path, files).decode()
            assert "ds=nocloud\\;s=/cdrom/builder/live/" in text
            run([check], step=f"checking {path}", stdin=text)


def test_our_source_is_the_only_default(source_iso: Path, result: Path) -> None:
    old, new = (yaml.safe_load(content(iso, CATALOG)) for iso in (source_iso, result))
    assert type(new) is type(old)
    sources = new["sources"] if isinstance(new, dict) else new
    assert [s["id"] for s in sources if s.get("default")] == ["node"]
    assert sources[-1]["size"] == 123_456_789
    by_hand = yaml.safe_load(content(result, "/builder/live/by-hand.yaml"))
    assert by_hand == {"version": 1, "interactive-sections": ["*"], "source": {"id": "ubuntu-server"}}


def test_md5sums_hold_and_do_not_cover_the_payload(result: Path) -> None:
    files = isoimage.listing(result)
    listed = dict(line.split("  .") for line in content(result, MD5SUMS, files).decode().splitlines())
    for digest, path in listed.items():
        assert hashlib.md5(content(result, path, files), usedforsecurity=False).hexdigest() == digest, path
    assert not any(path.startswith("/builder") or "/node" in path for path in listed.values())


def test_a_boot_image_that_is_listed_gets_its_sum(tmp_path: Path, payload: Payload) -> None:
    """xorriso writes its place into it, so the sum is known only afterwards."""
    image = "/boot/grub/i386-pc/eltorito.img"
    source = source_of(tmp_path, "24.04.3", files={"md5sum.txt": f"{'0' * 32}  .{image}\n".encode()})
    result = remastered(source, tmp_path / "lab.iso", payload)
    digest = hashlib.md5(content(result, image), usedforsecurity=False).hexdigest()
    assert content(result, MD5SUMS) == f"{digest}  .{image}\n".encode()


def test_same_inputs_same_bytes(source_iso: Path, result: Path, payload: Payload, tmp_path: Path) -> None:
    """Elsewhere, at another time, from files with other dates, owners, modes and inode numbers."""
    files = {}
    for index, (path, file) in enumerate(sorted(payload.files.items(), reverse=True)):
        files[path] = file
        if isinstance(file, Path):
            copied = tmp_path / f"copy{index}"
            shutil.copyfile(file, copied)
            copied.chmod(0o600)
            os.utime(copied, (index, index))
            if os.geteuid() == 0:
                os.chown(copied, 1000, 1000)
            files[path] = copied
    moved = tmp_path / "elsewhere" / "other.iso"
    moved.parent.mkdir()
    shutil.copyfile(source_iso, moved)
    time.sleep(1.1)
    again = remastered(moved, tmp_path / "lab.iso", Payload(payload.manifest, files))
    assert sha256_of(again) == sha256_of(result)


def test_files_on_the_medium_belong_to_root(result: Path) -> None:
    argv = ["xorriso", "-no_rc", "-indev", f"stdio:{result}", "-find", "/builder", "-exec", "lsdl"]
    lines = [line for line in run(argv, step="listing").stdout.splitlines() if "/builder" in line]
    assert len(lines) > 10
    for line in lines:
        mode, _, owner, group = line.split()[:4]
        assert (owner, group) == ("0", "0")
        assert mode in ("dr-xr-xr-x", "-r--r--r--"), line


def test_a_source_without_joliet_gets_none(tmp_path: Path, payload: Payload) -> None:
    source = source_of(tmp_path, "24.04.3", joliet=False)
    result = remastered(source, tmp_path / "lab.iso", payload)
    assert not isoimage.file_system(result).joliet
    assert isoimage.file_system(remastered(source_of(tmp_path, "26.04"), tmp_path / "j.iso", payload)).joliet


def test_a_file_of_more_than_4_gib(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 12 << 30:
        pytest.skip("12 GiB are needed for it")
    payload = payload_in(tmp_path / "payload")
    model = payload.files[f"models/{PLAN}"]
    assert isinstance(model, Path)
    with model.open("r+b") as file:
        file.truncate(FOUR_GIB + 5000)
        file.seek(FOUR_GIB)
        file.write(b"beyond")
    result = remastered(source_of(tmp_path, "24.04.3"), tmp_path / "lab.iso", payload)
    place = isoimage.listing(result)[f"/builder/models/{PLAN}"]
    assert len(place.extents) == 2 and place.size == FOUR_GIB + 5000
    with result.open("rb") as file:
        file.seek(place.start + FOUR_GIB)  # extents of one file follow each other
        assert file.read(6) == b"beyond"
    assert bootreport.gpt_faults(result) == []
    assert bootreport.faults(bootreport.of(result)) == []


@pytest.mark.parametrize("how", ["keep", "replay"])
def test_the_simpler_ways_would_not_do(source_iso: Path, how: str, tmp_path: Path) -> None:
    """Why this module is not one line of xorriso: both are found out, by the report or by the places."""
    grown = tmp_path / "grown.iso"
    shutil.copyfile(source_iso, grown)
    argv = ["xorriso", "-no_rc", "-dev", f"stdio:{grown}", "-boot_image", "any", how]
    run([*argv, "-map", Path(__file__), "/casper/new", "-commit"], step="growing")
    assert bootreport.differences(bootreport.of(source_iso), bootreport.of(grown)) != []
    assert bootreport.gpt_faults(grown) != []
    if how == "keep":
        assert "/casper/new" not in isoimage.listing(through_partition(grown, tmp_path))


def damaged_esp(path: Path) -> None:
    esp = bootreport.of(path).esp
    assert esp
    with path.open("r+b") as file:
        file.seek((esp.start + 9) * SECTOR)
        file.write(b"?")


def damaged_table(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-SECTOR + 40, os.SEEK_END)
        file.write(b"????")


def no_padding_cut(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(BLOCK))


@pytest.mark.parametrize("damage", [damaged_esp, damaged_table, no_padding_cut])
def test_a_result_that_differs_is_not_left_behind(
    source_iso: Path,
    payload: Payload,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    honest = remaster.problems

    def after_damage(source: Path, part: Path, *rest: Any) -> list[str]:
        damage(part)
        return honest(source, part, *rest)

    monkeypatch.setattr(remaster, "problems", after_damage)
    with pytest.raises(BuilderError, match="not what it should be") as caught:
        remastered(source_iso, tmp_path / "out/lab.iso", payload)
    assert caught.value.code == Exit.MEDIUM
    assert list((tmp_path / "out").iterdir()) == []


def test_an_iso_too_large_for_the_stick_is_refused_with_numbers(
    source_iso: Path, payload: Payload, tmp_path: Path
) -> None:
    with pytest.raises(BuilderError, match=r"the ISO needs .*, and media.stick_size is 20\.0 MiB") as caught:
        remastered(source_iso, tmp_path / "out/lab.iso", payload, stick_size=20 << 20)
    assert caught.value.code == Exit.MEDIUM
    assert not (tmp_path / "out").exists()


def test_an_iso_that_fits_exactly_is_made(
    source_iso: Path, result: Path, payload: Payload, tmp_path: Path
) -> None:
    size = result.stat().st_size
    assert remastered(source_iso, tmp_path / "lab.iso", payload, stick_size=size).stat().st_size == size
    with pytest.raises(BuilderError, match=r"the ISO needs .*, and media\.stick_size is"):
        remastered(source_iso, tmp_path / "other.iso", payload, stick_size=size - 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab.iso"]


def test_a_remastered_iso_is_refused(result: Path, payload: Payload, tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match="source 'node' already") as caught:
        remastered(result, tmp_path / "lab.iso", payload)
    assert "Ubuntu's own" in caught.value.hint
    other = Source("node.site.squashfs", 1, "other", "other", id="other")
    with pytest.raises(BuilderError, match=r"its own where ours go, 1 in all, the first is /autoinstall\.yaml"):
        remastered(result, tmp_path / "lab.iso", payload, source=other)


def test_what_is_no_iso_is_refused(payload: Payload, tmp_path: Path) -> None:
    odd = tmp_path / "odd.iso"
    odd.write_bytes(b"no file system\n" * 10_000)
    with pytest.raises(BuilderError, match=r"odd\.iso") as caught:
        remastered(odd, tmp_path / "lab.iso", payload)
    assert caught.value.code == Exit.MEDIUM
    assert not (tmp_path / "lab.iso").exists()


def test_an_iso_of_another_kind_is_refused_with_what_is_missing(payload: Payload, tmp_path: Path) -> None:
    odd = tmp_path / "odd.iso"
    run(["xorriso", "-as", "mkisofs", "-quiet", "-r", "-o", odd, Path(__file__).parent], step="making")
    with pytest.raises(BuilderError, match=r"(?s)no /casper/vmlinuz|cannot be understood") as caught:
        remastered(odd, tmp_path / "lab.iso", payload)
    assert caught.value.code == Exit.MEDIUM


def test_a_cut_source_is_refused(source_iso: Path, payload: Payload, tmp_path: Path) -> None:
    cut = tmp_path / "cut.iso"
    shutil.copyfile(source_iso, cut)
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(BuilderError) as caught:
        remastered(cut, tmp_path / "lab.iso", payload)
    assert caught.value.code == Exit.MEDIUM
    assert [path.name for path in tmp_path.iterdir()] == ["cut.iso"]


def test_a_menu_without_a_known_kernel_is_refused(payload: Payload, tmp_path: Path) -> None:
    menu = b'menuentry "Something" {\n\tlinux /live/vmlinuz quiet\n}\n'
    source = source_of(tmp_path, "24.04.3", files={"boot/grub/grub.cfg": menu})
    with pytest.raises(BuilderError, match=r"(?s)nothing here starts /casper/vmlinuz.*linux /live/vmlinuz quiet"):
        remastered(source, tmp_path / "lab.iso", payload)


def test_a_layer_that_vanishes_leaves_nothing(source_iso: Path, tmp_path: Path, monkeypatch: Any) -> None:
    payload = payload_in(tmp_path / "payload")
    honest = imagecopy.begin

    def and_vanish(*arguments: Any) -> Any:
        (tmp_path / "payload/node.squashfs").unlink()
        return honest(*arguments)

    monkeypatch.setattr(imagecopy, "begin", and_vanish)
    with pytest.raises(BuilderError, match=r"node\.squashfs") as caught:
        remastered(source_iso, tmp_path / "out/lab.iso", payload)
    assert caught.value.code == Exit.MEDIUM
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    source_iso: Path, payload: Payload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(imagecopy, "copy", full)
    with pytest.raises(BuilderError, match=r"the disk of .* is full"):
        remastered(source_iso, tmp_path / "out/lab.iso", payload)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_hwe_kernel_can_be_the_default(tmp_path: Path, payload: Payload) -> None:
    source = source_of(tmp_path, "24.04.3")
    menu = grubconfig.Menu("lab", PLAN, (), 5, None, grubconfig.arguments(payload.sha256, "console=tty0"))
    result = remastered(source, tmp_path / "lab.iso", payload, menu=replace(menu, hwe=True))
    entry = content(result, grubconfig.GRUB_CFG).decode().partition("--id install {")[2].partition("}")[0]
    assert "/casper/hwe-vmlinuz autoinstall" in entry
