"""What is a live-server ISO, and what is refused as none, by what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.errors import BuilderError, Exit
from builder.media import isoimage, liveiso
from tests import isotrees
from tests.isotrees import CATALOGUE, DESKTOP, INFO, LIVE_SERVER

pytestmark = pytest.mark.tools


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return isotrees.make(tmp_path_factory.mktemp("iso") / "x.iso", LIVE_SERVER).read_bytes()


def test_the_facts_of_a_live_server(tmp_path: Path) -> None:
    loopback = isotrees.with_arguments("iso-scan/filename=${iso_path}")
    path = isotrees.make(tmp_path / "x.iso", {**LIVE_SERVER, "/boot/grub/loopback.cfg": loopback})
    live = liveiso.read(path)
    assert (live.info.point, live.info.release, live.image.volume) == (
        "24.04.3",
        "24.04",
        "Ubuntu-Server 24.04.3 LTS amd64",
    )
    assert [(entry.kernel, entry.arguments) for entry in live.entries] == [
        ("/casper/vmlinuz", ("---",)),
        ("/casper/vmlinuz", ("iso-scan/filename=${iso_path}", "---")),
    ]
    assert live.menus["/boot/grub/loopback.cfg"] == loopback
    assert live.catalogue == CATALOGUE
    assert [source.id for source in live.sources if source.default] == ["ubuntu-server"]
    assert live.layers == {
        "ubuntu-server-minimal.squashfs": 7,
        "ubuntu-server-minimal.ubuntu-server.installer.generic.squashfs": 9,
        "ubuntu-server-minimal.ubuntu-server.squashfs": 6,
    }
    liveiso.require_release(live, "24.04")
    with pytest.raises(BuilderError, match=r"is Ubuntu 24\.04\.3, and the nodes are to run 26\.04"):
        liveiso.require_release(live, "26.04")


def server_info(text: str) -> dict[str, str]:
    return {**LIVE_SERVER, "/.disk/info": INFO.replace("24.04.3", text)}


def without(name: str) -> dict[str, str]:
    return {key: text for key, text in LIVE_SERVER.items() if key != name}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (DESKTOP, "is a desktop ISO: Ubuntu 24.04.3"),
        ({**DESKTOP, "/.disk/info": DESKTOP["/.disk/info"].replace("Ubuntu", "Kubuntu")}, "is a desktop ISO: Kub"),
        (without("/.disk/info"), "is not an ISO of Ubuntu: no /.disk/info says so"),
        ({"/.disk/info": "Debian GNU/Linux 13.1.0\n", "/x": ""}, "is not an ISO of Ubuntu"),
        ({"/README": "hello"}, "is not an ISO of Ubuntu"),
        (without("/casper/install-sources.yaml"), "is not a live-server ISO: it has no /casper/inst"),
        (server_info("22.04.5"), "is Ubuntu 22.04.5, too old: 24.04 is the first"),
        (server_info("25.10"), "is Ubuntu 25.10, not a release whose installer this builder knows"),
        (server_info("28.04"), "is Ubuntu 28.04, not a release"),
        ({**LIVE_SERVER, "/.disk/info": INFO.replace("amd64", "arm64")}, "is for arm64, and nodes are amd64"),
        ({**LIVE_SERVER, "/casper/install-sources.yaml": "{"}, "is not a catalogue that can be read"),
        ({**LIVE_SERVER, "/boot/grub/grub.cfg": "set timeout=30\n"}, "starts no kernel of /casper"),
        (without("/boot/grub/grub.cfg"), "starts no kernel of /casper"),
        ({**LIVE_SERVER, "/builder/manifest.json": "{}"}, "is a medium that this builder made"),
        ({**LIVE_SERVER, "/boot/grub/grub.cfg": "#" * (9 << 20)}, "grub.cfg has 9.0 MiB, which it cannot have"),
    ],
)  # fmt: skip
def test_what_is_no_live_server_is_refused_by_what_it_is(
    tmp_path: Path, tree: Mapping[str, str], message: str
) -> None:
    with pytest.raises(BuilderError) as caught:
        liveiso.read(isotrees.make(tmp_path / "x.iso", tree))
    assert message in caught.value.message
    assert caught.value.code == Exit.MEDIUM
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("lost", [1, 512, 1 << 20, 1_300_000])
def test_a_cut_iso_is_refused_wherever_it_was_cut(tmp_path: Path, iso: bytes, lost: int) -> None:
    """The last megabyte is the partition behind the file system, and the backup of the partition table."""
    (tmp_path / "x.iso").write_bytes(iso[:-lost])
    with pytest.raises(BuilderError, match=f"has {len(iso) - lost:,} bytes, and needs {len(iso):,}") as caught:
        liveiso.read(tmp_path / "x.iso")
    assert caught.value.code == Exit.MEDIUM


def test_an_image_larger_than_its_iso_is_a_stick(tmp_path: Path, iso: bytes) -> None:
    (tmp_path / "x.img").write_bytes(iso + bytes(5 << 20))
    assert liveiso.read(tmp_path / "x.img").info.point == "24.04.3"


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" * 20000, bytes(1 << 20)])
def test_what_is_no_iso_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.iso").write_bytes(data)
    with pytest.raises(BuilderError, match=r"x\.iso is not an ISO image"):
        liveiso.read(tmp_path / "x.iso")


def test_names_that_need_quoting_and_contents_are_read_where_they_lie(tmp_path: Path) -> None:
    tree = {'/it\'s "a" file': b"one", "/new\nline": b"two", "/empty": b"", "/dir/deep/ü": b"four"}
    image = isoimage.read(isotrees.make(tmp_path / "an 'odd' name.iso", tree, "X"))
    assert {name: image.read(name) for name in image.files} == tree
    assert image.end("/dir/deep/ü", 2) == b"ur"
    with pytest.raises(BuilderError, match="has no /nothing"):
        image.read("/nothing")
