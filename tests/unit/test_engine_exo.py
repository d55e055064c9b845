"""exo in the builder: the version table, what a spec may say, and what is rendered of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder import engines, firewall, lock, plan
from builder.engines import exo
from builder.engines.exo import making, models, trial
from builder.engines.exo.versions import VERSIONS
from builder.engines.trial import answer_of
from builder.errors import SpecError
from builder.gpu import GpuStack
from builder.lock import Lock, LockedModel
from builder.spec import secrets
from builder.spec.load import loads
from builder.spec.model import Cluster

DATA = Path(__file__).parents[1] / "data/exo/v1.0.71"
SECRET = "0123456789abcdef" * 4
MODEL = "mlx-community/Llama-3.2-1B-Instruct-4bit"
FOLDER = "mlx-community--Llama-3.2-1B-Instruct-4bit"
HEAD = """name: pair
network: {subnet: 10.0.0.0/24}
nodes:
  - {name: node1, match: {mac: "52:54:00:00:00:01"}, address: 10.0.0.2}
  - {name: node2, match: {mac: "52:54:00:00:00:02"}, address: 10.0.0.3}
"""
MODELS = f"models: [{{repo: {MODEL}}}]\n"
CARD = 'model_id = "{}"\nn_layers = 8\n[storage_size]\nin_bytes = 9\n'


def spec(base: Path, options: str = "", *, models: str = MODELS, head: str = HEAD) -> Cluster:
    (base / "namespace").write_text(f"{SECRET}\n")
    chosen = f"engine: {{name: exo, namespace_file: namespace, {options}}}\n"
    return loads(head + models + chosen, base=base)


def mistakes(base: Path, options: str = "", **more: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        spec(base, options, **more)
    return [f"{one.path}: {one.message} | {one.hint}" for one in caught.value.mistakes]


def locked(cluster: Cluster, *names: str, size: int = 1) -> Lock:
    files = tuple(LockedModel(name, "ab" * 32, size) for name in names)
    return Lock(lock.asks_of(cluster), 0, (), files)


# What each version needs opened, by the fact sheet of its source: an independent list.
LIBP2P = {
    ("udp", "5353", "10.0.0.0/24"),
    ("tcp", "30415", "10.0.0.0/24"),
    ("tcp", "52415", "10.0.0.0/24"),
    ("tcp", "49152-50050", "10.0.0.0/24"),
    ("tcp", "50052-52414", "10.0.0.0/24"),
    ("tcp", "52416-65535", "10.0.0.0/24"),
}
ZENOH = {
    ("tcp", "52415", "10.0.0.0/24"),
    ("tcp", "49152-50050", "10.0.0.0/24"),
    ("tcp", "50052-52413", "10.0.0.0/24"),
    ("tcp", "52416-65535", "10.0.0.0/24"),
    ("udp", "52413", "fe80::/10"),
    ("tcp", "52414", "fe80::/10"),
}
OURS = {("tcp", "22", None), ("tcp", "50051", "10.0.0.0/24")}


@pytest.mark.parametrize(("version", "wanted"), [("v1.0.71", LIBP2P), ("zenoh-2026-06-22", ZENOH)])
def test_exactly_the_versions_ports_are_opened(tmp_path: Path, version: str, wanted: set[object]) -> None:
    rules = firewall.rules(spec(tmp_path, f"version: {version}"))
    assert {(rule.proto, rule.ports, rule.source) for rule in rules} - OURS == wanted


def test_the_api_stays_open_to_the_nodes_when_clients_are_elsewhere(tmp_path: Path) -> None:
    """Edges of the topology are made by probing it; without authentication it is open to nobody else."""
    rules = firewall.rules(spec(tmp_path, "clients: 192.168.7.0/24"))
    assert {rule.source for rule in rules if rule.ports == "52415"} == {"10.0.0.0/24", "192.168.7.0/24"}
    assert {rule.source for rule in rules if rule.ports == "30415"} == {"10.0.0.0/24"}


def test_link_local_openings_are_ipv6() -> None:
    rule = firewall.Rule("udp", "52413", firewall.LINK_LOCAL, "exo discovery")
    assert rule.as_nft == "ip6 saddr fe80::/10 udp dport 52413"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            "version: v9.9.9",
            "engine.version: exo v9.9.9 is not in the table | known: v1.0.71, zenoh-2026-06-22; ano",
        ),
        ("master: [node1, node2]", "engine.master: must be a single value, not a list"),
        (
            "master: node9",
            "engine.master: no node is called node9 | nodes: node1, node2; exactly one is the master",
        ),
        ("master: node1, master: node2", "engine.master: is given twice"),
        ("min_nodes: 3", "engine.min_nodes: is more than the 2 nodes that there are"),
        (
            "model: org/none",
            "engine.model: the files of org/none are not among the models | add it to models: repo",
        ),
        (
            'overrides: ["torch"]',
            'engine.overrides[0]: "torch" is not a Python package\'s release | write mlx-lm==',
        ),
        ("peer_port: 52415", "engine: exo API and exo peers both want port 52415"),
        (
            "version: zenoh-2026-06-22, discovery: static",
            "engine.discovery: exo zenoh-2026-06-22 finds its peers by",
        ),
        ("source: 'a b'", 'engine.source: "a b" is not a place of a git repository'),
        ("card: none.toml", "engine.card: "),
    ],
)
def test_a_mistake_is_told_once_and_before_the_build(tmp_path: Path, options: str, told: str) -> None:
    found = mistakes(tmp_path, options)
    assert found[0].startswith(told) and len(found) == 1, found


def test_a_namespace_that_is_missing_is_told_with_the_way_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        loads(HEAD + MODELS + "engine: {name: exo, namespace_file: none}\n", base=tmp_path)
    (only,) = caught.value.mistakes
    assert only.path == "engine.namespace_file" and only.message.endswith("none does not exist")
    assert "builder secrets" in only.hint


@pytest.mark.parametrize(
    "text", ["", "short\n", "two words that are long enough for thirty-two\n", f"{SECRET}\n{SECRET}"]
)
def test_a_namespace_that_is_no_secret_is_refused_and_not_quoted(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad").write_text(text)
    with pytest.raises(SpecError) as caught:
        loads(HEAD + MODELS + "engine: {name: exo, namespace_file: bad}\n", base=tmp_path)
    (only,) = caught.value.mistakes
    assert only.message.endswith("does not hold a secret")
    assert not text.strip() or text.strip() not in f"{only}"


def test_the_namespace_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "pair.yaml"
    path.write_text(HEAD + MODELS + "engine: {name: exo, namespace_file: deep/down/namespace}\n")
    (made,) = secrets.make(path)
    text = made.read_text()
    assert made == tmp_path / "deep/down/namespace" and len(text.strip()) == 64
    assert made.stat().st_mode & 0o777 == 0o600
    assert secrets.make(path) == [] and made.read_text() == text
    assert loads(path.read_text(), base=tmp_path).engine.name == "exo"


def test_a_version_whose_namespace_is_no_secret_needs_none(tmp_path: Path) -> None:
    text = HEAD + MODELS + "engine: {name: exo, version: zenoh-2026-06-22, namespace_file: none}\n"
    facts = engines.of(found := loads(text, base=tmp_path)).facts(found, None)
    assert facts["namespace_variable"] is None
    assert facts["flags"]["node2"] == ["--zenoh-port", "52414", "--namespace", "pair"]


def test_a_model_that_exo_does_not_know_needs_a_card(tmp_path: Path) -> None:
    own = "models: [{name: org--own, path: own}]\n"
    (tmp_path / "own").mkdir()
    (tmp_path / "own/config.json").write_text("{}")
    (only,) = mistakes(tmp_path, models=own)
    assert only.startswith(
        "engine: exo v1.0.71 has no card of org/own, and offline it can ask nobody | give one: "
    )
    (tmp_path / "card.toml").write_text(CARD.format("org/own"))
    assert engines.of(cluster := spec(tmp_path, "card: card.toml", models=own)).name == "exo"
    cards = "/opt/exo/usr/local/resources/inference_model_cards"
    assert (
        plan.make(cluster, None)
        .files("node1")[f"{cards}/of-this-cluster.toml"]
        .startswith(b'model_id = "org/own"')
    )


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (CARD.format("org/other"), f"engine.card: describes org/other, and the model is {MODEL}"),
        ("= 1", "engine.card: is not TOML"),
        ('model_id = "x"', "engine.card: lacks 'storage_size'"),
        (
            CARD.format(MODEL).replace("8", "0"),
            "engine.card: must say n_layers and storage_size.in_bytes, both over 0",
        ),
    ],
)
def test_a_card_that_exo_could_not_use(tmp_path: Path, card: str, told: str) -> None:
    (tmp_path / "card.toml").write_text(card)
    (only,) = mistakes(tmp_path, "card: card.toml")
    assert only.startswith(told)


WHOLE = [
    f"{FOLDER}/{name}"
    for name in ("config.json", "tokenizer_config.json", "model.safetensors", "model.safetensors.index.json")
]


@pytest.mark.parametrize("lacking", WHOLE)
def test_files_without_which_exo_would_wait_for_ever_are_missed_with_the_lock(
    tmp_path: Path, lacking: str
) -> None:
    cluster = spec(tmp_path)
    plan.make(cluster, locked(cluster, *WHOLE))
    with pytest.raises(SpecError, match="would never call it complete"):
        plan.make(cluster, locked(cluster, *[name for name in WHOLE if name != lacking]))


def test_empty_weights_which_exo_takes_for_whole_are_refused(tmp_path: Path) -> None:
    cluster = spec(tmp_path)
    with pytest.raises(SpecError, match="has empty files, which exo takes for whole ones"):
        plan.make(cluster, locked(cluster, *WHOLE, size=0))


def test_one_node_is_the_master_and_nodes_find_each_other_by_multicast_unless_told(tmp_path: Path) -> None:
    facts = engines.of(cluster := spec(tmp_path, "master: node2")).facts(cluster, None)
    assert facts["flags"] == {
        "node1": ["--libp2p-port", "30415"],
        "node2": ["--libp2p-port", "30415", "--force-master"],
    }
    facts = engines.of(cluster := spec(tmp_path, "discovery: static")).facts(cluster, None)
    assert facts["flags"]["node2"][2:] == ["--bootstrap-peers", "/ip4/10.0.0.2/tcp/30415"]
    assert facts["environment"]["EXO_OFFLINE"] == "true"  # nothing else means yes to exo


def stack(monkeypatch: pytest.MonkeyPatch, driver: str = "580", cuda: str | None = "cuda13") -> None:
    """Give every cluster this GPU stack."""
    found = GpuStack(driver, cuda, 12227, "12.0", "rtx-5070", 1, f"{driver}.1", "open")
    monkeypatch.setattr(exo, "stack_of", lambda _cluster: found)


def test_memory_is_what_the_spec_says_else_the_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = HEAD.replace("address: 10.0.0.2", "address: 10.0.0.2, memory: 10G")
    facts = engines.of(cluster := spec(tmp_path, head=head)).facts(cluster, None)
    assert facts["memory_mib"] == {"node1": 10240, "node2": None}
    assert engines.of(cluster).advice(cluster) == ()
    stack(monkeypatch)
    facts = engines.of(cluster := spec(tmp_path)).facts(cluster, None)
    assert facts["memory_mib"]["node1"] == pytest.approx(10500, rel=0.01)  # of a card of 12 GB
    (advice,) = engines.of(cluster).advice(cluster)
    assert "of exo's 120 models fit 20.5G; the largest: " in advice


def test_the_extra_is_the_gpu_stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack(monkeypatch)
    cluster = spec(tmp_path)
    part = engines.of(cluster).part(cluster)
    assert part is not None and part.asks[2] == "cuda13"
    facts = engines.of(cluster).facts(cluster, None)
    assert facts["environment"]["CUDA_HOME"].endswith("/nvidia/cu13")  # its headers, which MLX looks for
    unit = plan.make(cluster, None).files("node1")["/etc/systemd/system/exo.service"].decode()
    assert "libcuda.so.1" in unit and "PrivateDevices" not in unit and "MemoryDenyWriteExecute=yes" not in unit


def test_debian_s_own_driver_serves_exo_s_cuda12(tmp_path: Path) -> None:
    """550.163.01 is later than the 550.54.14 that it asks for, and "550" is not."""
    cluster = spec(tmp_path, models=f"{MODELS}gpu: {{model: rtx-3090}}\n")
    part = engines.of(cluster).part(cluster)
    assert part is not None and part.asks[2] == "cuda12"


@pytest.mark.parametrize(
    ("driver", "cuda", "told"),
    [
        (
            "570",
            "cuda13",
            'gpu.driver: exo\'s cuda13 needs driver 580, and the nodes get 570.1 | write gpu.cuda: "12", or take',
        ),
        (
            "535",
            "cuda12",
            "gpu.driver: exo's cuda12 needs driver 550.54.14, and the nodes get 535.1 | take a newer driver: "
            'gpu.driver: "550" or later',
        ),
        ("470", None, "gpu.cuda: exo v1.0.71 has nothing for a driver without CUDA | it has: cuda12, cuda13"),
    ],
)
def test_an_extra_that_the_driver_cannot_serve_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, cuda: str | None, told: str
) -> None:
    stack(monkeypatch, driver, cuda)
    (only,) = mistakes(tmp_path)
    assert only.startswith(told)


def test_the_secret_is_roots_alone_and_nothing_shows_it(tmp_path: Path) -> None:
    cluster = spec(tmp_path)
    planned = plan.make(cluster, None)
    (file,) = [file for file in planned.site if file.path == "/etc/exo/namespace"]
    assert (file.mode, file.content.strip().decode()) == (0o600, SECRET)
    others = [other for other in planned.site if other is not file]
    assert not any(SECRET.encode() in other.content for other in others)
    assert SECRET.encode() not in b"".join(planned.files("node1").values())
    assert SECRET not in json.dumps(planned.summary()) + repr(cluster) + json.dumps(lock.asks_of(cluster))


PYPROJECT = """[project]
name = "exo"
dependencies = ["anyio==4.11.0", "exo-pyo3-bindings", "mlx-vlm>=0.3.11", "mlx==0.31.2; sys_platform == 'darwin'"]
[project.optional-dependencies]
cpu = ["mlx==0.31.1; sys_platform == 'linux'", "mlx-lm; sys_platform == 'linux'", "torch>=2.10.0"]
cuda13 = ["exo[cpu]", "mlx-cuda-13==0.31.1"]
"""
UV_LOCK = "".join(
    f'[[package]]\nname = "{name}"\nversion = "{version}"\nsource = {{ {source} = "x" }}\n'
    for name, version, source in (
        ("anyio", "4.11.0", "registry"),
        ("miniaudio", "1.61", "registry"),
        ("mlx", "0.31.1", "registry"),
        ("mlx", "0.31.2", "git"),
        ("mlx-lm", "0.31.3", "git"),
        ("torch", "2.10.0", "registry"),
        ("two", "1", "registry"),
        ("two", "2", "registry"),
    )
)


def read(source: str, path: str) -> str:
    assert source == "exo"
    return {"pyproject.toml": PYPROJECT, "uv.lock": UV_LOCK}[path]


def test_what_is_asked_of_the_index_is_exos_own_lock() -> None:
    version = VERSIONS["v1.0.71"]
    found = making.wheels(version, ("mlx-lm==0.31.2", "-torch"), None, read)
    assert found.requirements == (
        "anyio==4.11.0",
        "mlx-vlm>=0.3.11",
        "mlx==0.31.2; sys_platform == 'darwin'",
        "mlx==0.31.1; sys_platform == 'linux'",
        "mlx-lm==0.31.2",
        "cffi",
    )
    assert found.constraints == ("anyio==4.11.0", "miniaudio==1.61", "mlx==0.31.1")
    assert (found.excluded, found.from_source, found.torch) == (("torch",), ("miniaudio==1.61",), None)


def test_without_overrides_a_fork_is_built_from_its_own_source() -> None:
    version = VERSIONS["v1.0.71"]
    found = making.wheels(version, (), version.gpu["cuda13"], read)
    assert "mlx-lm==0.31.3" in found.requirements  # for what it needs in turn
    assert "mlx-cuda-13==0.31.1" in found.requirements and "nvidia-cuda-runtime==13.0.*" in found.requirements
    assert found.torch == "cu130"
    recipe = making.recipe(version, None, ())
    assert [(source.name, source.variable) for source in recipe.sources] == [
        ("exo", "EXO_SOURCE"),
        ("mlx-lm", "EXO_SOURCE_MLX_LM"),
    ]
    assert recipe.wheels == ("mlx-lm",)
    assert making.recipe(version, "/elsewhere", ("mlx-lm==0.31.2",)).sources[0].url == "/elsewhere"
    assert [step.network for step in recipe.steps] == [True, True, False, False]


def test_a_changed_override_makes_the_lock_stale(tmp_path: Path) -> None:
    before = locked(spec(tmp_path, 'overrides: ["-torch"]'))
    assert lock.belongs(before, spec(tmp_path, 'overrides: ["-torch"]'))
    assert not lock.belongs(before, spec(tmp_path))
    assert not lock.belongs(before, spec(tmp_path, 'overrides: ["-torch"], version: zenoh-2026-06-22'))
    assert lock.belongs(before, spec(tmp_path, 'overrides: ["-torch"], source: /elsewhere'))  # the same commit


def test_exos_own_models_are_those_of_its_api() -> None:
    known = models.known("v1.0.71")
    assert len(known) == 120 and known[MODEL] == 696 << 20
    fit = models.fitting("v1.0.71", 20 << 30)
    assert MODEL in dict(fit) and all(size <= 20 << 30 for _, size in fit)
    assert [size for _, size in fit] == sorted((size for _, size in fit), reverse=True)


def recorded(name: str) -> str:
    return (DATA / f"{name}.json").read_text()


def test_the_trial_reads_a_real_answer() -> None:
    assert answer_of(recorded("completion").encode()).startswith("enerated")
    with pytest.raises(LookupError):
        answer_of(b'{"error": {"message": "No instance found for model x"}}')


def judge(text: str) -> tuple[bool, str]:
    found = trial.trial("node1", ("node1", "node2"), 52415, 30415, "builder/tiny").judge([text])
    return found.proven, found.said


def test_the_trial_is_proven_by_parts_on_every_node_that_are_ready() -> None:
    assert judge(recorded("ready")) == (
        True,
        "node1 holds layers 4 to 7; node2 holds layers 0 to 3 of 8: a token passes all of them",
    )
    assert judge(recorded("joined")) == (False, "node1, node2 holds no part of builder/tiny")
    proven, said = judge(recorded("loading"))
    assert not proven and said.endswith("is nothing")
    failed = recorded("ready").replace('"RunnerReady": {}', '"RunnerFailed": {"errorMessage": "no mlx"}', 1)
    assert judge(failed)[0] is False
    assert judge(recorded("ready").replace('"startLayer": 4', '"startLayer": 5'))[0] is False
