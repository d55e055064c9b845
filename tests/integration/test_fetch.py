"""The door to the network, against a real HTTP server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import io
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.fetch import Item, fetch, fetch_each, get_bytes
from builder.progress import LARGE, Bars
from builder.run import run

CONTENT = bytes(range(256)) * 4096
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every path but /gone; ``cut`` connections are broken off half-way."""

    cut = 0
    ranges = True
    waits = False  # /gone answers only when /slow has begun

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.began = threading.Event()
        self.left = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        if self.path == "/gone":
            self.server.began.wait(30 if self.server.waits else 0)
            self.send_error(404)
            return
        if self.path == "/slow":
            self.dribble()
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cut:
            self.server.cut -= 1
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.wfile.write(body)

    def dribble(self) -> None:
        """Begin, and then send a little for as long as somebody listens; at most 256 MiB, lest a disk fill up."""
        self.send_response(200)
        self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        self.wfile.write(bytes(1 << 17))
        self.server.began.set()
        try:
            for _ in range(1 << 16):
                self.wfile.write(bytes(1 << 12))
        except ConnectionError:
            self.server.left.set()
        self.close_connection = True

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def test_a_file_comes_in_once(server: Server, cache: Cache) -> None:
    item = Item("model", (server.url("x"),), SHA, len(CONTENT))
    assert fetch([item], cache, title="test")[SHA].read_bytes() == CONTENT
    fetch([item], cache, title="test")
    assert len(server.asked) == 1


def test_a_cut_download_resumes_where_it_was(server: Server, cache: Cache) -> None:
    server.cut = 2
    got = fetch([Item("model", (server.url("x"),), SHA, len(CONTENT))], cache, title="test")
    assert got[SHA].read_bytes() == CONTENT
    half, quarter = len(CONTENT) // 2, len(CONTENT) * 3 // 4
    assert server.asked == [None, f"bytes={half}-", f"bytes={quarter}-"]


def test_a_server_without_ranges_is_asked_for_all_of_it(server: Server, cache: Cache) -> None:
    server.cut, server.ranges = 1, False
    got = fetch([Item("model", (server.url("x"),), SHA, len(CONTENT))], cache, title="test")
    assert got[SHA].read_bytes() == CONTENT


def test_a_download_that_was_killed_resumes_in_the_next_run(server: Server, cache: Cache) -> None:
    partial = cache.partial(SHA)
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:1000])
    fetch([Item("model", (server.url("x"),), SHA, len(CONTENT))], cache, title="test")
    assert server.asked == ["bytes=1000-"]


def test_a_wrong_digest_names_both_and_removes_the_bad_copy(server: Server, cache: Cache) -> None:
    wrong = "0" * 64
    with pytest.raises(BuilderError) as caught:
        fetch([Item("tiny.gguf", (server.url("x"),), wrong, len(CONTENT))], cache, title="test")
    assert caught.value.code == Exit.FETCH
    for part in ("tiny.gguf", wrong, SHA):
        assert part in caught.value.message
    assert not [path for path in cache.root.rglob("*") if path.is_file()]


def test_an_unknown_digest_is_found_out(server: Server, cache: Cache) -> None:
    (path,) = fetch([Item("model", (server.url("x"),), None)], cache, title="test").values()
    assert path == cache.blob(SHA)


def test_what_is_gone_is_taken_from_the_next_place(server: Server, cache: Cache) -> None:
    item = Item("model", (server.url("gone"), server.url("x")), SHA, len(CONTENT))
    assert fetch([item], cache, title="test")[SHA].exists()


def test_what_is_gone_everywhere_is_named(server: Server, cache: Cache) -> None:
    with pytest.raises(BuilderError, match="404") as caught:
        fetch([Item("model", (server.url("gone"),), SHA, 1)], cache, title="test")
    assert caught.value.code == Exit.FETCH
    assert "lock --update" in caught.value.hint


@pytest.fixture
def certificate(server: Server, tmp_path: Path) -> Path:
    """The server speaks https, with this certificate, which it made itself."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate)
    run([*made, "-subj", "/CN=proxy", "-addext", "subjectAltName=IP:127.0.0.1"], step="a certificate")
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(certificate, key)
    server.socket = secure.wrap_socket(server.socket, server_side=True)
    return certificate


def test_a_certificate_that_nobody_here_trusts_is_told_at_once_and_how_to_trust_it(
    server: Server, cache: Cache, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the way that the hint says is gone: with the certificate named, the file comes in."""
    url = server.url("x").replace("http", "https")
    item = Item("model", (url,), SHA, len(CONTENT))
    for ask in (lambda: fetch([item], cache, title="test"), lambda: get_bytes(url)):
        with pytest.raises(
            BuilderError, match="shows a certificate that this host does not trust: self"
        ) as caught:
            ask()
        assert caught.value.code is Exit.FETCH and f"127.0.0.1:{server.server_port}" in caught.value.message
        assert "tries" not in caught.value.message and "REQUESTS_CA_BUNDLE" in caught.value.hint
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    assert fetch([item], cache, title="test")[SHA].read_bytes() == CONTENT


