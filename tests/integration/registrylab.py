"""Registries for the tests: Debian's docker-registry, and one that asks for tokens and gives blobs by redirect."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import runpy
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from builder.cache import Cache, default_root
from builder.containers import staging
from builder.distributions import distribution, source_of_packages
from builder.fetch import Item, fetch
from builder.run import run
from builder.sources import apt, mirror
from builder.spec.load import loads

ROOT = Path(__file__).parents[2]
NAME = "lab/hello"


def tiny(architecture: str = "amd64") -> dict[str, bytes]:
    """The files of the archive that tools/make-tiny-image makes."""
    data: bytes = runpy.run_path(str(ROOT / "tools/make-tiny-image"))["archive"](architecture)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """Debian's docker-registry at ``host``, with a way to put images there."""

    def __init__(self, host: str) -> None:
        self.host = host

    def push(self, files: dict[str, bytes], tag: str, index: Any = None) -> str:
        """Push an archive's blobs, and its manifest (or ``index``, an index around it) as ``tag``; its digest."""
        base = f"http://{self.host}/v2/{NAME}"
        entry = json.loads(files["index.json"])["manifests"][0]
        manifest = files["blobs/sha256/" + entry["digest"].partition(":")[2]]
        for name, data in files.items():
            if name.startswith("blobs/") and data != manifest:
                where = requests.post(f"{base}/blobs/uploads/", timeout=30).headers["Location"]
                _good(requests.put(where, params={"digest": digest(data)}, data=data, timeout=30))
        self._manifest(base, digest(manifest) if index else tag, manifest)
        if index:
            manifest = json.dumps(index).encode()
            self._manifest(base, tag, manifest)
        return digest(manifest)

    def _manifest(self, base: str, reference: str, data: bytes) -> None:
        kind = json.loads(data)["mediaType"]
        headers = {"Content-Type": kind}
        _good(requests.put(f"{base}/manifests/{reference}", data=data, headers=headers, timeout=30))


def _good(reply: requests.Response) -> None:
    assert reply.ok, f"{reply.url}: {reply.status_code} {reply.text}"


@pytest.fixture(scope="session")
def registry_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """docker-registry, from Debian's archive through the builder's own door, unpacked and not installed."""
    target = distribution("debian", "13", "generic")
    source = source_of_packages("debian", "trixie")
    where = mirror.choose(None, target)
    found = apt.resolve_part(source, where, ["docker-registry"])
    (package,) = (package for package in found if package.name == "docker-registry")
    item = Item(package.file_name, where.urls(package.archive, package.path), package.sha256, package.size)
    (deb,) = fetch([item], Cache(default_root()), title="docker-registry").values()
    folder = tmp_path_factory.mktemp("docker-registry")
    run(["dpkg-deb", "--extract", deb, folder], step="unpacking docker-registry")
    return folder / "usr/bin/docker-registry"


@pytest.fixture
def registry(registry_program: Path, tmp_path: Path) -> Iterator[Registry]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "registry.yaml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\n"
        f"http: {{addr: {host}, secret: lab}}\n"
    )
    with subprocess.Popen([registry_program, "serve", config], stderr=subprocess.PIPE) as process:
        try:
            _wait(process, host)
            yield Registry(host)
        finally:
            process.terminate()


def _wait(process: subprocess.Popen[bytes], host: str) -> None:
    name, _, port = host.partition(":")
    for _ in range(300):
        assert process.poll() is None, process.stderr and process.stderr.read()
        with contextlib.suppress(OSError), socket.create_connection((name, int(port)), timeout=1):
            return
        threading.Event().wait(0.1)
    raise AssertionError("docker-registry does not listen")


class Guarded(ThreadingHTTPServer):
    """As Docker Hub does it: a token even for what is public, and blobs by a redirect to another host.

    ``seen``: path and Authorization of every request. A token is good until ``expire``.
    """

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.tag = json.loads(files["index.json"])["manifests"][0]["digest"]
        self.seen: list[tuple[str, str]] = []
        self.given = 0
        self.expired = 0
        self.private = False

    def expire(self) -> None:
        """From now on another token is wanted."""
        self.expired = self.given

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Guarded

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        lab, path = self.server, self.path.partition("?")[0]
        authorization = self.headers.get("Authorization", "")
        lab.seen.append((self.path, authorization))
        if path == "/token":
            lab.given += 1
            self._send(200, json.dumps({"token": f"t{lab.given}"}).encode())
        elif path.startswith("/content/"):
            self._send(200, lab.files["blobs/sha256/" + path.rpartition("/")[2]])
        elif lab.private or lab.given == lab.expired or authorization != f"Bearer t{lab.given}":
            realm = f"http://127.0.0.1:{lab.port}/token"
            scope = f"repository:{NAME}:pull"
            self._send(401, b"{}", {"WWW-Authenticate": f'Bearer realm="{realm}",service="lab",scope="{scope}"'})
        elif "/manifests/" in path:
            asked = path.rpartition("/")[2]
            wanted = lab.tag if asked == "1" else asked
            self._send(200, lab.files["blobs/sha256/" + wanted.partition(":")[2]])
        else:
            # Another name for this machine: to a client it is another host.
            place = f"http://localhost:{lab.port}/content/{path.rpartition(':')[2]}"
            self._send(307, b"", {"Location": place})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with Guarded(tiny()) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def images(cache: Cache, folder: Path, text: str) -> tuple[Any, ...]:
    """What the lock pins for the images of a spec."""
    head = "name: demo\nnetwork: {subnet: 10.77.0.0/24}\nnodes: [{name: node1, match: {serial: A}}]\n"
    cluster = loads(f"{head}runtime: docker\nimages:\n{text}", base=folder)
    return tuple(staging.pin(image, folder, cache) for image in cluster.images)
