"""The control service: what must be decided anew for each machine that asks.

    GET  /                    the page
    GET  /v1/state            how far every node is
    GET  /v1/boot/LOADER      what a machine boots; LOADER is ipxe or grub, ?mac=&uuid=&serial= say which machine
    GET  /v1/seed/ORDER/NAME  the NoCloud seed of Ubuntu's live system, while the order is in force
    GET  /v1/memory           ?order=&have=&need= in MiB: the same system's initramfs says whether it fits
    POST /v1/report           an installer says how far it is; its order is its right to say so
    POST /v1/order            {"nodes": [NAME, …]}: install these at their next boot     (token)
    POST /v1/take-back        {"nodes": [NAME, …]}: boot their disks                     (token)

GET /v1/memory changes what is shown, as GET /v1/boot does: a boot loader asks, and a wget that may know no POST.
It binds the cluster's address and no other. All that comes in is untrusted: sizes are bounded, and what is shown
was cut and made printable before (:mod:`builder.netboot.orders`).
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from builder import resources
from builder.installer import identify
from builder.installer.model import Machine, Match, Nic
from builder.netboot import configs, orders, view
from builder.netboot.configs import Loader, Site
from builder.netboot.store import Store
from builder.netboot.tree import SEED

BODY = 16 << 10  # bytes of a request that are read
TIMEOUT = 20  # seconds that a connection may be silent
_SEED = re.compile(r"/v1/seed/([0-9a-f]{16,64})/([a-z-]{1,20})")
_MEMORY = re.compile(r"order=([0-9a-f]{16,64})&have=([0-9]{1,9})&need=([0-9]{1,9})")
POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
PAGE: Mapping[str, tuple[str, str]] = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


@dataclass(frozen=True)
class Control:
    """What the service knows; ``say`` gets a line for whoever watches the server."""

    site: Site
    store: Store
    token: str
    say: Callable[[str], None]

    def boot(self, loader: Loader, query: Mapping[str, str], address: str) -> str:
        """What a machine boots."""
        card = configs.mac(query.get("mac", ""))
        if not card:
            return configs.local_script(loader, "This machine did not say its MAC address")
        uuid, serial = _word(query.get("uuid", "")), _word(query.get("serial", ""))
        name = self._name_of(Machine(nics=(Nic("boot", card, physical=True),), serial=serial, uuid=uuid))
        if name is None:
            self.say(f"{card} ({address}) is none of the nodes: it boots its disk")
            return self._of_stranger(loader, card, uuid, serial, address)

        def decide(state: orders.State, now: float) -> tuple[orders.State, str, bool]:
            word = state.nodes[name].order
            return (orders.loading(state, name, now) if word else state), word, False

        word = self.store.change(decide)
        if not word:
            self.say(f"{name} ({card}) asks what to boot: its disk")
            return configs.local_script(loader, f"{name} is not to be installed")
        self.say(f"{name} ({card}) asks what to boot: the installer")
        return configs.install_script(self.site, loader, name, word, card)

    def seed(self, order: str, name: str) -> bytes | None:
        """A file of the live system's seed; None where there is none, or if the order is not in force."""
        state, tree = self.store.state, self.site.tree
        node = state.node_of(order)
        if node is None or state.nodes[node].order != order or tree.live is None or name not in SEED:
            return None
        return (tree.seed / name).read_bytes()

    def memory(self, order: str, have: int, need: int) -> orders.Answer:
        """What the initramfs of Ubuntu's live system says, before it fetches the ISO; in MiB."""
        said = f"{have} MiB of memory, and {need} MiB are needed"
        news: dict[str, Any] = {"order": order, "phase": "iso", "line": f"fetches the ISO: {said}"}
        if have < need:
            news |= {"phase": "failed", "failed": "memory", "line": f"too little to hold Ubuntu's ISO: {said}"}
        return self.report(news)

    def report(self, news: Mapping[str, Any]) -> orders.Answer:
        """What an installer says."""

        def take(state: orders.State, now: float) -> tuple[orders.State, orders.Answer, bool]:
            after, answer = orders.report(state, news, self.site.tree.plan, now)
            self._tell(state, after)
            return after, answer, answer.lasting

        return self.store.change(take)

    def order(self, names: list[str]) -> None:
        """Install these at their next boot."""
        words = {name: secrets.token_hex(16) for name in names}
        self.store.change(lambda state, now: (orders.order(state, words, now), None, True))
        self.say(f"to be installed at the next boot: {', '.join(names)}")

    def take_back(self, names: list[str]) -> None:
        self.store.change(lambda state, now: (orders.take_back(state, names, now), None, True))
        self.say(f"not to be installed: {', '.join(names)}")

    def state(self) -> dict[str, Any]:
        about = {"cluster": self.site.cluster.name, "plan": self.site.tree.plan}
        return view.data(self.store.state, self.store.now(), about)

    def _name_of(self, machine: Machine) -> str | None:
        """The one node that this machine is, as far as a boot loader can tell; the installer looks again."""
        found = []
        for node in self.site.cluster.nodes:
            wanted = node.match
            # GRUB cannot tell a serial number that is no plain word, so a MAC or UUID that fits is enough here.
            serial = wanted.serial if machine.serial or not (wanted.mac or wanted.uuid) else None
            if identify.matches(machine, Match(wanted.mac or "", serial or "", wanted.uuid or "")):
                found.append(node.name)
        return found[0] if len(found) == 1 else None

    def _of_stranger(self, loader: Loader, card: str, uuid: str, serial: str, address: str) -> str:
        def note(state: orders.State, now: float) -> tuple[orders.State, None, bool]:
            return orders.stranger(state, orders.Stranger(card, uuid, serial, address, now)), None, False

        self.store.change(note)
        return configs.local_script(loader, f"{card} is none of the nodes")

    def _tell(self, before: orders.State, after: orders.State) -> None:
        for name, node in after.nodes.items():
            old = before.nodes[name]
            if node is not old and (node.phase, node.failed) != (old.phase, old.failed):
                what = f"failed in {node.failed}" if node.failed else node.phase
                self.say(f"{name}: {what}: {node.line}")


