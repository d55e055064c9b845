"""The payload from a server: cut, short, changed, slow to come back; with a server that misbehaves on purpose."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.installer import web
from builder.installer.model import File, InstallError, Manifest, Model, Storage
from builder.installer.web import Web

BIG = bytes(range(256)) * 12_000  # about 3 MB
LAYER = File("layers/node.squashfs", len(BIG), hashlib.sha256(BIG).hexdigest())
MODEL = File("models/m", 5, hashlib.sha256(b"model").hexdigest())
SEED = File("seeds/node1/user-data", 3, hashlib.sha256(b"one").hexdigest())
FILES = {LAYER.path: BIG, MODEL.path: b"model", SEED.path: b"one", "manifest.json": b"{}"}


@dataclass
class Mischief:
    """What the server does. ``cut``: bytes after which each answer ends; ``refuse``: answers of 503 at first."""

    files: dict[str, bytes]
    cut: int = 1 << 40
    refuse: int = 0
    ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0


@pytest.fixture
def server() -> Iterator[tuple[str, Mischief]]:
    mischief = Mischief(dict(FILES))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path, wanted = self.path.removeprefix("/builder/"), self.headers.get("Range", "")
            mischief.asked.append((path, wanted))
            data = mischief.files.get(path)
            if mischief.refuse:
                mischief.refuse -= 1
                self.answer(503, b"", {})
            elif data is None:
                self.answer(404, b"", {})
            elif wanted and mischief.ranges:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                part = data[int(first) : int(last) + 1 if last else None]
                if not part:
                    self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                else:
                    place = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
                    self.answer(206, part, {"Content-Range": place})
            else:
                self.answer(200, data, {})

        def answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data[: mischief.cut])
            mischief.sent += min(len(data), mischief.cut)
            if len(data) > mischief.cut:
                self.close_connection = True

        def log_message(self, *_args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{found.server_address[1]}/builder", mischief
        found.shutdown()
        thread.join()


def source(base: str, tmp_path: Path, room: int = 0, patience: float = 60) -> tuple[Web, list[float]]:
    slept: list[float] = []
    return Web(base, room=room, held=tmp_path / "held", patience=patience, sleep=slept.append), slept


def manifest(*files: File) -> Manifest:
    models = tuple(Model(file.path, file.path) for file in files if file.path.startswith("models/"))
    index = {file.path: file for file in files}
    return Manifest("c", "p", files, (LAYER.path,), models, (), Storage(0, None, 0), index=index)


def nothing(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no-ranges"])
def test_a_cut_connection_goes_on_where_it_was(server: tuple[str, Mischief], tmp_path: Path, ranges: bool) -> None:
    base, mischief = server
    mischief.cut, mischief.ranges = 1_000_000 if ranges else 1 << 40, ranges
    mischief.refuse = 2
    found, slept = source(base, tmp_path)
    seen: list[int] = []
    found.copy(LAYER, tmp_path / "copy", seen.append)
    assert (tmp_path / "copy").read_bytes() == BIG
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o444
    assert seen == sorted(seen) and seen[-1] == len(BIG)
    assert len(slept) >= 2 and all(pause > 0 for pause in slept)
    if ranges:  # nothing came twice
        assert mischief.sent == len(BIG)
        assert [wanted for _, wanted in mischief.asked[-3:]] == [
            f"bytes={at}-{len(BIG) - 1}" for at in (1_000_000, 2_000_000, 3_000_000)
        ]


def test_a_server_that_starts_over_is_followed(server: tuple[str, Mischief], tmp_path: Path) -> None:
    """It gave ranges, was cut, and gives none after its restart: what is there already is passed over."""
    base, mischief = server
    mischief.cut = 1_000_000
    found, _ = source(base, tmp_path)
    chunks = found._chunks(LAYER.path, LAYER.size)
    got = next(chunks)
    mischief.ranges, mischief.cut = False, 1 << 40
    for chunk in chunks:
        got += chunk
    assert got == BIG


def test_patience_ends(server: tuple[str, Mischief], tmp_path: Path) -> None:
    base, mischief = server
    mischief.refuse = 10_000
    found, slept = source(base, tmp_path, patience=60)
    with pytest.raises(InstallError, match=r"manifest\.json does not come from http.*503"):
        found.manifest()
    assert 3 < len(slept) < 60
    assert max(slept) <= web.LONGEST


def test_nobody_listens(tmp_path: Path) -> None:
    found, _ = source("http://127.0.0.1:9/builder", tmp_path, patience=5)
    with pytest.raises(InstallError, match="Connection refused"):
        found.manifest()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({LAYER.path: BIG[:-1] + b"x"}, r"layers/node\.squashfs is damaged: its sha256 is not the manifest's"),
        ({LAYER.path: BIG[:-1]}, f"is damaged: it has {len(BIG) - 1} bytes, the manifest says {len(BIG)}"),
        ({LAYER.path: BIG + b"x"}, f"is damaged: it has {len(BIG) + 1} bytes"),
        ({LAYER.path: b""}, "is damaged: it has 0 bytes"),
        ({MODEL.path: b"mode"}, "models/m is damaged: it has 4 bytes, the manifest says 5"),
        ({SEED.path: b"two"}, "seeds/node1/user-data is damaged"),
    ],
)
@pytest.mark.parametrize("room", [0, 1 << 30], ids=["streamed", "held"])
def test_what_is_not_as_the_manifest_says_is_found_before_a_disk_is_touched(
    server: tuple[str, Mischief], tmp_path: Path, change: dict[str, bytes], why: str, room: int
) -> None:
    base, mischief = server
    mischief.files.update(change)
    found, _ = source(base, tmp_path, room)
    with pytest.raises(InstallError, match=why):
        found.prove(manifest(LAYER, MODEL, SEED), (SEED, LAYER, MODEL), nothing)


@pytest.mark.parametrize("gone", [LAYER.path, MODEL.path, SEED.path])
def test_a_missing_file_is_named(server: tuple[str, Mischief], tmp_path: Path, gone: str) -> None:
    base, mischief = server
    del mischief.files[gone]
    found, slept = source(base, tmp_path)
    with pytest.raises(InstallError, match=f"{gone} is missing from the payload at {base}"):
        found.prove(manifest(LAYER, MODEL, SEED), (SEED, LAYER, MODEL), nothing)
    assert slept == []  # asking again would not mend it


def test_layers_that_are_held_come_once(server: tuple[str, Mischief], tmp_path: Path) -> None:
    base, mischief = server
    found, _ = source(base, tmp_path, room=1 << 30)
    seen: list[tuple[int, int]] = []
    found.prove(manifest(LAYER, MODEL, SEED), (SEED, LAYER, MODEL), lambda *done: seen.append(done))
    assert seen[-1] == (len(BIG) + 3,) * 2
    asked = len(mischief.asked)
    assert found.beside(manifest(LAYER)) == 0
    path = found.local(LAYER, tmp_path / "staging")
    assert path.read_bytes() == BIG and not (tmp_path / "staging").exists()
    found.copy(SEED, tmp_path / "user-data", mode=0o600)
    assert (tmp_path / "user-data").stat().st_mode & 0o777 == 0o600
    assert len(mischief.asked) == asked
    found.drop(path)
    found.release()
    assert list((tmp_path / "held").iterdir()) == []


def test_layers_that_are_not_held_are_proven_again_on_the_disk(
    server: tuple[str, Mischief], tmp_path: Path
) -> None:
    base, mischief = server
    found, _ = source(base, tmp_path, room=1000)
    found.prove(manifest(LAYER, MODEL, SEED), (SEED, LAYER, MODEL), nothing)
    assert found.beside(manifest(LAYER)) == len(BIG)
    path = found.local(LAYER, tmp_path / "staging")
    assert path.read_bytes() == BIG
    found.drop(path)
    assert not path.exists()
    mischief.files[LAYER.path] = b"x" + BIG[1:]  # it was whole a moment ago
    with pytest.raises(InstallError, match="is damaged"):
        found.local(LAYER, tmp_path / "staging")
    assert list((tmp_path / "staging").iterdir()) == []  # nothing that could be taken for it


def test_a_manifest_of_any_size_does_not_fill_the_memory(
    server: tuple[str, Mischief], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, mischief = server
    monkeypatch.setattr(web, "SMALL", 1000)
    mischief.files["manifest.json"] = bytes(1001)
    with pytest.raises(InstallError, match="which it cannot have"):
        source(base, tmp_path)[0].manifest()


def test_an_address_that_is_none(tmp_path: Path) -> None:
    for base in ("https://10.0.0.1/builder", "10.0.0.1", "file:///etc", "http:///x"):
        with pytest.raises(InstallError, match="only http"):
            Web(base)


def test_pauses_grow_and_are_never_the_same_for_two_nodes() -> None:
    assert all(0.5 <= web.back_off(1) <= 1 for _ in range(50))
    assert all(15 <= web.back_off(tries) <= 30 for tries in (6, 20, 500))
    assert len({web.back_off(6) for _ in range(50)}) > 40


def test_memory_is_read(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1000000 kB\nMemAvailable:     123 kB\n")
    assert web.memory_available(tmp_path / "meminfo") == 123 * 1024


@pytest.mark.parametrize(("mebibytes", "enough"), [(944, True), (900, True), (899, False), (480, False)])
def test_too_little_memory_is_said_with_both_numbers(tmp_path: Path, mebibytes: int, enough: bool) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal:  {mebibytes * 1024} kB\nMemAvailable:  9999999 kB\n")
    if enough:
        web.require_memory(tmp_path / "meminfo")
    else:
        with pytest.raises(InstallError, match=rf"has {mebibytes}\.0 MiB of memory, .* needs 1 GiB"):
            web.require_memory(tmp_path / "meminfo")
