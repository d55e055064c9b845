"""The door to the network, against a real HTTP server on this machine that can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.cache import Cache
from builder.errors import BuilderError, Exit
from builder.fetch import Item, fetch

CONTENT = bytes(range(256)) * 4096
SHA = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every path but /gone; ``cut`` connections are broken off half-way."""

    cut = 0
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        if self.path == "/gone":
            self.send_error(404)
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

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


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


def test_more_than_the_disk_holds_is_refused_before_it_starts(server: Server, cache: Cache) -> None:
    with pytest.raises(BuilderError, match=r"needs .* are free") as caught:
        fetch([Item("model", (server.url("x"),), SHA, 1 << 60)], cache, title="fetching the model")
    assert caught.value.code == Exit.TOOL
    assert server.asked == []
