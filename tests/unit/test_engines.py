"""Engines: what a spec may say of them, and what the rest of the builder makes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from builder import engines, firewall, lock, plan
from builder.engines.llamacpp import model as gguf
from builder.errors import SpecError
from builder.lock import Lock, LockedModel
from builder.spec.load import loads
from builder.spec.model import Cluster
from tests import nodetools

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
    facts = engines.of(cluster).facts(cluster, None)
    assert (facts["head"], facts["model"]) == ("a", "tiny.gguf")
    assert facts["workers"] == ["10.0.0.3:50052", "10.0.0.4:50052"]


def test_no_engine_stays_valid(tmp_path: Path) -> None:
    cluster = spec(tmp_path, "engine: none")
    assert engines.of(cluster).part(cluster) is None
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
        ("engine: {name: llamacpp, model: tiny.gguf/x.gguf}", "engine.model: no model is called tiny.gguf/x.gguf"),
        ("engine: {name: llamacpp, model: /x.gguf}", 'engine.model: "/x.gguf" must be a name out of models'),
        ("engine: {name: llamacpp, model: a/../x.gguf}", 'engine.model: "a/../x.gguf" is not the plain name of a'),
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
    (unclear,) = mistakes(tmp_path, "engine: llamacpp", models=two)
    assert "it is not clear which model to serve | say so under engine.model; there is: x.gguf, y.gguf" in unclear
    assert "needs a model" in mistakes(tmp_path, "engine: llamacpp", models="")[0]
    assert len(mistakes(tmp_path, "engine: {name: llamacpp, model: ../x}", models=two)) == 1


REPO = "models: [{repo: org/name}]\n"
BOTH = "models: [{name: tiny.gguf, path: tiny.gguf}, {repo: org/name}]\n"
PARTS = tuple(f"org--name/q4/x-0000{n}-of-00003.gguf" for n in (1, 2, 3))


def test_the_parts_of_a_model() -> None:
    assert gguf.parts(PARTS[1]) == PARTS
    for whole in ("x.gguf", "x-00000-of-00000.gguf", "x-00004-of-00003.gguf", "x-1-of-3.gguf", "x-00001-of-00003"):
        assert gguf.parts(whole) == (whole,)


def locked(cluster: Cluster, *names: str) -> plan.Plan:
    """The plan of a cluster whose models turned out to be these files, of 1000 bytes each."""
    files = tuple(LockedModel(name, f"{n:064x}", 1000) for n, name in enumerate(names))
    return plan.make(cluster, Lock(lock.asks_of(cluster), 0, (), files))


@pytest.mark.parametrize(
    ("models", "choice", "names", "served", "parts"),
    [
        (REPO, "", ("org--name/README.md", "org--name/x.gguf"), "org--name/x.gguf", 1),
        (REPO, "", PARTS, PARTS[0], 3),
        (REPO, PARTS[0], (*PARTS, "org--name/y.gguf"), PARTS[0], 3),
        (BOTH, "", ("tiny.gguf", "org--name/README.md"), "tiny.gguf", 1),
        (BOTH, "tiny.gguf", ("tiny.gguf", *PARTS), "tiny.gguf", 1),
        (BOTH, "org--name/y.gguf", ("tiny.gguf", "org--name/y.gguf"), "org--name/y.gguf", 1),
    ],
)
def test_the_model_may_be_a_file_of_a_repository(
    tmp_path: Path, models: str, choice: str, names: tuple[str, ...], served: str, parts: int
) -> None:
    """What it is called is known with the lock; the unit, the facts and the sizes then agree on it."""
    text = f"engine: {{name: llamacpp{f', model: {choice}' if choice else ''}}}"
    cluster = spec(tmp_path, text, models=models)
    files = locked(cluster, *names).files("a")
    assert json.loads(files["/etc/builder/cluster.json"])["engine"]["model"] == served
    server = files["/etc/systemd/system/llamacpp-server.service"].decode()
    assert f" --model /srv/models/{served} \\\n" in server
    minimum = engines.of(cluster).minimum(cluster, dict.fromkeys(names, 1))
    assert len(minimum.weights) == parts
    assert minimum.weights[0] == served


@pytest.mark.parametrize(
    ("models", "choice", "names", "told"),
    [
        (REPO, "", (), "engine: llama.cpp needs a model, a GGUF"),
        (REPO, "", ("org--name/x.safetensors",), "engine: llama.cpp needs a model, a GGUF"),
        (REPO, "", ("org--name/x.gguf", "org--name/y.gguf"), "engine: it is not clear which model to serve"),
        (BOTH, "", ("tiny.gguf", "org--name/x.gguf"), "there is: tiny.gguf, org--name/x.gguf"),
        (REPO, "", ("org--name/my x.gguf",), "a name that cannot stand in a unit"),
        (REPO, "", PARTS[:2], f"engine: the model {PARTS[0]} lacks 1 of its 3 parts: {PARTS[2]}"),
        (REPO, "org--name/y.gguf", PARTS, f"no model is called org--name/y.gguf (there is: {PARTS[0]})"),
    ],
)
def test_what_the_lock_shows_to_be_wrong(
    tmp_path: Path, models: str, choice: str, names: tuple[str, ...], told: str
) -> None:
    cluster = spec(tmp_path, f"engine: {{name: llamacpp{f', model: {choice}' if choice else ''}}}", models=models)
    plan.make(cluster, None)
    with pytest.raises(SpecError) as caught:
        locked(cluster, *names)
    assert told in caught.value.message
    assert "pair with its lock: 1 mistake" in caught.value.message


def test_a_lock_of_another_spec_shows_nothing(tmp_path: Path) -> None:
    cluster = spec(tmp_path, "engine: llamacpp", models=REPO)
    assert plan.mistakes(cluster, Lock({}, 0, (), ())) == ()


def test_before_the_lock_a_unit_does_not_pretend_to_know(tmp_path: Path) -> None:
    files = plan.make(spec(tmp_path, "engine: llamacpp", models=BOTH), None).files("a")
    assert json.loads(files["/etc/builder/cluster.json"])["engine"]["model"] is None
    assert b"/srv/models/decided-by-the-lock.gguf" in files["/etc/systemd/system/llamacpp-server.service"]


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


def test_a_repository_is_no_model_itself(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, "engine: {name: llamacpp, model: org--name}", models=BOTH)
    assert told == ("engine.model: no model is called org--name | there is: tiny.gguf, org--name/FILE.gguf")
    (told,) = mistakes(tmp_path, "engine: {name: llamacpp, model: org--name/x.bin}", models=BOTH)
    assert "org--name/x.bin is not a GGUF" in told


def test_of_a_split_model_the_first_file_is_named(tmp_path: Path) -> None:
    (told,) = mistakes(tmp_path, f"engine: {{name: llamacpp, model: {PARTS[1]}}}", models=REPO)
    assert told.startswith(f"engine.model: {PARTS[1]} is not the first part of its model | name {PARTS[0]}: ")
    half = "models: [{name: x-00001-of-00002.gguf, path: tiny.gguf}]\n"
    (told,) = mistakes(tmp_path, "engine: llamacpp", models=half)
    assert told.startswith("engine: the model x-00001-of-00002.gguf lacks 1 of its 2 parts: x-00002-of-00002.gguf")


@pytest.mark.parametrize("name", list(engines.ENGINES))
def test_every_engine_has_one_shape(name: str) -> None:
    kind = engines.ENGINES[name]
    assert kind.name == name
    on_the_node = nodetools.module(f"engines.{name}")
    assert name == on_the_node.NAME
    assert str(on_the_node.__file__).startswith(str(nodetools.OVERLAYS / kind.overlay))
    for function in ("units", "doors", "url", "members", "mend"):
        assert hasattr(on_the_node, function)


def test_nobody_else_knows_an_engine_s_name() -> None:
    """Adding one touches its module, its overlay, and the registry; examples in help texts may name one."""
    names = rf"\b(?:{'|'.join(name for name in engines.ENGINES if name != 'none')})\b"
    top = Path(__file__).parents[2]
    code = [path for path in (top / "builder").rglob("*.py") if "engines" not in path.parts]
    code += [path for path in (top / "overlays/site").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    knowing = {path.name: found for path in code if (found := re.findall(names, path.read_text()))}
    assert knowing == {"nodes.py": ["llamacpp"], "model.py": ["llamacpp", "exo"]}
