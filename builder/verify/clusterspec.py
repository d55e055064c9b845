"""From a spec and its medium to the test of the whole cluster, its engine included."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from builder import engines, firewall
from builder.engines import llamacpp
from builder.lock import Lock
from builder.spec.model import Cluster
from builder.verify.clusterrequest import ClusterTest, Engine
from builder.verify.firmware import FirmwareKind
from builder.verify.report import StepFailed
from builder.verify.spec import boot_test_of
from builder.verify.ssh import Ssh

TOKENS = 16
# The tiny model's hidden state is 256 numbers of 2 bytes; a worker sends at least one a token, a real model more.
_BYTES_A_TOKEN = 512


def cluster_test_of(cluster: Cluster, lock: Lock, iso: Path, out: Path, *, firmware: FirmwareKind) -> ClusterTest:
    """The test of every node together. Raises BuilderError as :func:`builder.verify.spec.boot_test_of`."""
    nodes = tuple(
        boot_test_of(cluster, lock, node, iso, out / node.name, firmware=firmware, medium="cdrom")
        for node in cluster.nodes
    )
    inside = [
        rule for rule in firewall.rules(cluster) if rule.source and rule.proto == "tcp" and rule.ports.isdigit()
    ]
    engine = _llamacpp(cluster) if engines.of(cluster) is llamacpp.KIND else None
    return ClusterTest(
        nodes=nodes,
        out=out,
        head=engine.head if engine else cluster.nodes[0].name,
        engine=engine,
        inside_only=tuple(int(rule.ports) for rule in inside),
    )


def _llamacpp(cluster: Cluster) -> Engine:
    wanted, head = llamacpp.options(cluster), llamacpp.head(cluster)
    listens = {node.name: ((wanted.port,) if node.name == head else (wanted.rpc_port,)) for node in cluster.nodes}
    addresses = {node.name: str(node.address) for node in cluster.nodes if node.name != head}

    def evidence(nodes: Mapping[str, Ssh]) -> str:
        log = nodes[head].once("journalctl --unit llamacpp-server --output cat --no-pager").stdout
        found = []
        for name, address in addresses.items():
            held = re.findall(rf"\[{re.escape(address)}:{wanted.rpc_port}\] model buffer size = +(\S+ \S+)", log)
            if not held:
                raise StepFailed(f"the head gave {name} no part of the model", log[-4000:])
            counted = nodes[name].once(f"ss -tinH state established '( sport = :{wanted.rpc_port} )'").stdout
            sent = max((int(number) for number in re.findall(r"bytes_sent:(\d+)", counted)), default=0)
            if sent < TOKENS * _BYTES_A_TOKEN:
                raise StepFailed(f"{name} sent {sent} bytes, too few for {TOKENS} tokens", counted)
            found.append(f"{name} holds {held[-1]} of the model and sent {sent} bytes")
        return "; ".join(found)

    return Engine(head=head, port=wanted.port, listens=listens, complete=complete, evidence=evidence)


def complete(base_url: str) -> str:
    """One completion of an OpenAI API. Raises OSError or ValueError if there is none."""
    body = json.dumps({"prompt": "Subject to the terms", "max_tokens": TOKENS, "temperature": 0}).encode()
    request = urllib.request.Request(f"{base_url}/v1/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        text = str(json.load(reply)["choices"][0]["text"])
    if not text:
        raise ValueError("the completion is empty")
    return text
