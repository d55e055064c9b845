"""Which ISO a release is: the listing that Ubuntu signs, and where it may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import BuilderError, Exit
from builder.media import ubunturelease
from builder.media.baseiso import name_of
from builder.media.ubunturelease import CURRENT, OLD, UBUNTU, Image, Trust

A, B, C, D = ("a" * 64, "b" * 64, "c" * 64, "d" * 64)
SUMS = f"""\
{A} *ubuntu-24.04.9-live-server-amd64.iso
{B} *ubuntu-24.04.10-live-server-amd64.iso
{C} *ubuntu-24.04-live-server-amd64.iso
{D} *ubuntu-24.04.10-desktop-amd64.iso
{D} *ubuntu-24.04.11-live-server-arm64.iso
{D} *ubuntu-24.04.10-netboot-amd64.tar.gz
{D} *ubuntu-24.04.10-live-server-amd64.iso.zsync
{D} *ubuntu-26.04-live-server-amd64.iso
"""


def test_point_releases_are_ordered_as_numbers() -> None:
    images = ubunturelease.parse(SUMS, "24.04")
    assert images == (Image("24.04", C), Image("24.04.9", A), Image("24.04.10", B))
    assert images[-1].name == "ubuntu-24.04.10-live-server-amd64.iso"


def test_a_listing_signed_for_one_release_is_not_taken_for_another() -> None:
    assert [image.point for image in ubunturelease.parse(SUMS, "26.04")] == ["26.04"]
    assert ubunturelease.parse(SUMS.replace("24.04", "22.04"), "24.04") == ()


def test_a_codename_is_a_release() -> None:
    assert [ubunturelease.number(name) for name in ("24.04", "noble", "resolute")] == ["24.04", "24.04", "26.04"]


@pytest.mark.parametrize(("release", "hint"), [("25.10", '"24.04" (noble)'), ("24.04.3", "base_iso.sha256")])
def test_an_unknown_release_names_the_known(release: str, hint: str) -> None:
    with pytest.raises(BuilderError, match=f"Ubuntu {release} is not known") as caught:
        ubunturelease.number(release)
    assert caught.value.code == Exit.SPEC
    assert hint in caught.value.hint


def test_an_iso_is_looked_for_where_it_is_and_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CURRENT, raising=False)
    monkeypatch.delenv(OLD, raising=False)
    name = "ubuntu-24.04.2-live-server-amd64.iso"
    assert ubunturelease.urls(name) == (
        f"https://releases.ubuntu.com/24.04/{name}",
        f"https://old-releases.ubuntu.com/releases/24.04/{name}",
        f"https://old-releases.ubuntu.com/releases/noble/{name}",
        f"https://old-releases.ubuntu.com/releases/24.04.2/{name}",
    )


def test_the_environment_names_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CURRENT, "http://mirror.example/ubuntu/")
    monkeypatch.setenv(OLD, "http://mirror.example/old")
    assert ubunturelease.folders("26.04") == (
        "http://mirror.example/ubuntu/26.04",
        "http://mirror.example/old/26.04",
        "http://mirror.example/old/resolute",
    )


@pytest.mark.parametrize("text", ["nonsense", "ftp://mirror.example", "https://me:secret@mirror.example"])
def test_a_variable_that_is_no_url_is_named_and_not_quoted(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CURRENT, text)
    with pytest.raises(BuilderError, match=CURRENT) as caught:
        ubunturelease.folders("24.04")
    assert "secret" not in caught.value.message


def test_a_lock_that_names_something_else_is_refused() -> None:
    with pytest.raises(BuilderError, match="no live-server ISO of a known release") as caught:
        ubunturelease.urls("../../etc/passwd")
    assert caught.value.code == Exit.SPEC


def test_the_command_line() -> None:
    assert ubunturelease.gpgv_argv(Trust(Path("/keys/x.gpg"), "F"), Path("/work")) == [
        "gpgv",
        "--homedir",
        Path("/work"),
        "--keyring",
        Path("/keys/x.gpg"),
        "--status-fd",
        "1",
        Path("/work/SHA256SUMS.gpg"),
        Path("/work/SHA256SUMS"),
    ]


VALID = "[GNUPG:] VALIDSIG SUBKEY 2020-08-06 1596727835 0 4 0 1 10 00 KEY\n"


@pytest.mark.parametrize(
    ("status", "good"),
    [
        (VALID, True),
        (f"[GNUPG:] ERRSIG X 1 10 00 1 9 OTHER\n[GNUPG:] NO_PUBKEY OTHER\n{VALID}", True),
        (VALID.replace("KEY\n", "OTHER\n"), False),
        (f"[GNUPG:] BADSIG KEY somebody\n{VALID}", False),
        (f"[GNUPG:] EXPKEYSIG KEY somebody\n{VALID}", False),
        ("[GNUPG:] GOODSIG KEY somebody\n", False),
        ("gpgv: VALIDSIG KEY", False),
        ("[GNUPG:]\n[GNUPG:] NODATA 1\n", False),
        ("", False),
    ],
)
def test_only_a_valid_signature_of_that_key_is_good(status: str, good: bool) -> None:
    assert ubunturelease.is_good(status, "KEY") == good


def test_the_vendored_key_is_there() -> None:
    assert UBUNTU.keyring.read_bytes()[:1] == b"\x99"  # an OpenPGP public-key packet


@pytest.mark.parametrize(
    ("url", "name"),
    [("https://h/a/b%20c.iso?token=x#y", "b c.iso"), ("https://h/", "base.iso"), ("https://h/a%2Fb.iso", "b.iso")],
)
def test_a_url_s_file_has_a_name_without_the_host(url: str, name: str) -> None:
    assert name_of(url) == name
