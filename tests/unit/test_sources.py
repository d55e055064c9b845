"""Mirrors and packages: who is asked, and how apt's own texts are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder import apt, mirror
from builder.distributions import distribution

TRIXIE = distribution("debian", "13", "generic")

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


def test_the_environment_comes_before_the_host() -> None:
    found = mirror.from_environment({mirror.VARIABLE: "http://mine.example/debian/"})
    assert found is not None
    assert found.uris == {"main": "http://mine.example/debian"}


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