def test_where_the_certificate_is_not_trusted_the_next_place_is_asked(
    server: Server, cache: Cache, certificate: Path
) -> None:
    with serving() as other:
        item = Item("model", (server.url("x").replace("http", "https"), other.url("x")), SHA, len(CONTENT))
        assert fetch([item], cache, title="test")[SHA].read_bytes() == CONTENT


def test_more_than_the_disk_holds_is_refused_before_it_starts(server: Server, cache: Cache) -> None:
    with pytest.raises(BuilderError, match=r"needs .* are free") as caught:
        fetch([Item("model", (server.url("x"),), SHA, 1 << 60)], cache, title="fetching the model")
    assert caught.value.code == Exit.TOOL
    assert server.asked == []


def test_the_same_bytes_under_two_names_come_once(server: Server, cache: Cache) -> None:
    items = [Item(name, (server.url(name),), SHA, len(CONTENT)) for name in ("one", "two", "three")]
    assert fetch_each(items, cache, title="test") == (cache.blob(SHA),) * 3
    assert len(server.asked) == 1


def test_the_paths_are_in_the_order_of_the_items(server: Server, cache: Cache) -> None:
    empty = hashlib.sha256(b"").hexdigest()
    items = [Item("a", (server.url("a"),), None), Item("b", (server.url("b"),), empty, 0)]
    assert fetch_each(items, cache, title="test") == (cache.blob(SHA), cache.blob(empty))
    assert cache.blob(empty).read_bytes() == b""


def test_the_first_failure_stops_the_others_and_keeps_what_they_have(server: Server, cache: Cache) -> None:
    server.waits = True
    slow = Item("slow", (server.url("slow"),), "a" * 64)
    with pytest.raises(BuilderError, match="gone could not be downloaded"):
        fetch([slow, Item("gone", (server.url("gone"),), "b" * 64)], cache, title="test")
    assert server.left.wait(30)
    assert cache.partial("a" * 64).stat().st_size >= 1 << 16


def on_a_small_disk(size: str, folder: Path, item: str, url: str) -> list[str]:
    """Fetch ``item`` to a disk of ``size`` that holds all but the last 10 bytes of CONTENT, if they fit."""
    (folder / "small").mkdir()
    (folder / "part").write_bytes(CONTENT[:-10])
    program = (
        "import sys; from pathlib import Path; from builder.cache import Cache; from builder.fetch import *\n"
        "cache = Cache(Path('small'))\n"
        f"try: fetch([{item}], cache, title='x'); print('fetched')\n"
        "except Exception as e: print(type(e).__name__, e.message, e.hint, sep='; ')\n"
        "print(sum(p.stat().st_size for p in Path('small').rglob('*') if p.is_file()))"
    )
    script = f'mount -t tmpfs -o size={size} t small; mkdir small/partial; cp part small/partial/{SHA}; exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", program, url]
    env = {"PYTHONPATH": str(Path(__file__).parents[2])}
    return run(argv, step="downloading to a small disk", cwd=folder, env=env).stdout.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_fills_up_is_named_and_the_part_is_kept(server: Server, tmp_path: Path) -> None:
    """Without a size nobody can know beforehand."""
    item = "Item('model', (sys.argv[1],), None)"
    said = on_a_small_disk("1280k", tmp_path, item, server.url("x"))
    assert said[0].startswith("BuilderError; downloading model: the disk of small/partial is full; ")
    assert "--cache" in said[0]
    assert int(said[1]) >= len(CONTENT) - 10 + (1 << 16)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_what_is_here_already_needs_no_room_again(server: Server, tmp_path: Path) -> None:
    """A large download that is nearly done must not be refused by a disk that is nearly full."""
    item = f"Item('model', (sys.argv[1],), '{SHA}', {len(CONTENT)})"
    said = on_a_small_disk("1280k", tmp_path, item, server.url("x"))
    assert said == ["fetched", str(len(CONTENT))]
    assert server.asked == [f"bytes={len(CONTENT) - 10}-"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_whole_and_each_large_file(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bars = Bars("models", 3 * LARGE, lines=2)
    with bars.file("one.gguf", LARGE) as one, bars.file("two.gguf", 2 * LARGE) as two:
        one(LARGE // 2)
        two(2 * LARGE)
        one(LARGE)
        with pytest.raises(IndexError), bars.file("three.gguf", LARGE):
            pass
    with bars.file("small.json", 10) as small:
        small(10)
    bars.close()
    shown = terminal.getvalue()
    for name in ("models:", "one.gguf:", "two.gguf:"):
        assert name in shown
    assert "small.json" not in shown


def test_without_a_terminal_there_are_no_bars(
    server: Server, cache: Cache, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch([Item("model", (server.url("x"),), SHA, len(CONTENT))], cache, title="test")
    assert capfd.readouterr() == ("", "")
