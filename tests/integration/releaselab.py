"""A server that publishes ISOs as Ubuntu does, and cuts, lies and lacks files; and somebody who signs."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from builder.media.ubunturelease import Trust
from builder.run import run


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