def _word(text: str) -> str:
    """What a machine says of itself, for people."""
    return "".join(c if c.isprintable() else "?" for c in text.strip()[:64])


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One connection. ``control`` is set by :func:`listening`."""

    control: Control
    protocol_version = "HTTP/1.1"
    server_version = "builder"
    sys_version = ""
    timeout = TIMEOUT

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        try:
            if url.path == "/v1/state":
                self._json(HTTPStatus.OK, self.control.state())
            elif url.path in ("/v1/boot/ipxe", "/v1/boot/grub"):
                query = {key: values[-1] for key, values in parse_qs(url.query).items()}
                loader: Loader = "ipxe" if url.path.endswith("ipxe") else "grub"
                script = self.control.boot(loader, query, self.client_address[0])
                self._send(HTTPStatus.OK, script.encode(), "text/plain; charset=utf-8")
            elif found := _SEED.fullmatch(url.path):
                seed = self.control.seed(*found.groups())
                if seed is None:
                    raise _RefusedError(HTTPStatus.NOT_FOUND, "there is no seed for this machine now")
                self._send(HTTPStatus.OK, seed, "text/plain; charset=utf-8")
            elif url.path == "/v1/memory":
                told = _MEMORY.fullmatch(url.query)
                if told is None:
                    raise _RefusedError(HTTPStatus.BAD_REQUEST, "this wants ?order=WORD&have=MIB&need=MIB")
                answer = self.control.memory(told[1], int(told[2]), int(told[3]))
                self._json(HTTPStatus.OK, {"go": answer.go, "why": answer.why})
            elif url.path in PAGE:
                name, kind = PAGE[url.path]
                content = (resources.root() / "templates" / "netboot" / name).read_bytes()
                self._send(HTTPStatus.OK, content, kind)
            else:
                raise _RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")
        except _RefusedError as error:
            self._json(error.status, {"error": str(error)})

    def do_HEAD(self) -> None:
        """GRUB that was booted over HTTP asks for the size first; any other answer than 200 ends its boot."""
        self.do_GET()

    def do_POST(self) -> None:
        try:
            news = self._body()
            match urlsplit(self.path).path:
                case "/v1/report":
                    answer = self.control.report(news)
                    self._json(HTTPStatus.OK, {"go": answer.go, "why": answer.why})
                case "/v1/order":
                    self.control.order(self._nodes(news))
                    self._json(HTTPStatus.OK, {})
                case "/v1/take-back":
                    self.control.take_back(self._nodes(news))
                    self._json(HTTPStatus.OK, {})
                case _:
                    raise _RefusedError(HTTPStatus.NOT_FOUND, "there is nothing here")
        except _RefusedError as error:
            self._json(error.status, {"error": str(error)})
        except OSError as error:  # the state could not be written: whoever asks must ask again
            self._json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": f"the state cannot be kept: {error.strerror}"})

    def _nodes(self, news: Mapping[str, Any]) -> list[str]:
        """The nodes of a call that changes something. Raises _RefusedError without the token, or for no node of
        ours."""
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self.control.token}".encode()):
            raise _RefusedError(HTTPStatus.UNAUTHORIZED, "this needs the token of `builder serve`")
        names = news.get("nodes")
        known = [node.name for node in self.control.site.cluster.nodes]
        if not isinstance(names, list) or not names or not all(name in known for name in names):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, f"nodes: name some of {', '.join(known)}")
        return names

    def _body(self) -> Mapping[str, Any]:
        told = self.headers.get("Content-Length", "")
        if not told.isdecimal() or int(told) > BODY:
            self.close_connection = True
            raise _RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body of at most {BODY} bytes is wanted")
        try:
            news = json.loads(self.rfile.read(int(told)))
        except (ValueError, RecursionError):
            news = None
        if not isinstance(news, dict):
            raise _RefusedError(HTTPStatus.BAD_REQUEST, "the body is no JSON object")
        return news

    def _json(self, status: HTTPStatus, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_args: object) -> None:
        """What matters is said by the control itself."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # a whole cluster is switched on at once

    def handle_error(self, *_args: object) -> None:
        """A client that went away; a bug of ours shows as a closed connection, and in the tests."""


@contextmanager
def listening(control: Control) -> Iterator[tuple[str, int]]:
    """Serve in threads until the block ends; yields the address and port. Raises OSError if it cannot bind."""
    handler = type("Handler", (_Handler,), {"control": control})
    with _Server((str(control.site.address), control.site.control_port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="control")
        thread.start()
        try:
            yield server.server_address[0], server.server_address[1]  # type: ignore[misc]
        finally:
            server.shutdown()
            thread.join()
            control.store.flush()
