"""An archive of somebody else's, laid out as NVIDIA's is: apt takes packages from it, held to the spec's key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.distributions import Foreign, distribution
from builder.errors import BuilderError, Exit
from builder.files import sha256_of
from builder.gpu.sources import OF_THE_DRIVER
from builder.run import run
from builder.sources import apt, mirror, pgp

pytestmark = pytest.mark.tools

TRIXIE = replace(distribution("debian", "13", "generic"), suites=())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A flat archive with two branches of a package, signed by a throw-away key, which is there as ``key.asc``."""
    tree, folder, home = tmp_path / "tree", tmp_path / "archive", tmp_path / "home"
    (tree / "DEBIAN").mkdir(parents=True)
    folder.mkdir()
    home.mkdir(mode=0o700)
    driver = "nvidia-driver-cuda"
    for name, version, needs in (
        (driver, "580.95.05-1", ""),
        (driver, "590.48.01-1", "Depends: libnvcuvid1 (= 590.48.01-1)\n"),
        # NVIDIA's library without its name in its name, in a branch that nobody asked for too.
        ("libnvcuvid1", "590.48.01-1", ""),
        ("libnvcuvid1", "610.43.02-1", ""),
        ("nvidia-container-toolkit", "1.17.8-1", ""),
    ):
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@example>\n"
        (tree / "DEBIAN/control").write_text(f"{control}{needs}Description: a stand-in\n")
        made = folder / (f"{version}.deb" if name != "libnvcuvid1" else f"lib-{version}.deb")
        argv: list[str | Path] = ["dpkg-deb", "--root-owner-group", "--build", tree, made]
        run(argv, step="making a package")
    for name, what in (("Packages", ["packages", "."]), ("Release", ["release", "."])):
        (folder / name).write_text(run(["apt-ftparchive", *what], step=f"making {name}", cwd=folder).stdout)
    gpg: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
    run([*gpg, "--quick-generate-key", "tester", "ed25519", "sign", "never"], step="making a key")
    run([*gpg, "--clearsign", "--output", folder / "InRelease", folder / "Release"], step="signing")
    run([*gpg, "--armor", "--output", folder / "key.asc", "--export"], step="exporting the key")
    run(["gpgconf", "--homedir", home, "--kill", "all"], step="ending gpg's agent")
    return folder


def foreign(archive: Path, branch: str) -> Foreign:
    return Foreign("nvidia", (archive / "key.asc").read_bytes(), branch, OF_THE_DRIVER)


@pytest.mark.parametrize(("branch", "version"), [("580", "580.95.05-1"), ("590", "590.48.01-1")])
def test_packages_of_the_branch_come_from_it_with_their_digest(archive: Path, branch: str, version: str) -> None:
    target = replace(TRIXIE, foreign=(foreign(archive, branch),))
    where = mirror.Mirror({"nvidia": f"file:{archive}"}, "a test")
    found, *others = (*apt.resolve_part(target, where, ["nvidia-driver-cuda"]),)[::-1]
    assert {other.version for other in others} <= {version}
    assert (found.version, found.archive, found.path) == (version, "nvidia", f"{version}.deb")
    assert found.sha256 == sha256_of(archive / f"{version}.deb")
    assert where.urls(found.archive, found.path) == (f"file:{archive}/{version}.deb",)


def test_what_is_of_no_branch_is_taken_as_it_is(archive: Path) -> None:
    """NVIDIA's container toolkit has versions of its own, and a name that the driver's pins match."""
    where = mirror.Mirror({"nvidia": f"file:{archive}"}, "a test")
    pinned = foreign(archive, "580")
    target = replace(TRIXIE, foreign=(replace(pinned, apart=("nvidia-container-toolkit*",)),))
    found = apt.resolve_part(target, where, ["nvidia-container-toolkit", "nvidia-driver-cuda"])
    assert [package.version for package in found] == ["1.17.8-1", "580.95.05-1"]
    with pytest.raises(BuilderError, match="nvidia-container-toolkit"):
        apt.resolve_part(replace(TRIXIE, foreign=(pinned,)), where, ["nvidia-container-toolkit"])


def test_a_branch_that_it_lacks_is_not_replaced_by_another(archive: Path) -> None:
    target = replace(TRIXIE, foreign=(foreign(archive, "575"),))
    with pytest.raises(BuilderError, match="nvidia-driver-cuda") as caught:
        apt.resolve_part(target, mirror.Mirror({"nvidia": f"file:{archive}"}, "a test"), ["nvidia-driver-cuda"])
    assert caught.value.code == Exit.SPEC


def test_another_s_signature_is_refused(archive: Path) -> None:
    other = Path(__file__).parents[2] / "keys/ubuntu-cdimage.gpg"
    target = replace(TRIXIE, foreign=(Foreign("nvidia", other.read_bytes()),))
    with pytest.raises(BuilderError, match="NO_PUBKEY") as caught:
        apt.resolve_part(target, mirror.Mirror({"nvidia": f"file:{archive}"}, "a test"), ["nvidia-driver-cuda"])
    assert caught.value.code == Exit.FETCH


def test_the_fingerprint_that_we_read_is_the_one_that_gpg_shows(archive: Path, tmp_path: Path) -> None:
    shown = run(
        ["gpg", "--homedir", tmp_path / "home", "--with-colons", "--show-keys", archive / "key.asc"],
        step="asking gpg",
    )
    (line,) = (line for line in shown.stdout.splitlines() if line.startswith("fpr:"))
    assert pgp.fingerprints((archive / "key.asc").read_bytes()) == (line.split(":")[9],)
