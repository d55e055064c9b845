"""builder-join with the real kernel: a cluster that forms, loses a node and gets it back."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from builder.firewall import Rule
from builder.run import run
from tests.integration.nodelab import (
    CLUSTER,
    HEAD,
    JOIN,
    RULES,
    SUBNET,
    WORKER,
    Node,
    eventually,
    joining,
    listening,
    make_root,
    program,
)

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

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


def test_the_cluster_joins_loses_a_worker_and_gets_it_back(lab: tuple[Node, Node], tmp_path: Path) -> None:
    one, two = lab
    make_root(two.root, "node2", plan="b" * 64)
    for node in lab:
        node.load((*RULES, Rule("tcp", "8080", SUBNET, "llama.cpp API")))
    with ExitStack() as stack:
        logs = {node.name: tmp_path / f"{node.name}.log" for node in lab}
        for node in lab:
            joining(stack, node, logs[node.name])
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


A, B = "a" * 12, "b" * 12


def test_a_node_of_another_plan_is_refused_where_the_spec_says_so(lab: tuple[Node, Node], tmp_path: Path) -> None:
    """All else is well, so that without the rule they would have joined (see above)."""
    one, two = lab
    rule = {"port": 50051, "mixed_plans": "refuse"}
    make_root(one.root, "node1", plan="a" * 64, join=rule)
    make_root(two.root, "node2", plan="b" * 64, join=rule)
    said = {one: tmp_path / "node1.log", two: tmp_path / "node2.log"}
    with ExitStack() as stack:
        program(stack, two, WORKER)
        program(stack, one, HEAD)
        old = joining(stack, two, said[two])
        eventually(listening(two, 50051))
        joining(stack, one, said[one])
        refused = f"node2: has plan {B}, and node1 has {A}"
        eventually(lambda: f"builder-not-joined 1/2 {'a' * 64}: {refused}\n" in said[one].read_text())
        mutual = f"node1: has plan {A}, and node2 has {B}; {refused}"
        eventually(lambda: f"builder-not-joined 0/2 {'b' * 64}: {mutual}\n" in said[two].read_text())
        assert refused in (one.root / "run/motd.d/builder").read_text()
        found = one.doctor()
        assert (found["joined"]["what"], found["joined"]["why"]) == ("joined 1/2", refused)
        assert found["plan"]["what"] == "node2: another plan than here, which the spec refuses"

        old.terminate()
        old.wait()
        make_root(two.root, "node2", plan="a" * 64, join=rule)  # reinstalled from the same stick
        joining(stack, two, said[two])
        eventually(lambda: f"builder-joined 2/2 {'a' * 64}\n" in said[one].read_text())
    assert f"builder-joined 2/2 {'b' * 64}" not in said[two].read_text()


def test_looking_costs_a_serving_worker_no_place_in_its_queue(lab: tuple[Node, Node], tmp_path: Path) -> None:
    one, two = lab
    with ExitStack() as stack:
        joining(stack, two, tmp_path / "node2.log")
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
        for node in lab:
            joining(stack, node, tmp_path / "both.log")
        eventually(lambda: "restarting llamacpp-rpc.service" in (tmp_path / "both.log").read_text())


def test_without_an_engine_there_is_nothing_to_join(usr: Path, tmp_path: Path) -> None:
    root = make_root(tmp_path / "node1", "node1", engine={"name": "none"})
    done = run([sys.executable, "-B", usr / JOIN, root], step="builder-join")
    assert done.stdout == "this cluster has no engine: nothing to join\n"
    assert (root / "dev/console1").read_text() == ""
    assert "nothing to join" in (root / "run/motd.d/builder").read_text()


def test_multicast_that_a_firewall_drops_is_named_with_its_direction(
    lab: tuple[Node, Node], tmp_path: Path
) -> None:
    one, two = lab
    engine = {**CLUSTER["engine"], "multicast": {"group": "224.0.0.251", "port": 5353, "instead": ""}}
    rules = (*RULES, Rule("udp", "5353", SUBNET, "discovery"))
    with ExitStack() as stack:
        for node in lab:
            make_root(node.root, node.name, engine=engine, ports=[vars(rule) for rule in rules])
            node.load(rules)
            joining(stack, node, tmp_path / f"{node.name}.log")
        good = {"name": "multicast", "state": "ok", "what": "224.0.0.251, udp 5353: to and from 1 nodes"}
        eventually(lambda: one.doctor()["multicast"] == good)
        two.load(RULES)  # without the opening
        lost = "multicast (224.0.0.251, udp 5353): from here it does not arrive at node2"
        eventually(lambda: one.doctor()["multicast"].get("what") == lost)
        assert "udp 5353 (discovery) is closed here" in two.doctor()["ports here"]["what"]
