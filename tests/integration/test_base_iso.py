"""The base ISO from a release, a URL and a path, against a real server that cuts, lies and lacks files.

Signatures are made by the real gpg with a throw-away key and checked by the real gpgv; one is Ubuntu's own.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.media import baseiso, isoimage, liveiso, ubunturelease
from builder.media.baseiso import BaseIso, LockedIso
from builder.media.ubunturelease import CURRENT, OLD, UBUNTU, Trust
from builder.run import run, which
from tests import isotrees
from tests.isotrees import CATALOGUE, DESKTOP, INFO, LIVE_SERVER

pytestmark = pytest.mark.tools

REAL = Path(__file__).parents[1] / "data/ubuntu-20.04.1"
NAME = "ubuntu-24.04.3-live-server-amd64.iso"


class Server(ThreadingHTTPServer):
    """Serves ``files`` by path. ``cut``: connections that are broken off half-way; ``sizes``: HEAD is allowed;
    ``honest``: it says how long an answer is, so that a cut shows."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cut = 0
        self.sizes = True
        self.honest = True
        self.asked: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.server.asked.append(f"HEAD {self.path}")
        if not self.server.sizes:
            self.send_error(405)
        elif self.path not in self.server.files:
            self.send_error(404)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.files[self.path])))
            self.end_headers()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path not in self.server.files:
            self.send_error(404)
            return
        wanted = self.headers["Range"]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.server.files[self.path][start:]
        self.send_response(206 if start else 200)
        if self.server.honest:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.server.cut:
            self.server.cut -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as running:
        monkeypatch.setenv(CURRENT, running.url("/now"))
        monkeypatch.setenv(OLD, running.url("/old/"))
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


