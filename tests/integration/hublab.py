"""Two real servers that play the hub and its content network, and what the tests of models by repository share."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from builder import inputs, lock, plan, resolve
from builder.cache import Cache
from builder.lock import Lock
from builder.spec.load import loads

TOKEN = "hf_" + "SecretSecretSecretSecret1234567890"
REPO = "org/name"
OLD, NEW = "a" * 40, "b" * 40
WEIGHTS = bytes(range(256)) * 2048
FILES = {
    "config.json": b'{"layers": 2}\n',
    "empty.txt": b"",
    "README.md": "Größe\n".encode(),
    "model-1.gguf": WEIGHTS,
    "sub folder/model-2.gguf": WEIGHTS[::-1],
    "sub folder/twin.gguf": WEIGHTS,
}
HEAD = """\
name: demo
network: {subnet: 10.77.0.0/24}
nodes: [{name: node1, match: {serial: A}}]
models:
"""
ANY = "  - repo: org/name\n"
GATED = "  - {repo: org/name, token_env: HF_TOKEN}\n"


class Server(ThreadingHTTPServer):
    """Notes every request: path, Authorization, Range."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.seen: list[tuple[str, str | None, str | None]] = []


class Hub(Server):
    """``trees``: commit → path → content. ``listing`` changes the API's answer before it is sent."""

    def __init__(self, content: Content) -> None:
        super().__init__(HubHandler)
        self.content = content
        self.trees = {OLD: FILES}
        self.main = OLD
        self.gated = False
        self.compressed = False
        self.readers = {TOKEN}  # tokens with access
        self.strangers = {"hf_stranger"}  # valid, without access
        self.listing: Any = lambda answer: answer


class Content(Server):
    """Serves bytes by digest, to whoever has a signed link. ``cuts``: answers that break off after a while."""

    def __init__(self) -> None:
        super().__init__(ContentHandler)
        self.host = "127.0.0.1"
        self.bytes: dict[str, bytes] = {}
        self.cuts = 0
        self.expired = 0

    def link(self, digest: str) -> str:
        return f"http://{self.host}:{self.server_port}/{digest}?signature=signed"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def note(self) -> None:
        self.server.seen.append((self.path, self.headers["Authorization"], self.headers["Range"]))

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def part(self, content: bytes) -> None:
        wanted = self.headers["Range"]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and start >= len(content):
            self.reply(416)
            return
        self.reply(206 if wanted else 200, content[start:])

    def log_message(self, *_args: object) -> None:
        pass


class HubHandler(Handler):
    server: Hub

    def do_GET(self) -> None:
        self.note()
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if token and token not in self.server.readers | self.server.strangers:
            self.reply(401, X_Error_Message="Invalid credentials in Authorization header")
        elif repo != REPO:
            self.reply(404 if token else 401, X_Error_Code="RepoNotFound")
        elif self.server.gated and not token:
            self.reply(401, X_Error_Code="GatedRepo")
        elif self.server.gated and token not in self.server.readers:
            self.reply(403, X_Error_Code="GatedRepo")
        elif api:
            self.list(parts[5], parse_qs(address.query))
        else:
            self.resolve(parts[3], "/".join(parts[4:]))

    def list(self, revision: str, query: dict[str, list[str]]) -> None:
        commit = self.server.main if revision == "main" else revision
        if commit not in self.server.trees:
            self.reply(404, X_Error_Code="RevisionNotFound")
            return
        assert query == {"blobs": ["true"]}
        siblings = [self.sibling(path, data) for path, data in self.server.trees[commit].items()]
        answer = self.server.listing({"id": REPO, "sha": commit, "siblings": siblings})
        self.reply(200, json.dumps(answer).encode(), Content_Type="application/json")

    def sibling(self, path: str, data: bytes) -> dict[str, Any]:
        sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": sha1}
        if path.endswith(".gguf"):
            sha256 = hashlib.sha256(data).hexdigest()
            self.server.content.bytes.setdefault(sha256, data)
            entry |= {"lfs": {"sha256": sha256, "size": len(data), "pointerSize": 134}}
        return entry

    def resolve(self, commit: str, path: str) -> None:
        data = self.server.trees.get(commit, {}).get(path)
        if data is None:
            self.reply(404, X_Error_Code="EntryNotFound")
        elif path.endswith(".gguf"):
            self.reply(302, Location=self.server.content.link(hashlib.sha256(data).hexdigest()))
        elif "gzip" in self.headers["Accept-Encoding"] and not self.headers["Range"]:
            self.server.compressed = True
            self.reply(200, gzip.compress(data), Content_Encoding="gzip")
        else:
            self.part(data)


class ContentHandler(Handler):
    server: Content

    def do_GET(self) -> None:
        self.note()
        if self.server.expired:
            self.server.expired -= 1
            self.reply(403)
            return
        data = self.server.bytes[urlsplit(self.path).path.strip("/")]
        if self.server.cuts:
            self.server.cuts -= 1
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            self.wfile.write(data[start : start + (1 << 16)])
            self.close_connection = True
            return
        self.part(data)


@contextlib.contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def content() -> Iterator[Content]:
    server = Content()
    with running(server):
        yield server


@pytest.fixture
def server(content: Content, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(content)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with running(server):
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def pinned(text: str, cache: Cache) -> plan.Plan:
    """A plan whose models are locked now, and that needs no package archive."""
    cluster = loads(HEAD + text)
    models, commits = resolve.models_of(cluster, Path(), cache)
    return plan.make(cluster, Lock(lock.asks_of(cluster), 0, (), models, (), commits))


def staged(todo: plan.Plan, cache: Cache) -> dict[str, bytes]:
    paths = inputs.models(todo, Path(), cache)
    return {model.name: paths[model.sha256].read_bytes() for model in todo.models}


def in_folder(folder: str, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    return {f"{folder}/{path}": data for path, data in files.items()}
