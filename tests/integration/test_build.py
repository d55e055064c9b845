"""Builds with the real tools: same input same bytes, nothing half done, every failure named."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder import checks, lock, plan, render
from builder.cache import Cache, default_root
from builder.distributions import distribution
from builder.errors import BuilderError, Exit
from builder.media import bootkit, iso
from builder.run import run
from builder.sources import apt, mirror
from builder.spec.load import load

pytestmark = pytest.mark.tools

ROOT = Path(__file__).parents[2]
BUILDER = Path(sys.executable).with_name("builder")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the quickstart with a lock made now."""
    folder = tmp_path_factory.mktemp("spec")
    shutil.copytree(ROOT / "examples", folder, dirs_exist_ok=True)
    path = folder / "quickstart.yaml"
    if not lock.path_for(path).exists():
        run([BUILDER, "lock", path], step="locking the quickstart")
    return path


@pytest.fixture(scope="module")
def built(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's ISO, built with the user's own cache."""
    out = tmp_path_factory.mktemp("out")
    done = run([BUILDER, "iso", spec, "--out", out, "--json"], step="building the quickstart")
    return Path(json.loads(done.stdout)["path"])


def planned(spec: Path) -> plan.Plan:
    return plan.make(load(spec), lock.load(lock.path_for(spec)))


def base_of(todo: plan.Plan) -> Path:
    return Cache(default_root()).product("base", todo.base.digest) / todo.base.file


@pytest.fixture
def building(spec: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A build with a cache of its own that has come to the base layer; it shares the downloads."""
    blobs = Cache(default_root()).root / "blobs"
    shutil.copytree(blobs, tmp_path / "cache/blobs", copy_function=os.link)
    argv: list[str | Path] = [BUILDER, "iso", spec, "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    # A shell starts what it puts in the background with SIGINT ignored, and our children would inherit that.
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        argv, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "base layer" in line:
                break
        yield process


def test_a_killed_build_leaves_nothing_and_the_next_one_gives_the_same_bytes(
    building: subprocess.Popen[str], built: Path, spec: Path, tmp_path: Path
) -> None:
    os.killpg(building.pid, signal.SIGKILL)
    building.wait()
    assert "/cluster-image-builder-" not in Path("/proc/mounts").read_text()
    assert not list((tmp_path / "out").rglob("*.iso"))
    assert not list((tmp_path / "cache/products").glob("*/*[!t]"))  # nothing but a .part, if that

    argv: list[str | Path] = [BUILDER, "iso", spec, "--out", tmp_path / "out", "--json"]
    argv += ["--cache", tmp_path / "cache"]
    again = json.loads(run(argv, step="building once more, from nothing but downloads").stdout)
    assert again["sha256"] == hashlib.file_digest(built.open("rb"), "sha256").hexdigest()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_an_interrupted_build_says_what_is_kept(
    building: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    building.send_signal(number)
    assert building.stderr is not None
    said = building.stderr.read()
    assert building.wait() == Exit.INTERRUPTED
    assert "interrupted; finished layers are kept" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "out").rglob("*.iso"))


def test_a_second_build_makes_no_layer_again(built: Path, spec: Path, tmp_path: Path) -> None:
    done = run([BUILDER, "iso", spec, "--out", tmp_path, "--json"], step="building again")
    assert "layer" not in done.stderr
    assert json.loads(done.stdout)["sha256"] == hashlib.file_digest(built.open("rb"), "sha256").hexdigest()


def test_the_iso_boots_every_way(built: Path) -> None:
    """What firmware looks for: GPT with an ESP for sticks, El Torito for BIOS and UEFI for discs."""
    argv: list[str | Path] = [
        "xorriso",
        "-indev",
        built,
        "-report_el_torito",
        "plain",
        "-report_system_area",
        "plain",
    ]
    done = run(argv, step="reading the ISO's boot equipment")
    said = done.stdout + done.stderr
    assert re.search(r"El Torito boot img :\s+1\s+BIOS\s+y", said)
    assert re.search(r"El Torito boot img :\s+2\s+UEFI\s+y", said)
    assert "grub2-mbr" in said
    assert re.search(r"GPT type GUID\s+:\s+2\s+28732ac11ff8d211ba4b00a0c93ec93b", said)  # an ESP
    assert re.search(r"Volume id\s*:\s*'QUICKSTART'", said)


def test_a_file_over_4_gib_survives_on_the_medium(built: Path, spec: Path, tmp_path: Path) -> None:
    todo, cache = planned(spec), Cache(default_root())
    kit = bootkit.make(todo, base_of(todo), cache)
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate((4 << 30) + 4096)
        file.seek(4 << 30)
        file.write(b"the end")
    esp = tmp_path / "esp"
    esp.write_bytes(bytes(1 << 20))
    files = {"/builder/models/big": big, "/boot/grub/bios.img": kit["bios.img"]}
    argv = iso.xorriso_argv("0" * 64, "BIG", 1_700_000_000, kit, esp, files, tmp_path / "big.iso")
    run(argv, step="writing an ISO with a big file")
    look: list[str | Path] = ["xorriso", "-indev", tmp_path / "big.iso", "-find", "/builder/models/big"]
    place = re.findall(
        r"data lba: *\d+ , *(\d+) , *\d+ , *(\d+)", run([*look, "-exec", "report_lba"], step="look").stdout
    )
    assert {int(size) for _, size in place} == {(4 << 30) + 4096}
    assert len(place) == 2  # ISO 9660 level 3 holds it as two extents, one after the other
    with (tmp_path / "big.iso").open("rb") as image:
        image.seek(int(place[0][0]) * 2048 + (4 << 30))
        assert image.read(7) == b"the end"


@pytest.mark.parametrize(
    ("path", "content", "program"),
    [
        ("/etc/nftables.conf", b"table inet t { chain c { tcp dport nonsense accept\n", "nft"),
        ("/etc/ssh/sshd_config.d/10-builder.conf", b"PasswordAuthentication maybe\n", "sshd"),
        (
            "/etc/systemd/system/builder-ready.service",
            b"[Service]\nExecStart=/no/such/program\n",
            "systemd-analyze",
        ),
    ],
)
def test_a_rendered_file_that_its_program_refuses_never_reaches_a_medium(
    built: Path, spec: Path, path: str, content: bytes, program: str
) -> None:
    todo = planned(spec)
    site = tuple(replace(file, content=content) if file.path == path else file for file in todo.site)
    layers = (todo.base, replace(todo.layers[-1], inputs={"files": [content.decode()]}))
    with pytest.raises(BuilderError) as caught:
        checks.require_sound(replace(todo, site=site, layers=layers), base_of(todo), Cache(default_root()))
    assert f"({program}" in caught.value.message or f"/{program})" in caught.value.message


def test_a_seed_that_cloud_init_refuses_never_reaches_a_medium(built: Path, spec: Path) -> None:
    todo = planned(spec)
    bad = {**todo.seeds["node1"], "user-data": b"#cloud-config\nusers: 7\n"}
    with pytest.raises(BuilderError, match="seed of node1: user-data"):
        checks.require_sound(replace(todo, seeds={"node1": bad}), base_of(todo), Cache(default_root()))


def test_a_model_that_changed_since_the_lock_is_named(built: Path, spec: Path, tmp_path: Path) -> None:
    shutil.copytree(spec.parent, tmp_path / "spec")
    model = tmp_path / "spec/models/quickstart.txt"
    text = model.read_bytes()
    model.write_bytes(text[:-1] + bytes([text[-1] ^ 1]))
    argv: list[str | Path] = [BUILDER, "iso", tmp_path / "spec/quickstart.yaml", "--out", tmp_path / "out"]
    done = run(argv, step="building", check=False)
    assert done.returncode == Exit.FETCH
    assert hashlib.sha256(text).hexdigest() in done.stderr
    assert hashlib.sha256(model.read_bytes()).hexdigest() in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("media: {stick_size: 64M}\nstorage:", "media.stick_size: the medium needs at least "),
        # Only the finished layers show that this is too little; the packages' sizes leave it open.
        ("storage:\n  root: 1G", "storage.root: the root partition needs "),
    ],
)
def test_what_does_not_fit_ends_the_build(
    built: Path, spec: Path, tmp_path: Path, keys: str, message: str
) -> None:
    shutil.copytree(spec.parent, tmp_path / "spec")
    tight = tmp_path / "spec/quickstart.yaml"
    tight.write_text(tight.read_text().replace("storage:", keys, 1))
    done = run([BUILDER, "iso", tight, "--out", tmp_path / "out"], step="building", check=False)
    assert done.returncode == Exit.SPEC
    assert message in done.stderr
    assert not list((tmp_path / "out").rglob("*.iso"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_says_which_step_and_how_much(spec: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = 'mount -t tmpfs -o size=32m tmpfs "$1" && shift && exec "$@"'
    argv: list[str | Path] = ["unshare", "--mount", "sh", "-ec", script, "sh", small]
    done = run([*argv, BUILDER, "iso", spec, "--out", tmp_path / "out", "--cache", small], step="x", check=False)
    assert done.returncode == Exit.TOOL
    assert re.search(r"packages needs [\d.]+ MiB in .*small, where [\d.]+ MiB are free", done.stderr)
    assert "--cache" in done.stderr


def test_a_missing_program_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match="no-such-program is not installed") as caught:
        run(["no-such-program"], step="trying")
    assert "builder doctor" in caught.value.hint


def test_a_failing_program_is_quoted_and_secrets_are_not() -> None:
    with pytest.raises(BuilderError) as caught:
        run(["sh", "-c", "echo key=hunter2 >&2; exit 3"], step="trying", secrets=["hunter2"])
    assert "exited 3" in caught.value.message
    assert "key=***" in caught.value.message
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(("name", "release"), [("debian", "13"), ("ubuntu", "24.04"), ("ubuntu", "26.04")])
def test_the_distribution_s_default_mirror_is_known_to_mmdebstrap(name: str, release: str) -> None:
    found = mirror.from_mmdebstrap(distribution(name, release, "generic"))
    assert set(found.uris) == {"main", "security"}
    assert all(uri.startswith("http") and name in uri for uri in found.uris.values())


def test_a_package_that_does_not_exist_is_a_mistake_in_the_spec() -> None:
    target = distribution("debian", "13", "generic")
    with pytest.raises(BuilderError, match="no-such-package") as caught:
        apt.resolve(target, mirror.choose(None, target), ["no-such-package"])
    assert caught.value.code == Exit.SPEC


def test_an_archive_out_of_reach_is_a_failed_download() -> None:
    target = distribution("debian", "13", "generic")
    nowhere = mirror.Mirror({"main": "http://127.0.0.1:9/debian"}, "a test")
    with pytest.raises(BuilderError) as caught:
        apt.resolve(target, nowhere, target.packages)
    assert caught.value.code == Exit.FETCH


def test_the_rendered_site_is_owned_by_nobody_but_root(built: Path, spec: Path, tmp_path: Path) -> None:
    listed = run(
        [
            "unsquashfs",
            "-lln",
            Cache(default_root()).product("site", planned(spec).layers[-1].digest) / "node.site.squashfs",
        ],
        step="listing the site layer",
    ).stdout
    assert {line.split()[1] for line in listed.splitlines() if line[:1] in "-dl"} == {"0/0"}
    assert render.File("/etc/nftables.conf", 0o644).path.removeprefix("/") in listed