class Signer:
    """A throw-away key of gpg's."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self.gpg: list[str | Path] = ["gpg", "--homedir", home, "--batch", "--quiet", "--passphrase", ""]
        run([*self.gpg, "--quick-generate-key", "tester", "ed25519", "sign", "never"], step="making a key")
        listed = run([*self.gpg, "--list-keys", "--with-colons"], step="listing the key").stdout
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        run([*self.gpg, "--output", home / "public.gpg", "--export"], step="exporting the key")
        self.trust = Trust(home / "public.gpg", fingerprint)
        self.home = home

    def sign(self, data: bytes) -> bytes:
        (self.home / "data").write_bytes(data)
        argv = [*self.gpg, "--yes", "--armor", "--output", self.home / "sig", "--detach-sign", self.home / "data"]
        run(argv, step="signing")
        return (self.home / "sig").read_bytes()


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signer]:
    if which("gpg") is None:
        pytest.skip("gpg is not installed")
    made = Signer(tmp_path_factory.mktemp("key") / "gnupg")
    yield made
    run(["gpgconf", "--homedir", made.home, "--kill", "all"], step="ending gpg's agent")


@pytest.fixture(scope="module")
def iso(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return isotrees.make(tmp_path_factory.mktemp("iso") / NAME, LIVE_SERVER).read_bytes()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


Publish = Callable[..., None]


@pytest.fixture
def publish(server: Server, signer: Signer) -> Publish:
    """Put ISOs into a folder of the server, with a listing that is signed."""

    def put(folder: str, isos: Mapping[str, bytes], listing: str | None = None) -> None:
        text = (listing or "".join(f"{sha(data)} *{name}\n" for name, data in isos.items())).encode()
        server.files |= {f"{folder}/{name}": data for name, data in isos.items()}
        server.files |= {f"{folder}/SHA256SUMS": text, f"{folder}/SHA256SUMS.gpg": signer.sign(text)}

    return put


def test_a_lock_may_ask_for_an_iso() -> None:
    """The lock comes before the plan, so nothing that resolves an ISO may import either."""
    program = "import sys, builder.media.baseiso; print({'builder.lock', 'builder.plan'} & set(sys.modules))"
    said = run([sys.executable, "-c", program], step="importing", cwd=Path(__file__).parents[2]).stdout
    assert said == "set()\n"


# The signature.


def test_the_vendored_key_checks_a_real_listing_of_ubuntu_s(server: Server) -> None:
    for name in ("SHA256SUMS", "SHA256SUMS.gpg"):
        server.files[f"/x/{name}"] = (REAL / name).read_bytes()
    text = ubunturelease.listing(server.url("/x"), UBUNTU)
    assert text is not None and "ubuntu-20.04.1-live-server-amd64.iso" in text


@pytest.mark.skipif(which("gpg") is None, reason="gpg is not installed")
def test_the_vendored_keyring_holds_one_key_and_no_secret(tmp_path: Path) -> None:
    argv: list[str | Path] = ["gpg", "--homedir", tmp_path, "--with-colons", "--show-keys", UBUNTU.keyring]
    lines = run(argv, step="showing the key").stdout.splitlines()
    assert [line.split(":")[9] for line in lines if line.startswith("fpr:")] == [UBUNTU.fingerprint]
    assert {line.split(":")[0] for line in lines} <= {"tru", "pub", "fpr", "uid"}
    readme = (UBUNTU.keyring.parent / "README.md").read_text()
    assert readme.replace(" ", "").count(UBUNTU.fingerprint) == 2  # to be read, and to be typed


@pytest.mark.parametrize("file", ["SHA256SUMS", "SHA256SUMS.gpg"])
def test_one_changed_byte_is_not_what_ubuntu_signed(server: Server, file: str) -> None:
    for name in ("SHA256SUMS", "SHA256SUMS.gpg"):
        data = bytearray((REAL / name).read_bytes())
        if name == file:
            data[150] ^= 1
        server.files[f"/x/{name}"] = bytes(data)
    with pytest.raises(BuilderError, match="is not what Ubuntu signed") as caught:
        ubunturelease.listing(server.url("/x"), UBUNTU)
    assert caught.value.code == Exit.FETCH
    assert CURRENT in caught.value.hint
    assert "  | gpgv: " in caught.value.message


def test_another_s_signature_is_refused(server: Server, publish: Publish, cache: Cache, iso: bytes) -> None:
    publish("/now/24.04", {NAME: iso})
    with pytest.raises(BuilderError, match=r"/now/24\.04/SHA256SUMS is not what Ubuntu signed"):
        baseiso.resolve(BaseIso(release="24.04"), Path(), cache)
    assert not any("old" in path or path.endswith(".iso") for path in server.asked)


def test_a_listing_without_a_signature_is_refused(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    publish("/now/24.04", {NAME: iso})
    del server.files["/now/24.04/SHA256SUMS.gpg"]
    with pytest.raises(BuilderError, match="is not signed") as caught:
        baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    assert caught.value.code == Exit.FETCH


# A release.


def test_a_release_is_its_newest_point_release(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    names = [f"ubuntu-24.04{point}-{kind}-amd64.iso" for point in ("", ".2", ".10") for kind in _KINDS]
    publish("/now/24.04", {name: iso + name.encode() for name in names})
    wanted = "ubuntu-24.04.10-live-server-amd64.iso"
    data = iso + wanted.encode()
    pinned = baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    assert pinned == LockedIso(wanted, sha(data), len(data))
    assert f"HEAD /now/24.04/{wanted}" in server.asked and f"/now/24.04/{wanted}" not in server.asked
    path = baseiso.obtain(BaseIso(release="24.04"), pinned, Path(), cache)
    assert path.read_bytes() == data
    assert baseiso.resolve(BaseIso(release="noble"), Path(), cache, signer.trust) == pinned


_KINDS = ("desktop", "live-server")


def test_a_server_that_tells_no_sizes_costs_a_download(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    publish("/now/24.04", {NAME: iso})
    server.sizes = False
    pinned = baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    assert pinned == LockedIso(NAME, sha(iso), len(iso))
    server.files.clear()
    assert baseiso.obtain(BaseIso(release="24.04"), pinned, Path(), cache).read_bytes() == iso


def test_what_is_here_is_asked_of_nobody(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("/now/24.04", {NAME: iso})
    base = BaseIso(release="24.04")
    pinned = baseiso.resolve(base, Path(), cache, signer.trust)
    first = baseiso.obtain(base, pinned, Path(), cache)
    server.asked.clear()
    monkeypatch.setenv(CURRENT, "nonsense")
    assert baseiso.obtain(base, pinned, Path(), cache) == first
    assert server.asked == []


@pytest.mark.parametrize("folder", ["/old/24.04", "/old/noble", "/old/24.04.3"])
def test_a_pinned_point_release_that_was_moved_is_found_again(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer, folder: str
) -> None:
    publish("/now/24.04", {NAME: iso})
    pinned = baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    server.files[f"{folder}/{NAME}"] = server.files.pop(f"/now/24.04/{NAME}")
    assert baseiso.obtain(BaseIso(release="24.04"), pinned, Path(), cache).read_bytes() == iso


@pytest.mark.parametrize("folder", ["/old/24.04", "/old/noble"])
def test_a_digest_in_the_spec_pins_an_old_point_release(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer, folder: str
) -> None:
    publish("/now/24.04", {"ubuntu-24.04.4-live-server-amd64.iso": iso + b"4"})
    publish(folder, {NAME: iso})
    base = BaseIso(release="24.04", sha256=sha(iso))
    pinned = baseiso.resolve(base, Path(), cache, signer.trust)
    assert pinned == LockedIso(NAME, sha(iso), len(iso))
    assert baseiso.obtain(base, pinned, Path(), cache).read_bytes() == iso


def test_a_release_that_was_moved_as_a_whole_is_found(
    publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    publish("/old/24.04", {NAME: iso})
    assert baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust).name == NAME


def test_a_digest_that_nobody_lists_names_those_that_are(
    publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    publish("/now/24.04", {NAME: iso})
    with pytest.raises(BuilderError, match="lists no live server with the digest") as caught:
        baseiso.resolve(BaseIso(release="24.04", sha256="0" * 64), Path(), cache, signer.trust)
    assert f"{sha(iso)}  {NAME}" in caught.value.message


@pytest.mark.parametrize(
    "listing",
    [
        f"{'a' * 64} *ubuntu-24.04.3-desktop-amd64.iso\n",
        f"{'a' * 64} *ubuntu-22.04.5-live-server-amd64.iso\n",
        f"{'a' * 63} *{NAME}\n",
        "",
    ],
)
def test_a_listing_without_a_live_server_is_named(
    publish: Publish, cache: Cache, signer: Signer, listing: str
) -> None:
    publish("/now/24.04", {}, listing or "\n")
    with pytest.raises(BuilderError, match=r"SHA256SUMS lists no ubuntu-24\.04-live-server-amd64\.iso") as caught:
        baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    assert caught.value.code == Exit.FETCH


def test_a_release_that_is_nowhere_names_the_places(server: Server, cache: Cache) -> None:
    with pytest.raises(BuilderError, match=r"has no SHA256SUMS") as caught:
        baseiso.resolve(BaseIso(release="26.04"), Path(), cache)
    assert server.url("/old/resolute") in caught.value.message


def test_an_unknown_release_asks_nobody(server: Server, cache: Cache) -> None:
    with pytest.raises(BuilderError, match=r"Ubuntu 25\.10 is not known") as caught:
        baseiso.resolve(BaseIso(release="25.10"), Path(), cache)
    assert caught.value.code == Exit.SPEC
    assert server.asked == []


def test_a_download_that_is_cut_goes_on_where_it_was(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    publish("/now/24.04", {NAME: iso})
    pinned = baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    server.cut = 2
    assert baseiso.obtain(BaseIso(release="24.04"), pinned, Path(), cache).read_bytes() == iso
    assert server.asked.count(f"/now/24.04/{NAME}") == 3


def test_other_bytes_than_the_listing_s_are_refused(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    publish("/now/24.04", {NAME: iso})
    pinned = baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    server.files[f"/now/24.04/{NAME}"] = iso[:-1] + b"!"
    with pytest.raises(BuilderError, match="wrong content") as caught:
        baseiso.obtain(BaseIso(release="24.04"), pinned, Path(), cache)
    assert caught.value.code == Exit.FETCH
    assert not cache.blob(pinned.sha256).exists()


def test_an_iso_that_is_gone_from_everywhere_names_the_places(
    server: Server, publish: Publish, cache: Cache, iso: bytes, signer: Signer
) -> None:
    publish("/now/24.04", {NAME: iso})
    pinned = baseiso.resolve(BaseIso(release="24.04"), Path(), cache, signer.trust)
    server.files.clear()
    with pytest.raises(BuilderError, match=f"{NAME} could not be downloaded") as caught:
        baseiso.obtain(BaseIso(release="24.04"), pinned, Path(), cache)
    assert caught.value.message.count("404") == 4


def test_an_endless_listing_is_not_read_to_its_end(server: Server, cache: Cache) -> None:
    server.files["/now/24.04/SHA256SUMS"] = bytes(3 << 20)
    with pytest.raises(BuilderError, match="more than 1048576 bytes"):
        baseiso.resolve(BaseIso(release="24.04"), Path(), cache)


# A URL.


def test_a_url_is_pinned_at_first_use(server: Server, cache: Cache, iso: bytes) -> None:
    server.files["/some/my%20server.iso"] = iso
    base = BaseIso(url=server.url("/some/my%20server.iso"))
    pinned = baseiso.resolve(base, Path(), cache)
    assert pinned == LockedIso("my server.iso", sha(iso), len(iso))
    assert baseiso.obtain(base, pinned, Path(), cache).read_bytes() == iso
    assert len(server.asked) == 1


def test_a_url_that_gives_something_else_later_is_refused(
    server: Server, cache: Cache, iso: bytes, tmp_path: Path
) -> None:
    server.files["/x.iso"] = iso
    base = BaseIso(url=server.url("/x.iso"))
    pinned = baseiso.resolve(base, Path(), cache)
    server.files["/x.iso"] = iso[:-1] + b"!"
    with pytest.raises(BuilderError, match=r"x\.iso: wrong content"):
        baseiso.obtain(base, pinned, Path(), Cache(tmp_path / "other"))


def test_a_url_is_held_to_the_spec_s_digest(server: Server, cache: Cache, iso: bytes) -> None:
    server.files["/x.iso"] = iso
    assert baseiso.resolve(BaseIso(url=server.url("/x.iso"), sha256=sha(iso)), Path(), cache).sha256 == sha(iso)
    with pytest.raises(BuilderError, match="wrong content") as caught:
        baseiso.resolve(BaseIso(url=server.url("/x.iso"), sha256="0" * 64), Path(), cache)
    assert caught.value.code == Exit.FETCH


def test_a_cut_that_no_one_announced_is_not_pinned(server: Server, cache: Cache, iso: bytes) -> None:
    """A server that does not say how much is to come can end early, and it looks like the end."""
    server.files["/x.iso"] = iso
    server.honest, server.cut = False, 1
    with pytest.raises(BuilderError, match=f"is cut short: it has {len(iso) // 2:,} bytes") as caught:
        baseiso.resolve(BaseIso(url=server.url("/x.iso")), Path(), cache)
    assert caught.value.code == Exit.MEDIUM


def test_a_web_page_is_not_pinned(server: Server, cache: Cache) -> None:
    server.files["/x.iso"] = b"<html>Please log in</html>" * 5000
    with pytest.raises(BuilderError, match="is not an ISO image") as caught:
        baseiso.resolve(BaseIso(url=server.url("/x.iso")), Path(), cache)
    assert caught.value.code == Exit.MEDIUM


def test_a_url_that_leads_nowhere_is_named(server: Server, cache: Cache) -> None:
    with pytest.raises(BuilderError, match=r"x\.iso could not be downloaded") as caught:
        baseiso.resolve(BaseIso(url=server.url("/x.iso")), Path(), cache)
    assert "media.base_iso" in caught.value.hint


# A path.


def test_a_path_is_taken_where_it_lies(cache: Cache, iso: bytes, tmp_path: Path) -> None:
    (tmp_path / "isos").mkdir()
    (tmp_path / "isos/mine.iso").write_bytes(iso)
    base = BaseIso(path="isos/mine.iso", sha256=sha(iso))
    pinned = baseiso.resolve(base, tmp_path, cache)
    assert pinned == LockedIso("mine.iso", sha(iso), len(iso))
    assert baseiso.obtain(base, pinned, tmp_path, cache) == tmp_path / "isos/mine.iso"
    assert not cache.root.exists()


def test_a_path_with_another_digest_than_the_spec_s(cache: Cache, iso: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.iso").write_bytes(iso)
    with pytest.raises(BuilderError, match="wrong content") as caught:
        baseiso.resolve(BaseIso(path="x.iso", sha256="0" * 64), tmp_path, cache)
    assert caught.value.code == Exit.SPEC


@pytest.mark.parametrize(("change", "message"), [(b"!", "wrong content"), (b"!!", "bytes, the lock says")])
def test_a_path_that_changed_since_the_lock(
    cache: Cache, iso: bytes, tmp_path: Path, change: bytes, message: str
) -> None:
    (tmp_path / "x.iso").write_bytes(iso)
    base = BaseIso(path="x.iso")
    pinned = baseiso.resolve(base, tmp_path, cache)
    (tmp_path / "x.iso").write_bytes(iso[:-1] + change)
    with pytest.raises(BuilderError, match=message) as caught:
        baseiso.obtain(base, pinned, tmp_path, cache)
    assert caught.value.code == Exit.FETCH
    assert "builder lock --update" in caught.value.hint


def test_a_path_without_a_file(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match=r"there is no file .*x\.iso") as caught:
        baseiso.resolve(BaseIso(path="x.iso"), tmp_path, cache)
    assert caught.value.code == Exit.SPEC


# What is and is not a live-server ISO.


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
