"""The node's doctor with the real kernel: what it finds, and what it packs for whoever helps."""

from __future__ import annotations

import json
import os
import re
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from builder.firewall import Rule
from builder.run import run
from tests.integration.nodelab import (
    CLUSTER,
    DOCTOR,
    JOIN,
    JOINED,
    PLAN,
    RPC,
    RULES,
    SSH,
    SUBNET,
    WORKER,
    Node,
    eventually,
    listening,
    make_root,
    program,
)

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

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
    done = node.run(*node.tool(DOCTOR), "--root", node.root, "--bundle", target, check=False)
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
    done = lab[0].run(*lab[0].tool(DOCTOR), "--root", lab[0].root, "--bundle", target, check=False)
    assert done.returncode == 2
    assert "Is a directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


@pytest.mark.parametrize(("program", "option", "status"), [(DOCTOR, ["--root"], 2), (JOIN, [], 1)])
def test_a_machine_that_is_no_node_is_told_so(
    program: str, option: list[str], status: int, usr: Path, tmp_path: Path
) -> None:
    argv: list[str | Path] = [sys.executable, "-B", usr / program, *option]
    done = run([*argv, tmp_path], step="on no node", check=False)
    assert done.returncode == status
    assert "etc/builder/cluster.json: No such file or directory" in done.stderr

    root = make_root(tmp_path / "node1", "node1", engine={"name": "dask"})
    done = run([*argv, root], step="on a node without its engine", check=False)
    assert done.returncode == status
    assert "names the engine dask, and this image has nothing of it" in done.stderr
