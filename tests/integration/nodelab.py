"""Two nodes as network namespaces with a wire between them, for the tests of the node's own tools."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen
from types import SimpleNamespace
from typing import Any

import pytest

from builder import render
from builder.firewall import Rule
from builder.run import Completed, run, start
from tests import nodetools

DOCTOR, JOIN = "bin/node-doctor", "lib/builder/join"
PLAN = "a" * 64
SUBNET = "10.77.0.0/24"
SSH = Rule("tcp", "22", None, "ssh")
RPC = Rule("tcp", "50052", SUBNET, "llama.cpp RPC")
JOINED = Rule("tcp", "50051", SUBNET, "builder-join")
RULES = (SSH, RPC, JOINED)
PATIENCE = 300  # seconds, for what comes within a few on a quiet machine; a busy one took more than 90

CLUSTER: dict[str, Any] = {
    "cluster": "pair",
    "subnet": SUBNET,
    "nodes": [{"name": "node1", "address": "10.77.0.11"}, {"name": "node2", "address": "10.77.0.12"}],
    "engine": {
        "name": "llamacpp",
        "head": "node1",
        "api": {"port": 8080},
        "rpc": {"port": 50052},
        "model": "tiny.gguf",
        "units": {"head": ["llamacpp-server.service"], "worker": ["llamacpp-rpc.service"]},
    },
    "join": {"port": 50051},
    "ports": [vars(rule) for rule in RULES],
}

# What the engine's programs look like from outside: the head's /health, and its one connection to the worker.
WORKER = """
import socket
server = socket.create_server(("0.0.0.0", 50052))
while True:
    client, _ = server.accept()
    client.recv(1)
"""
HEAD = """
import http.server, socket, threading, time
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"status":"ok"}')
    def log_message(self, *args): pass
threading.Thread(target=http.server.HTTPServer(("0.0.0.0", 8080), Health).serve_forever, daemon=True).start()
while True:
    try:
        with socket.create_connection(("10.77.0.12", 50052), 2) as worker:
            worker.settimeout(None)
            worker.recv(1)
    except OSError:
        pass
    time.sleep(0.2)
"""


class Node:
    """A network namespace that is held by a sleeping process, and a root folder with the node's files.

    ``usr``: where the node's tools are; as those of all nodes are the same, one folder does.
    """

    def __init__(self, name: str, root: Path, pid: int, usr: Path) -> None:
        self.name, self.root, self.pid, self.usr = name, root, pid, usr

    def argv(self, *argv: str | Path) -> list[str | Path]:
        return ["nsenter", "--net", "--target", str(self.pid), "--", *argv]

    def run(self, *argv: str | Path, stdin: str | None = None, check: bool = True) -> Completed:
        return run(self.argv(*argv), step=f"on {self.name}", stdin=stdin, check=check)

    def tool(self, name: str) -> list[str | Path]:
        """The beginning of a command that runs one of the node's programs."""
        return [sys.executable, "-B", self.usr / name]

    def doctor(self) -> dict[str, dict[str, str]]:
        done = self.run(*self.tool(DOCTOR), "--json", "--root", self.root, check=False)
        assert done.returncode in (0, 1), done.stderr
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    def load(self, rules: tuple[Rule, ...] = RULES, more: str = "") -> None:
        """Load the firewall as the site layer renders it."""
        context = {"cluster": SimpleNamespace(name="pair"), "rules": rules}
        text = render.text("overlays/site/rootfs/etc/nftables.conf.j2", context)
        self.run("nft", "--file", "-", stdin=text + more)


def make_root(root: Path, name: str, plan: str = PLAN, **changes: Any) -> Path:
    """Write a node's files below ``root``; ``changes`` are keys of its cluster.json."""
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    manifest = {
        "plan": plan,
        "models": [{"name": "tiny.gguf", "path": f"models/{digest}"}],
        "files": [{"path": f"models/{digest}", "size": len(content), "sha256": digest}],
    }
    files = {
        "etc/builder/cluster.json": json.dumps({**CLUSTER, **changes}),
        "etc/builder/node": f"{name}\n",
        "usr/share/builder/manifest.json": json.dumps(manifest),
        "srv/models/tiny.gguf": content.decode(),
        "sys/class/tty/console/active": "console1\n",
        "dev/console1": "",
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    if not (root / "proc").exists():
        (root / "proc").symlink_to("/proc")
    return root


@pytest.fixture(scope="module")
def usr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the node's tools, laid out of the overlays as on a node."""
    return nodetools.lay_out(tmp_path_factory.mktemp("node"), "llamacpp", "none")


@pytest.fixture
def lab(tmp_path: Path, usr: Path) -> Iterator[tuple[Node, Node]]:
    """node1 and node2 on one wire, without a firewall."""
    with ExitStack() as stack:
        nodes = []
        for name in ("node1", "node2"):
            holder = stack.enter_context(start(["unshare", "--net", "sleep", "3600"], step="a namespace"))
            stack.callback(holder.terminate)
            eventually(lambda pid=holder.pid: _separate(pid))  # type: ignore[misc]
            nodes.append(Node(name, make_root(tmp_path / name, name), holder.pid, usr))
        one, two = nodes
        ends = ("lab1", "netns", str(one.pid), "type", "veth", "peer", "lab2", "netns", str(two.pid))
        run(["ip", "link", "add", *ends], step="a wire")
        for number, node in enumerate(nodes, 1):
            node.run("ip", "link", "set", "lo", "up")
            node.run("ip", "address", "add", f"10.77.0.1{number}/24", "dev", f"lab{number}")
            node.run("ip", "link", "set", f"lab{number}", "up")
        yield one, two


def _separate(pid: int) -> bool:
    """Whether a process has left our network namespace."""
    return Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def eventually(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def program(stack: ExitStack, node: Node, text: str) -> Popen[bytes]:
    """Start a Python program on a node, until the stack ends."""
    process = stack.enter_context(start(node.argv(sys.executable, "-c", text), step="a program", stdout=PIPE))
    stack.callback(process.kill)
    return process


def joining(stack: ExitStack, node: Node, log: Path) -> Popen[bytes]:
    """Start builder-join on a node, until the stack ends; what it says is added to ``log``."""
    output = stack.enter_context(log.open("ab"))
    argv = node.argv(*node.tool(JOIN), node.root)
    process = stack.enter_context(start(argv, step="builder-join", stdout=output, stderr=output))
    stack.callback(process.terminate)
    return process


def listening(node: Node, port: int) -> Callable[[], bool]:
    return lambda: f":{port} " in node.run("ss", "--listening", "--tcp", "--numeric").stdout
