"""Mirrors and packages: who is asked, and how apt's own texts are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder import resolve
from builder.distributions import Distribution, codename_of, distribution, kernels
from builder.errors import BuilderError
from builder.sources import apt, mirror
from builder.spec.load import loads

TRIXIE = distribution("debian", "13", "generic")
NOBLE = distribution("ubuntu", "24.04", "generic")

UBUNTU_WITH_LLAMACPP = """
name: t
network: {subnet: 10.0.0.0/24, gateway: 10.0.0.1}
distribution: {name: ubuntu, release: '24.04', snapshot: 'http://old.example/'}
nodes: [{name: n1, match: {mac: '52:54:00:12:34:56'}, address: 10.0.0.2}]
models: [{name: a.gguf, url: 'https://h.example/a.gguf'}]
engine: llamacpp
"""

ONE_LINE = """
# deb http://comment.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian/ bookworm main contrib
deb-src http://src.example/debian bookworm main
deb http://sec.example/debian-security bookworm-security main
"""
DEB822 = """Types: deb
# a comment
URIs: http://a.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://sec.example/debian-security
Suites: bookworm-security

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
"""


@pytest.mark.parametrize("text", [ONE_LINE, DEB822])
def test_apt_sources_are_read(text: str) -> None:
    found = [(uri.rstrip("/"), suite) for uri, suite in mirror.parse_sources(text)]
    assert ("http://a.example/debian", "bookworm") in found
    assert ("http://sec.example/debian-security", "bookworm-security") in found
    assert not [uri for uri, _ in found if "comment" in uri or "src" in uri or "off" in uri]


def host(tmp_path: Path, *, name: str = "debian", text: str = DEB822) -> Path:
    folder = tmp_path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    (folder / "debian.sources").write_text(text)
    (tmp_path / "etc/os-release").write_text(f'ID={name}\nVERSION_CODENAME="bookworm"\n')
    return tmp_path


def test_a_host_of_the_same_distribution_lends_its_mirror(tmp_path: Path) -> None:
    found = mirror.from_host(host(tmp_path), TRIXIE)
    assert found is not None
    assert found.uris == {"main": "http://a.example/debian", "security": "http://sec.example/debian-security"}


def test_a_host_of_another_distribution_does_not(tmp_path: Path) -> None:
    assert mirror.from_host(host(tmp_path, name="ubuntu"), TRIXIE) is None


def test_a_host_that_runs_ubuntu_lends_its_mirror_to_ubuntu(tmp_path: Path) -> None:
    text = DEB822.replace("bookworm", "jammy").replace("/debian", "/ubuntu")
    (host(tmp_path, name="ubuntu", text=text) / "etc/os-release").write_text("ID=ubuntu\nVERSION_CODENAME=jammy\n")
    found = mirror.from_host(tmp_path, NOBLE)
    assert found is not None
    assert found.uris["main"] == "http://a.example/ubuntu"
    assert mirror.from_host(tmp_path, TRIXIE) is None


@pytest.mark.parametrize("name", ["debian", "ubuntu"])
def test_mmdebstrap_is_asked_for_a_release_that_it_has_known_for_long(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = {"debian": TRIXIE, "ubuntu": NOBLE}[name]
    asked: list[object] = []

    def answer(argv: list[str], **_options: object) -> Done:
        asked.extend(argv)
        return Done(f"deb http://a.example/x {argv[-2]} main\ndeb http://s.example/x {argv[-2]}-security main\n")

    monkeypatch.setattr(mirror, "run", answer)
    assert mirror.from_mmdebstrap(target).uris == {"main": "http://a.example/x", "security": "http://s.example/x"}
    assert asked == [
        *("mmdebstrap", "--variant=custom", "--format=null", "--skip=update"),
        *('--setup-hook=cat "$1/etc/apt/sources.list"', {"debian": "bookworm", "ubuntu": "bionic"}[name], "-"),
    ]


@dataclass
class Done:
    stdout: str
    stderr: str = ""


def test_every_release_has_every_kernel_of_its_distribution() -> None:
    for kernel in kernels("debian"):
        assert distribution("debian", "trixie", kernel).kernel in distribution("debian", "13", kernel).packages
    for release in ("24.04", "noble", "26.04", "resolute"):
        for kernel in kernels("ubuntu"):
            assert (
                distribution("ubuntu", release, kernel).kernel in distribution("ubuntu", release, kernel).packages
            )
    assert (NOBLE.codename, NOBLE.number) == ("noble", "24.04")
    assert distribution("ubuntu", "26.04", "hwe").kernel == "linux-generic-hwe-26.04"
    assert [codename_of("ubuntu", release) for release in ("24.04", "noble", "22.04")] == ["noble", "noble", None]


def test_what_ubuntu_s_installer_runs_in_the_node_is_there() -> None:
    """subiquity calls setupcon in the target, and curtin wants these for UEFI; no network brings them."""
    wanted = {
        "console-setup",
        "efibootmgr",
        "grub-efi-amd64",
        "grub-efi-amd64-signed",
        "shim-signed",
        "netplan.io",
        "locales",
        "lsb-release",
    }
    assert wanted <= set(NOBLE.packages)
    plain = set(NOBLE.packages)
    assert set(distribution("ubuntu", "24.04", "generic", ("lvm", "luks")).packages) - plain == {
        *("lvm2", "cryptsetup", "cryptsetup-initramfs"),
    }


def test_the_suites_of_ubuntu_and_where_security_comes_from() -> None:
    both = mirror.Mirror({"main": "http://m.example/ubuntu", "security": "http://s.example/ubuntu"}, "a test")
    signed = "deb [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg]"
    assert apt.sources_list(NOBLE, both).splitlines() == [
        f"{signed} http://m.example/ubuntu noble main restricted universe",
        f"{signed} http://m.example/ubuntu noble-updates main restricted universe",
        f"{signed} http://s.example/ubuntu noble-security main restricted universe",
    ]


def test_an_unknown_kernel_names_the_known() -> None:
    with pytest.raises(BuilderError, match="debian has no kernel called hwe") as caught:
        distribution("debian", "13", "hwe")
    assert caught.value.hint == "known: generic, cloud"


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        (TRIXIE, "install the package debian-archive-keyring: `builder doctor --install` does"),
        (
            NOBLE,
            "install the package ubuntu-keyring: apt-get install ubuntu-keyring; Debian 12 has it in "
            "bookworm-backports",
        ),
    ],
)
def test_a_missing_keyring_names_its_package(target: Distribution, hint: str, tmp_path: Path) -> None:
    without = replace(target, keyring=tmp_path / "keyring.gpg")
    with pytest.raises(BuilderError, match=r"keyring\.gpg is not there") as caught:
        apt.resolve(without, mirror.Mirror({"main": "http://m.example"}, "a test"), ["bash"])
    assert caught.value.hint == hint


def test_the_environment_comes_before_the_host() -> None:
    found = mirror.from_environment({mirror.VARIABLE: "http://mine.example/debian/"})
    assert found is not None
    assert found.uris == {"main": "http://mine.example/debian"}


def test_a_part_of_another_distribution_has_a_mirror_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(mirror.VARIABLE, "http://mine.example/ubuntu")
    monkeypatch.setenv("BUILDER_DEBIAN_MIRROR", "http://mine.example/debian/")
    found = resolve.mirror_of_engine(loads(UBUNTU_WITH_LLAMACPP))
    assert found.uris == {"main": "http://mine.example/debian"}
    assert found.origin == "the environment (BUILDER_DEBIAN_MIRROR)"
    assert found.snapshot is None, "the spec's snapshot is of the nodes' distribution"


def test_a_part_of_the_nodes_distribution_has_their_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_DEBIAN_MIRROR", "http://another.example/debian")
    text = UBUNTU_WITH_LLAMACPP.replace(
        "{name: ubuntu, release: '24.04', ", "{mirror: 'http://m.example/debian', "
    )
    found = resolve.mirror_of_engine(loads(text))
    assert found.urls("main", "pool/a.deb") == (
        "http://m.example/debian/pool/a.deb",
        "http://old.example/pool/a.deb",
    )
    assert found.urls("security", "pool/a.deb") == ()


def test_without_a_security_archive_its_suite_is_left_out() -> None:
    only_main = mirror.Mirror({"main": "http://m.example/debian"}, "a test")
    text = apt.sources_list(TRIXIE, only_main)
    assert "trixie-updates" in text
    assert "security" not in text


def test_records_are_read() -> None:
    text = "Package: a\nVersion: 1\nDescription: x\n more: text\nSize: 3\n\nPackage: b\nVersion: 2\n\n\n"
    assert apt.parse_records(text) == [
        {"Package": "a", "Version": "1", "Description": "x", "Size": "3"},
        {"Package": "b", "Version": "2"},
    ]


def test_a_file_name_survives_an_epoch() -> None:
    package = apt.Package("vim", "2:9.1", "amd64", "main", "pool/v.deb", 1, "0" * 64)
    assert package.file_name == "vim_2%3a9.1_amd64.deb"
