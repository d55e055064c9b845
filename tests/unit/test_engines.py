"""Engines: what a spec may say of them, and what the rest of the builder makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder import engines, firewall, plan
from builder.errors import SpecError
from builder.spec.load import loads
from builder.spec.model import Cluster

HEAD = """name: pair
network: {subnet: 10.0.0.0/24}
nodes:
  - {name: a, match: {mac: "52:54:00:00:00:01"}, address: 10.0.0.2}
  - {name: b, match: {mac: "52:54:00:00:00:02"}, address: 10.0.0.3}
  - {name: c, match: {mac: "52:54:00:00:00:03"}, address: 10.0.0.4}
"""
MODELS = "models: [{name: tiny.gguf, path: tiny.gguf}, {name: notes.txt, path: tiny.gguf}]\n"


def spec(tmp_path: Path, text: str, *, models: str = MODELS) -> Cluster:
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    return loads(HEAD + models + text + "\n", base=tmp_path)


def mistakes(tmp_path: Path, text: str, *, models: str = MODELS) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec(tmp_path, text, models=models)
    return [f"{mistake.path}: {mistake.message} | {mistake.hint}" for mistake in caught.value.mistakes]


def test_a_name_alone_chooses_an_engine_with_its_defaults(tmp_path: Path) -> None:
    cluster = spec(tmp_path, "engine: llamacpp")
    facts = engines.of(cluster).facts(cluster)
    assert (facts["head"], facts["model"]) == ("a", "tiny.gguf")
    assert facts["workers"] == ["10.0.0.3:50052", "10.0.0.4:50052"]


def test_no_engine_stays_valid(tmp_path: Path) -> None:
    cluster = spec(tmp_path, "engine: none")
    assert engines.of(cluster).part is None
    assert [layer.name for layer in plan.make(cluster, None).layers] == ["base", "site"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engine: lamacpp", "engine.name: no engine is called lamacpp | did you mean llamacpp?"),
        ("engine: {head: a}", "engine.name: is missing | known: none, llamacpp"),
        ("engine: {name: llamacpp, hed: a}", "engine.hed: unknown key | did you mean head?"),
        ("engine: {name: llamacpp, head: z}", "engine.head: no node is called z | nodes: a, b, c"),
        ("engine: {name: llamacpp, head: [a, b]}", "engine.head: must be a single value, not a list | "),
        ("engine: {name: llamacpp, model: x.gguf}", "engine.model: no model is called x.gguf"),
        ("engine: {name: llamacpp, model: notes.txt}", "engine.model: notes.txt is not a GGUF"),
        ("engine: {name: llamacpp, port: 50052}", "engine: llama.cpp API and llama.cpp RPC both want port 50052"),
        ("engine: {name: llamacpp, port: 50051}", "engine: llama.cpp API and builder-join both want port 50051"),
        ("engine: {name: llamacpp, port: 70000}", "engine.port: is not a port: ports go from 1 to 65535"),
        ("engine: {name: llamacpp, context: 1}", "engine.context: must be 128 to 1048576 tokens"),
        (
            "engine: llamacpp\nfirewall: {allow: [{port: 8000-8100}]}",
            "firewall.allow[0]: covers port 8080, which is opened for llama.cpp API",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, told: str) -> None:
    assert any(mistake.startswith(told) for mistake in mistakes(tmp_path, text)), mistakes(tmp_path, text)


def test_two_models_need_a_choice(tmp_path: Path) -> None:
    two = "models: [{name: x.gguf, path: tiny.gguf}, {name: y.gguf, path: tiny.gguf}]\n"
    assert "it is not clear which model to serve" in mistakes(tmp_path, "engine: llamacpp", models=two)[0]
    assert "needs a model" in mistakes(tmp_path, "engine: llamacpp", models="")[0]


def test_workers_need_addresses_that_are_known_before(tmp_path: Path) -> None:
    text = HEAD.replace("10.0.0.4", "dhcp") + MODELS + "engine: llamacpp\n"
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(SpecError, match=r"nodes\[2\]\.address: llama\.cpp names its workers by address"):
        loads(text, base=tmp_path)


def test_firewall_units_and_facts_follow_from_the_engine(tmp_path: Path) -> None:
    text = "engine: {name: llamacpp, head: b, port: 9000, clients: 192.168.7.0/24}"
    cluster = spec(tmp_path, text)
    opened = [rule.as_nft for rule in firewall.rules(cluster)]
    assert "ip saddr 10.0.0.0/24 tcp dport 50052" in opened
    assert "ip saddr 192.168.7.0/24 tcp dport 9000" in opened
    files = plan.make(cluster, None).files("a")
    server = files["/etc/systemd/system/llamacpp-server.service"].decode()
    assert "ConditionHost=b\n" in server
    assert "--rpc 10.0.0.2:50052,10.0.0.4:50052\n" in server
    assert "ConditionHost=!b\n" in files["/etc/systemd/system/llamacpp-rpc.service"].decode()
    facts = json.loads(files["/etc/builder/cluster.json"])
    assert facts["engine"]["name"] == "llamacpp"
    assert [node["name"] for node in facts["nodes"]] == ["a", "b", "c"]


def test_the_stack_is_named_so_that_ubuntu_s_installer_could_stack_it(tmp_path: Path) -> None:
    layers = plan.make(spec(tmp_path, "engine: llamacpp"), None).layers
    assert [layer.file for layer in layers] == [
        "node.squashfs",
        "node.engine.squashfs",
        "node.engine.site.squashfs",
    ]


@pytest.mark.parametrize("name", list(engines.ENGINES))
def test_every_engine_has_one_shape(name: str) -> None:
    kind = engines.ENGINES[name]
    assert kind.name == name
    overlay = Path(__file__).parents[2] / "overlays" / kind.overlay
    assert overlay.is_dir() == (kind.part is not None)
