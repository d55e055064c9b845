"""The node's tools with the real kernel: two network namespaces, a veth between them, the real nft and ip."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tarfile
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

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

ROOTFS = Path(__file__).parents[2] / "overlays/site/rootfs"
DOCTOR, JOIN = ROOTFS / "usr/bin/node-doctor", ROOTFS / "usr/lib/builder/join"
PLAN = "a" * 64
SUBNET = "10.77.0.0/24"
SSH = Rule("tcp", "22", None, "ssh")
RPC = Rule("tcp", "50052", SUBNET, "llama.cpp RPC")
JOINED = Rule("tcp", "50051", SUBNET, "builder-join")
RULES = (SSH, RPC, JOINED)
PATIENCE = 90  # seconds, for what comes within a few on a quiet machine

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


DROP_OLD = """
flush ruleset
table inet silence {
  chain out {
    type filter hook output priority 0; policy accept;
    tcp dport 50052 drop
  }
}
"""

CLIENT = """
import socket
worker = socket.create_connection(("10.77.0.12", 50052))
print("in", flush=True)
worker.recv(1)
"""


class Node:
    """A network namespace that is held by a sleeping process, and a root folder with the node's files."""

    def __init__(self, name: str, root: Path, pid: int) -> None:
        self.name, self.root, self.pid = name, root, pid

    def argv(self, *argv: str | Path) -> list[str | Path]:
        return ["nsenter", "--net", "--target", str(self.pid), "--", *argv]

    def run(self, *argv: str | Path, stdin: str | None = None, check: bool = True) -> Completed:
        return run(self.argv(*argv), step=f"on {self.name}", stdin=stdin, check=check)

    def doctor(self) -> dict[str, dict[str, str]]:
        done = self.run(sys.executable, "-B", DOCTOR, "--json", "--root", self.root, check=False)
        assert done.returncode in (0, 1), done.stderr
        return {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    def load(self, rules: tuple[Rule, ...] = RULES, more: str = "") -> None:
        """Load the firewall as the site layer renders it."""
        context = {"cluster": SimpleNamespace(name="pair"), "rules": rules}
        text = render.text("overlays/site/rootfs/etc/nftables.conf.j2", context)
        self.run("nft", "--file", "-", stdin=text + more)


def make_root(root: Path, name: str, **changes: Any) -> Path:
    content = b"weights"
    digest = hashlib.sha256(content).hexdigest()
    manifest = {
        "plan": PLAN,
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
    (root / "proc").symlink_to("/proc")
    return root


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """node1 and node2 on one wire, without a firewall."""
    with ExitStack() as stack:
        nodes = []
        for name in ("node1", "node2"):
            holder = stack.enter_context(start(["unshare", "--net", "sleep", "600"], step="a namespace"))
            stack.callback(holder.terminate)
            eventually(lambda pid=holder.pid: _separate(pid))  # type: ignore[misc]
            nodes.append(Node(name, make_root(tmp_path / name, name), holder.pid))
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


def listening(node: Node, port: int) -> Callable[[], bool]:
    return lambda: f":{port} " in node.run("ss", "--listening", "--tcp", "--numeric").stdout


FOREIGN = """
table inet docker {
  chain input {
    type filter hook input priority 0; policy accept;
    tcp dport 50000-50100 drop
  }
}
"""
STRICT = """
table ip other {
  chain in {
    type filter hook input priority 0; policy drop;
    tcp dport { 22, 50051 } accept
  }
}
"""
SECRET_COMMENT = """
table inet note {
  chain c {
    tcp dport 1 accept comment "api_key=PLANTEDcomment"
  }
}
"""


@pytest.mark.parametrize(
    ("rules", "more", "said"),
    [
        (RULES, "", None),
        ((SSH, JOINED), "", "tcp 50052 (llama.cpp RPC) is closed here: no rule lets it in in inet builder input"),
        ((SSH, JOINED, Rule("tcp", "50052", "10.77.0.12/32", "one")), "", "tcp 50052 (llama.cpp RPC) is closed"),
        ((SSH, JOINED, Rule("udp", "50052", SUBNET, "wrong")), "", "tcp 50052 (llama.cpp RPC) is closed"),
        ((SSH, Rule("tcp", "50000-50100", SUBNET, "a range")), "", None),
        ((SSH, Rule("tcp", "50051-50052", None, "wide")), "", None),
        ((Rule("tcp", "{ 22, 50051, 50052 }", None, "a set"),), "", None),
        ((SSH, Rule("tcp", "{ 50051, 50052 }", "10.77.0.0-10.77.0.255", "a range"),), "", None),
        (RULES, FOREIGN, "a rule before it drops or rejects in inet docker input"),
        (RULES, STRICT, "no rule lets it in in ip other in"),
    ],
)  # fmt: skip
def test_a_rule_that_is_missing_is_named(
    lab: tuple[Node, Node], rules: tuple[Rule, ...], more: str, said: str | None
) -> None:
    node = lab[0]
    node.load(rules, more)
    found = node.doctor()["ports here"]
    if said is None:
        assert found["state"] == "ok", found
    else:
        assert said in f"{found['what']}: {found['why']}"
        assert f"it should be: {RPC.as_nft} accept" in found["why"]
        assert found["do"]


def test_a_firewall_that_was_flushed_is_not_an_open_port(lab: tuple[Node, Node]) -> None:
    node = lab[0]
    node.load()
    node.run("nft", "flush", "ruleset")
    assert node.doctor()["ports here"]["what"] == "the firewall is not loaded"


def test_open_refused_dropped_and_unreachable_are_told_apart(lab: tuple[Node, Node]) -> None:
    one, two = lab
    with ExitStack() as stack:
        program(stack, two, WORKER)
        eventually(listening(two, 50052))
        two.load()
        assert one.doctor()["ports there"]["what"] == "node2:50052 open"
        two.load((SSH, JOINED))
        dropped = one.doctor()
        assert "node2:50052 (llama.cpp RPC) timed out" in dropped["ports there"]["what"]
        assert "a firewall drops" in dropped["ports there"]["why"]
        assert dropped["peers"]["state"] == "ok"
    two.load()
    refused = one.doctor()
    assert "node2:50052 (llama.cpp RPC) refused" in refused["ports there"]["what"]
    assert "llamacpp-rpc.service does not run" in refused["ports there"]["why"]
    two.run("ip", "address", "flush", "dev", "lab2")
    one.run("ip", "neighbour", "flush", "dev", "lab1")
    unreachable = one.doctor()
    assert "nobody answers ARP for its address" in unreachable["peers"]["why"]
    assert unreachable["ports there"]["state"] == "not run"


def test_a_cable_that_is_out_is_seen_where_the_address_is_missing(lab: tuple[Node, Node]) -> None:
    one, two = lab
    two.run("ip", "link", "set", "lab2", "down")
    one.run("ip", "address", "flush", "dev", "lab1")
    found = one.doctor()["address"]
    assert found["what"] == "the address 10.77.0.11 is missing"
    assert found["why"] == "no carrier on lab1"


def test_a_damaged_model_is_named(lab: tuple[Node, Node]) -> None:
    one, _ = lab
    (one.root / "srv/models/tiny.gguf").write_text("weighty")
    assert "tiny.gguf: damaged: sha256" in one.doctor()["models"]["why"]
    (one.root / "srv/models/tiny.gguf").unlink()
    assert one.doctor()["models"]["why"] == "tiny.gguf: missing"


def test_the_cluster_joins_loses_a_worker_and_gets_it_back(lab: tuple[Node, Node], tmp_path: Path) -> None:
    one, two = lab
    other = json.loads((two.root / "usr/share/builder/manifest.json").read_text())
    (two.root / "usr/share/builder/manifest.json").write_text(json.dumps({**other, "plan": "b" * 64}))
    for node in lab:
        node.load((*RULES, Rule("tcp", "8080", SUBNET, "llama.cpp API")))
    with ExitStack() as stack:
        logs = {}
        for node in lab:
            logs[node.name] = tmp_path / f"{node.name}.log"
            log = stack.enter_context(logs[node.name].open("wb"))
            argv = node.argv(sys.executable, "-B", JOIN, node.root)
            joiner = stack.enter_context(start(argv, step="builder-join", stdout=log, stderr=log))
            stack.callback(joiner.terminate)
        program(stack, one, HEAD)
        eventually(lambda: "node2: llamacpp-rpc.service is not running" in logs["node1"].read_text())
        worker = program(stack, two, WORKER)
        for node, plan in ((one, "a"), (two, "b")):
            console = node.root / "dev/console1"
            eventually(lambda c=console, p=plan: f"\nbuilder-joined 2/2 {p * 64}\n" in c.read_text())  # type: ignore[misc]
            assert "joined 2/2" in (node.root / "run/motd.d/builder").read_text()
            assert "http://10.77.0.11:8080/v1" in (node.root / "run/issue.d/builder.issue").read_text()

        found = one.doctor()
        assert found["joined"] == {"name": "joined", "state": "ok", "what": "joined 2/2"}
        assert found["ports there"]["what"] == "node2:50052 open"
        assert found["clock"]["state"] == "ok"
        assert "node2 has bbbbbbbbbbbb; this node has aaaaaaaaaaaa" in found["plan"]["why"]

        worker.kill()
        worker.wait()
        for node in lab:
            eventually(lambda n=node: "builder-not-joined 1/2" in (n.root / "dev/console1").read_text())  # type: ignore[misc]
            assert "  node2: llamacpp-rpc.service" in (node.root / "run/motd.d/builder").read_text()
        before = logs["node2"].read_text().count("builder-joined 2/2")
        program(stack, two, WORKER)
        eventually(lambda: logs["node2"].read_text().count("builder-joined 2/2") > before)
    assert not (one.root / "run/motd.d/builder").exists()


def test_looking_costs_a_serving_worker_no_place_in_its_queue(lab: tuple[Node, Node]) -> None:
    one, two = lab
    with ExitStack() as stack:
        joiner = stack.enter_context(start(two.argv(sys.executable, "-B", JOIN, two.root), step="builder-join"))
        stack.callback(joiner.terminate)
        # As ggml-rpc-server: one client at a time, two more may wait.
        program(stack, two, WORKER.replace("50052))", "50052), backlog=1)"))
        eventually(listening(two, 50052))
        eventually(listening(two, 50051))
        holder = program(stack, one, CLIENT)
        assert holder.stdout is not None and holder.stdout.readline() == b"in\n"
        for _ in range(4):
            assert one.doctor()["ports there"]["what"] == "node2:50052 open"
        connections = two.run("ss", "--tcp", "--numeric", "--all", "sport", "=", ":50052").stdout
        assert connections.count("10.77.0.11:") == 1, connections


def test_a_worker_whose_head_lost_its_power_is_restarted(lab: tuple[Node, Node], tmp_path: Path) -> None:
    """Its end of the connection stays for ever; the head, once it is back, knows nothing of it."""
    one, two = lab
    with ExitStack() as stack:
        program(stack, two, WORKER)
        eventually(listening(two, 50052))
        holder = program(stack, one, CLIENT)
        assert holder.stdout is not None and holder.stdout.readline() == b"in\n"
        # Nothing that the dying head's kernel says may get out, as when the power goes.
        one.run("ip", "link", "set", "lab1", "down")
        holder.kill()
        holder.wait()
        one.run("ss", "--kill", "dst", "10.77.0.12", check=False)
        eventually(lambda: "10.77.0.12:50052" not in one.run("ss", "-tn", "state", "established").stdout)
        # The wire comes back only when the kernel has given up on the old end, or its farewell would be heard.
        one.load((), more=DROP_OLD)
        one.run("ip", "link", "set", "lab1", "up")
        log = stack.enter_context((tmp_path / "node2.log").open("wb"))
        for node, output in ((one, log), (two, log)):
            argv = node.argv(sys.executable, "-B", JOIN, node.root)
            joiner = stack.enter_context(start(argv, step="builder-join", stdout=output, stderr=output))
            stack.callback(joiner.terminate)
        eventually(lambda: "restarting llamacpp-rpc.service" in (tmp_path / "node2.log").read_text())


SECRETS = {
    "var/log/cloud-init.log": "hashed_passwd: $y$j9T$abcdefgh$PLANTED0123456789",
    "var/log/builder/install.log": "fetching https://user:PLANTEDpassword@models.example/x",
    "var/log/builder/user-data": "PLANTED by name",
    "var/log/builder/shadow.1": "PLANTED by name",
    "var/log/cloud-init-output.log": "ssh-ed25519 AAAAPLANTEDPLANTEDPLANTEDPLANTED me",
    "etc/systemd/system/x.service": "[Service]\nEnvironment=HF_TOKEN=PLANTEDPLANTEDPLANTED",
    "etc/netplan/50-cloud-init.yaml": "wifis: {password: PLANTEDwifi}",
    "var/lib/cloud/seed/nocloud/user-data": "PLANTED and never looked at",
    "etc/shadow": "root:$6$saltsalt$PLANTED0123456789:1::",
}


def test_a_bundle_holds_the_state_and_no_secret(lab: tuple[Node, Node], tmp_path: Path) -> None:
    node = lab[0]
    for path, text in SECRETS.items():
        (node.root / path).parent.mkdir(parents=True, exist_ok=True)
        (node.root / path).write_text(f"before\n{text}\nafter\n")
    (node.root / "var/log/builder/innocent.log").symlink_to(node.root / "etc/shadow")
    node.load(more=SECRET_COMMENT)
    node.run("ip", "link", "set", "lab1", "alias", "password=PLANTEDalias")
    target = tmp_path / "help.tar.gz"
    done = node.run(sys.executable, "-B", DOCTOR, "--root", node.root, "--bundle", target, check=False)
    assert done.returncode == 1
    assert "secrets were left out" in done.stderr
    assert target.stat().st_mode & 0o777 == 0o600
    with tarfile.open(target) as archive:
        texts = {
            member.name.removeprefix("help/"): opened.read().decode()
            for member in archive
            if (opened := archive.extractfile(member)) is not None
        }
    leaks = {name: re.findall(r".*PLANTED.*", text) for name, text in texts.items() if "PLANTED" in text}
    assert leaks == {}
    assert "before" in texts["files/var/log/cloud-init.log"] and "after" in texts["files/var/log/cloud-init.log"]
    assert texts["files/var/log/builder/innocent.log"] == "[left out]"
    assert 'comment "llama.cpp RPC"' in texts["commands/nft.txt"]
    assert "10.77.0.11/24" in texts["commands/ip-address.txt"]
    assert json.loads(texts["files/etc/builder/cluster.json"]) == CLUSTER
    assert json.loads(texts["doctor.json"])["node"] == "node1"
    assert json.loads(texts["files/usr/share/builder/manifest.json"])["plan"] == PLAN
    assert "not installed" in texts["commands/gpu.txt"] or "NVIDIA" in texts["commands/gpu.txt"]


def test_a_bundle_that_cannot_be_written_leaves_nothing(lab: tuple[Node, Node], tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    argv = (sys.executable, "-B", DOCTOR, "--root", lab[0].root, "--bundle", target)
    done = lab[0].run(*argv, check=False)
    assert done.returncode == 2
    assert "Is a directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_without_an_engine_there_is_nothing_to_join(tmp_path: Path) -> None:
    root = make_root(tmp_path / "node1", "node1", engine={"name": "none"})
    done = run([sys.executable, "-B", JOIN, root], step="builder-join")
    assert done.stdout == "this cluster has no engine: nothing to join\n"
    assert (root / "dev/console1").read_text() == ""
    assert "nothing to join" in (root / "run/motd.d/builder").read_text()


@pytest.mark.parametrize("program", [DOCTOR, JOIN])
def test_a_machine_that_is_no_node_is_told_so(program: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["--root", tmp_path] if program is DOCTOR else [tmp_path]
    done = run([sys.executable, "-B", program, *arguments], step="on no node", check=False)
    assert done.returncode == (2 if program is DOCTOR else 1)
    assert "etc/builder/cluster.json: No such file or directory" in done.stderr
