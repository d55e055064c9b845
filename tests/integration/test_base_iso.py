"""The base ISO from a release, a URL and a path, against a real server that cuts, lies and lacks files.

Signatures are made by the real gpg with a throw-away key and checked by the real gpgv; one is Ubuntu's own.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.media import baseiso, ubunturelease
from builder.media.baseiso import BaseIso, LockedIso
from builder.media.ubunturelease import CURRENT, OLD, UBUNTU
from builder.run import run, which
from tests import isotrees
from tests.integration.releaselab import Server, Signer
from tests.isotrees import LIVE_SERVER

pytestmark = pytest.mark.tools

REAL = Path(__file__).parents[1] / "data/ubuntu-20.04.1"
NAME = "ubuntu-24.04.3-live-server-amd64.iso"


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
    with pytest.raises(BuilderError, match="more than 1048576 bytes") as caught:
        baseiso.resolve(BaseIso(release="24.04"), Path(), cache)
    assert CURRENT in caught.value.hint


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
