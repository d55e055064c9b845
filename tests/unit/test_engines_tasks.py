"""Ray and Dask, whose work is tasks: the spec's mistakes, the command lines, who is a member, what proves a task.

The replies in tests/data are those of the real programs of the versions in their names, with the nodes' addresses
put in place of the measuring machine's.
"""

# ruff: noqa: E501  (tables: one case a line)

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from builder import engines, firewall, plan
from builder.engines import dask, ray
from builder.engines.trial import Look as Command
from builder.engines.trial import Trial
from builder.errors import SpecError
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.spec.warnings import warnings
from tests import nodetools

DATA = Path(__file__).parents[1] / "data"
REPLIES = {"dask": "dask/identity-2026.8.0.json", "ray": "ray/nodes-2.60.0.json"}
READERS = {"dask": dask.workers, "ray": ray.alive}
HEAD = """name: pair
network: {subnet: 10.77.0.0/24}
nodes:
  - {name: node1, match: {mac: "52:54:00:00:00:01"}, address: 10.77.0.11}
  - {name: node2, match: {mac: "52:54:00:00:00:02"}, address: 10.77.0.12}
"""
GPU = "gpu: {model: rtx-5070}\ndistribution: {name: ubuntu, release: '24.04'}\n"
REPO = "models: [{repo: org/name}]\n"
NAMES = ("dask", "ray")


def cluster_of(text: str) -> Cluster:
    return loads(f"{HEAD}{text}\n")


def facts(text: str) -> dict[str, Any]:
    """What a node reads: cluster.json as it is rendered."""
    found: dict[str, Any] = json.loads(
        plan.make(cluster_of(text), None).files("node1")["/etc/builder/cluster.json"]
    )
    return found


def program(engine: str, name: str) -> ModuleType:
    """One of the engine's own programs on the node."""
    path = nodetools.OVERLAYS / f"engine-{engine}/rootfs/usr/lib/builder/{engine}/{name}.py"
    spec = importlib.util.spec_from_file_location(f"{engine}_{name}", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engine: dsk", "engine.name: no engine is called dsk | did you mean dask?"),
        ("engine: rya", "engine.name: no engine is called rya | did you mean ray?"),
        ("engine: {name: ray, head: z}", "engine.head: no node is called z | nodes: node1, node2"),
        ("engine: {name: dask, head: z}", "engine.head: no node is called z | nodes: node1, node2"),
        ("engine: {name: dask, prot: 1}", "engine.prot: unknown key | did you mean port?"),
        ("engine: {name: dask, port: 8787}", "engine: Dask dashboard and Dask scheduler both want port 8787 | choose another"),
        ("engine: {name: ray, port: 8260}", "engine: Ray dashboard and Ray agent, HTTP both want port 8265"),
        ("engine: {name: ray, port: 65530}", "engine.port: leaves no seven ports after it | take a lower one"),
        ("engine: {name: ray, worker_ports: 11000-11000}", "engine.worker_ports: is one port, and several are wanted | write 11000-11999"),
        ("engine: {name: ray, worker_ports: 12000-11000}", "engine.worker_ports: the range 12000-11000 is reversed | write 11000-12000"),
        ("engine: {name: ray, worker_ports: 50000-50100}", "engine: Ray workers and builder-join both want port 50000-50100"),
        ("engine: {name: ray, packages: [git+https://h/x]}", 'engine.packages[0]: "git+https://h/x" says where a package comes from'),
        ("engine: {name: dask, packages: ['-e .']}", 'engine.packages[0]: "-e ." is not a requirement | write it like pandas or'),
        ("engine: {name: dask, packages: ['pandas >= 2']}", 'engine.packages[0]: "pandas >= 2" is not a requirement'),
        ("engine: {name: dask, port: 22}", "engine: Dask scheduler wants port 22, and only root may have one below 1024 | take one from 1024 on"),
        ("engine: {name: ray, clients: 192.168.1.0/24, dashboard_port: 443}", "engine: Ray dashboard wants port 443, and"),
        ("engine: {name: dask, clients: me}", "engine.clients: "),
        ("engine: dask\nfirewall: {allow: [{port: 8786}]}", "firewall.allow[0]: covers port 8786, which is opened for Dask scheduler"),
        ("engine: ray\nfirewall: {allow: [{port: 11500}]}", "firewall.allow[0]: covers port 11000-11999, which is opened for Ray workers"),
        ("engine: {name: ray, vllm: {model: org--name}}\n" + REPO, "engine.vllm: vLLM needs GPUs, and the spec has no gpu section | add the gpu section, or"),
        ("engine: {name: ray, vllm: {model: other}}\n" + REPO + GPU, "engine.vllm.model: no repository among models is called other | repositories: org--name"),
        ("engine: {name: ray, vllm: {model: other}}\n" + GPU, "engine.vllm.model: no repository among models is called other | add a repository to models"),
        ("engine: {name: ray, vllm: {}}\n" + GPU, "engine.vllm.model: is missing | for example: model: \"org--name\""),
        ("engine: {name: ray, vllm: {model: org--name}}\n" + REPO + GPU.replace("5070}", "5070, cuda: none}"), "engine.vllm: vLLM's packages are made for cuda13, and the nodes have no CUDA"),
        ("engine: {name: ray, vllm: {model: org--name}}\n" + REPO + "gpu: {model: rtx-3090}", "engine.vllm: vLLM's packages are made for cuda13, and the nodes have cuda12 | it comes with driver 580 or later"),
    ],
)  # fmt: skip
def test_mistakes(text: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        cluster_of(text)
    found = [f"{mistake.path}: {mistake.message} | {mistake.hint}" for mistake in caught.value.mistakes]
    assert [line for line in found if line.startswith(told)], found


@pytest.mark.parametrize("name", NAMES)
def test_an_address_must_be_known_before(name: str) -> None:
    with pytest.raises(
        SpecError, match=r"nodes\[1\]\.address: (Dask|Ray) names its .* by address, and dhcp gives none"
    ):
        loads(HEAD.replace("10.77.0.12", "dhcp") + f"engine: {name}\n")


def openings(text: str) -> dict[str, str | None]:
    """port → who may connect, without ssh."""
    return {rule.ports: rule.source for rule in firewall.rules(cluster_of(text)) if rule.why != "ssh"}


def test_everything_is_open_to_the_subnet_only() -> None:
    subnet = "10.77.0.0/24"
    assert openings("engine: dask") == dict.fromkeys(("50051", "8786", "8788", "8787"), subnet)
    every = ("50051", *map(str, range(6379, 6387)), "11000-11999", "8265")
    assert openings("engine: ray") == dict.fromkeys(every, subnet)


@pytest.mark.parametrize(("name", "port"), [("dask", "8787"), ("ray", "8265")])
def test_clients_see_the_dashboard_and_nothing_else(name: str, port: str) -> None:
    rules = firewall.rules(cluster_of(f"engine: {{name: {name}, clients: 192.168.1.0/24}}"))
    assert [rule.ports for rule in rules if rule.source == "192.168.1.0/24"] == [port]
    assert [rule.source for rule in rules if rule.ports == port] == ["10.77.0.0/24", "192.168.1.0/24"]
    rules = firewall.rules(cluster_of(f"engine: {{name: {name}, clients: any}}"))
    assert [rule.source for rule in rules if rule.ports == port] == [None]


def test_what_the_tasks_import_is_asked_of_the_index() -> None:
    cluster = cluster_of("engine: {name: dask, packages: ['pandas>=2.2,<3', 'x[y]==1.*']}")
    kind = engines.of(cluster)
    part = kind.part(cluster)
    assert part is not None and kind.wheels is not None
    wanted = kind.wheels(cluster, lambda _name, _path: "")
    assert wanted.requirements == part.asks == (*dask.OWN, "pandas>=2.2,<3", "x[y]==1.*")


def test_dask_s_command_lines() -> None:
    start = program("dask", "start")
    told = facts("engine: {name: dask, head: node2, threads: 4, port: 9000}")
    assert start.scheduler(told, "node2") == [
        *("/usr/local/bin/dask", "scheduler", "--host", "10.77.0.12", "--port", "9000"),
        *("--dashboard-address", "0.0.0.0:8787"),
    ]
    assert start.worker(told, "node1") == [
        *("/usr/local/bin/dask", "worker", "tcp://10.77.0.12:9000", "--name", "node1", "--host", "10.77.0.11"),
        *("--worker-port", "8788", "--no-nanny", "--dashboard-address", "127.0.0.1:0"),
        *("--local-directory", "/var/lib/dask", "--nthreads", "4"),
    ]
    assert start.worker(facts("engine: dask\n" + GPU), "node1")[-2:] == ["--resources", "GPU=1"]


def test_ray_s_command_lines() -> None:
    start = program("ray", "start")
    told = facts("engine: ray")
    common = [
        *("--dashboard-agent-grpc-port", "6383", "--dashboard-agent-listen-port", "6384"),
        *("--metrics-export-port", "6385", "--node-manager-port", "6381", "--object-manager-port", "6380"),
    ]
    last = ["--runtime-env-agent-port", "6382"]
    workers = ["--min-worker-port", "11000", "--max-worker-port", "11999"]
    begin = [*("/usr/local/bin/ray", "start", "--block", "--disable-usage-stats", "--temp-dir", "/var/lib/ray")]
    assert start.argv(told, "node1") == [
        *(*begin, "--head", "--port", "6379", "--dashboard-host", "0.0.0.0", "--dashboard-port", "8265"),
        *("--node-ip-address", "10.77.0.11", *common, "--ray-client-server-port", "6386", *last, *workers),
    ]
    assert start.argv(told, "node2") == [
        *(*begin, "--address", "10.77.0.11:6379", "--node-ip-address", "10.77.0.12", *common, *last, *workers),
    ]
    assert start.argv(facts("engine: ray\n" + GPU), "node2")[-2:] == ["--num-gpus", "1"]


def test_ray_is_given_time_but_not_when_its_raylet_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow node needs is tried with the real Ray by tests/integration/test_engines_python.py."""
    started: list[tuple[list[str], str]] = []
    ended: list[int | None] = [None]
    answers: list[Any] = [RuntimeError("not yet"), {"it": "is in"}]

    def start_ray_process(command: list[str], kind: str) -> SimpleNamespace:
        started.append((command, kind))
        return SimpleNamespace(process=SimpleNamespace(poll=lambda: ended[0]))

    def get_node() -> dict[str, str]:
        if isinstance(answers[0], dict):
            return dict(answers[0])
        raise answers.pop(0)

    start = program("ray", "start")
    monkeypatch.setattr(start, "time", SimpleNamespace(monotonic=lambda: 0, sleep=lambda _seconds: None))
    services = SimpleNamespace(start_ray_process=start_ray_process, get_node=get_node)
    start.bear_with_slow_nodes(services, 6384)
    services.start_ray_process(["gcs"], "gcs_server")
    services.start_ray_process(["raylet"], "raylet")
    assert started == [(["gcs"], "gcs_server"), (["raylet", "--dashboard_agent_listen_port=6384"], "raylet")]
    assert services.get_node() == {"it": "is in"}
    answers[0], ended[0] = RuntimeError("not yet"), 1
    with pytest.raises(SystemExit, match="the raylet has ended"):
        services.get_node()
    start.bear_with_slow_nodes(SimpleNamespace(), 6384)  # another Ray, which has none of these


def test_ray_keeps_the_logs_of_the_last_session_only(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"session_2026-11-2{number}_1").mkdir()
    (tmp_path / "session_latest").symlink_to("session_2026-11-23_1")
    program("ray", "start").tidy(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["session_2026-11-23_1", "session_latest"]


VLLM = "engine: {name: ray, clients: any, vllm: {model: org--name, context: 8192}}\n" + REPO + GPU


def test_vllm_serves_one_model_over_all_nodes() -> None:
    serve, told = program("ray", "serve"), facts(VLLM.replace("5070}", "5070, count: 2}"))
    assert serve.argv(told["engine"]) == [
        *("/usr/local/bin/vllm", "serve", "/srv/models/org--name", "--served-model-name", "org--name"),
        *("--host", "0.0.0.0", "--port", "8000", "--distributed-executor-backend", "ray"),
        *("--tensor-parallel-size", "2", "--pipeline-parallel-size", "2", "--max-model-len", "8192"),
    ]
    assert serve.environment(told["engine"])["RAY_ADDRESS"] == "10.77.0.11:6379"
    assert serve.environment(told["engine"])["HF_HUB_OFFLINE"] == "1"


def test_vllm_s_units_ports_and_packages() -> None:
    cluster = cluster_of(VLLM)
    files = plan.make(cluster, None).files("node1")
    unit = files["/etc/systemd/system/ray-vllm.service"].decode()
    assert "ConditionHost=node1\n" in unit
    assert "Requires=builder-models.service\n" in unit
    ranges = re.search(r"ip_local_port_range = (\d+) (\d+)", files["/etc/sysctl.d/60-ray.conf"].decode())
    assert ranges and openings(VLLM)["-".join(ranges.groups())] == "10.77.0.0/24"
    assert openings(VLLM)["8000"] is None
    part = engines.of(cluster).part(cluster)
    assert part is not None and {"gcc", "g++", "libpython3.13-dev"} <= set(part.names)
    without = plan.make(cluster_of("engine: ray"), None).files("node1")
    assert "ConditionHost=!*" in without["/etc/systemd/system/ray-vllm.service"].decode()
    assert "ip_local_port_range" not in without["/etc/sysctl.d/60-ray.conf"].decode()


def test_vllm_s_workers_keep_to_the_cluster_s_network() -> None:
    start = program("ray", "start")
    assert start.environment(facts(VLLM), "node2", "enp1s0") == {
        "VLLM_HOST_IP": "10.77.0.12",
        "TRITON_LIBCUDA_PATH": "/usr/lib/x86_64-linux-gnu",
        "NCCL_SOCKET_IFNAME": "=enp1s0",
        "GLOO_SOCKET_IFNAME": "enp1s0",
    }
    assert start.environment(facts("engine: ray"), "node2", "enp1s0") == {}
    assert start.card_of("127.0.0.1") == "lo"
    assert start.card_of("203.0.113.77") is None


def test_vllm_is_asked_in_the_words_of_its_api() -> None:
    kind = engines.of(cluster_of(VLLM))
    asked = kind.chat(cluster_of(VLLM), "Who are you?")
    assert asked is not None and (asked.node, asked.port, asked.path) == ("node1", 8000, "/v1/chat/completions")
    assert asked.body is not None and asked.body["model"] == "org--name"
    assert asked.read(b'{"choices": [{"message": {"role": "assistant", "content": "vLLM."}}]}') == "vLLM."
    assert kind.chat(cluster_of("engine: ray"), "Who are you?") is None


def test_a_real_node_s_torch_is_asked_to_compute() -> None:
    kind = engines.of(cluster_of(VLLM))
    asked = kind.on_gpu(cluster_of(VLLM))
    assert asked is not None and "device='cuda'" in asked and "ray.service" in asked
    assert kind.on_gpu(cluster_of("engine: ray\n" + GPU)) is None


@pytest.mark.parametrize(("name", "unit"), [("ray", "ray"), ("dask", "dask-worker")])
def test_tasks_find_the_driver_of_the_node(name: str, unit: str) -> None:
    """In a root of its own a program has none of the driver's libraries; without GPUs nothing is given up."""
    path = f"/etc/systemd/system/{unit}.service"
    for more, given in ((GPU, True), ("", False)):
        text = plan.make(cluster_of(f"engine: {name}\n{more}"), None).files("node1")[path].decode()
        for library in ("libcuda.so.1", "libnvidia-ml.so.1"):
            assert (f" -/usr/lib/x86_64-linux-gnu/{library} " in text.replace("=-", "= -")) == given
        assert ("After=nvidia-persistenced.service\n" in text) == given
        assert ("ProtectKernelTunables=yes" in text) != given


def test_vllm_needs_a_whole_model() -> None:
    cluster = cluster_of(VLLM)
    whole = {f"org--name/{name}": 1 for name in ("config.json", "tokenizer_config.json", "m-1.safetensors")}
    assert engines.of(cluster).check(cluster, whole) == ()
    assert engines.of(cluster).minimum(cluster, whole).weights == ("org--name/m-1.safetensors",)
    (told,) = engines.of(cluster).check(cluster, {"org--name/config.json": 1, "other/x.safetensors": 1})
    assert told.message == "org--name lacks tokenizer_config.json, *.safetensors"


class Look:
    """What a probe sees: who answers, what the head's dashboard says, what listens here."""

    def __init__(self, me: str, reply: bytes | None, says: dict[str, tuple[list[int], dict[str, Any]]]) -> None:
        self.me, self.reply, self.says = me, reply, says
        self.why = {name: f"no answer from 10.77.0.1{name[-1]}:50051" for name in ("node1", "node2")}

    def address(self, name: str) -> str:
        return f"10.77.0.1{name[-1]}"

    def ask_all(self, _names: object) -> None: ...

    def ask(self, name: str) -> dict[str, Any] | None:
        said = self.says.get(name)
        return None if said is None else {"listening": said[0], "members": said[1]}

    def get(self, _name: str, _port: int, _path: str, timeout: float | None = None) -> Any:
        if self.reply is None:
            raise ConnectionRefusedError(111, "Connection refused")
        return nodetools.module("net").Reply(200 if self.reply else 503, self.reply)

    def listening(self, port: int) -> bool:
        return self.me in self.says and port in self.says[self.me][0]


def without(reply: bytes, old: str, new: str) -> bytes:
    assert old in reply.decode()
    return reply.decode().replace(old, new).encode()


# Where each engine's node listens, what makes node2 absent from its list, and what is then said.
DOOR = {"dask": 8788, "ray": 6381}
LOST = {
    "dask": ('"name": "node2"', '"name": "node9"'),
    "ray": ('"node_ip": "10.77.0.12"', '"node_ip": "10.77.0.19"'),
}
ENDED = {"dask": ('"status": "running"', '"status": "closed"'), "ray": ('"state": "ALIVE"', '"state": "DEAD"')}


def seen(name: str, look: Look) -> dict[str, str | None]:
    found: dict[str, str | None] = nodetools.module(f"engines.{name}").members(facts(f"engine: {name}"), look)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_head_counts_whom_its_program_counts(name: str) -> None:
    up: tuple[list[int], dict[str, Any]] = ([DOOR[name]], {})
    reply = (DATA / REPLIES[name]).read_bytes()
    assert seen(name, Look("node1", reply, {"node2": up})) == {"node1": None, "node2": None}
    # Its own list is slow to notice a power cut; builder-join is not.
    assert seen(name, Look("node1", reply, {})) == {"node1": None, "node2": "no answer from 10.77.0.12:50051"}
    gone = without(reply, *LOST[name])
    assert "does not count it" in (seen(name, Look("node1", gone, {"node2": up}))["node2"] or "")
    idle = seen(name, Look("node1", gone, {"node2": ([], {})}))["node2"] or ""
    assert idle.endswith(f"is not running there: nothing listens on port {DOOR[name]}")
    assert all(seen(name, Look("node1", without(reply, *ENDED[name]), {"node2": up})).values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reply", [None, b"", b"{}", b"[]", b"not JSON", b'{"workers": 1, "data": null}'])
def test_a_head_that_does_not_answer_has_no_members(name: str, reply: bytes | None) -> None:
    found = seen(name, Look("node1", reply, {"node2": ([DOOR[name]], {})}))
    assert all("does not answer" in (reason or "") for reason in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_another_node_passes_on_what_the_head_says(name: str) -> None:
    said = {"node1": None, "node2": "why"}
    assert seen(name, Look("node2", None, {"node1": ([], said)})) == said
    assert seen(name, Look("node2", None, {"node1": ([], {})}))["node2"] == "the head does not know it yet"
    assert all("not known: no answer" in (reason or "") for reason in seen(name, Look("node2", None, {})).values())


def trial_of(name: str) -> Trial:
    cluster = cluster_of(f"engine: {name}")
    found = engines.of(cluster).trial(cluster)
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_trial_is_a_task_on_every_node(name: str) -> None:
    trial = trial_of(name)
    assert trial.looks == (Command("node1", f"{name}-run /usr/lib/builder/{name}/hostnames.py"),)
    keys = {"dask": ("node1", "node2"), "ray": ("10.77.0.11", "10.77.0.12")}[name]
    ran = dict(zip(keys, ("node1", "node2"), strict=True))
    assert trial.judge([f"a warning\n{json.dumps(ran)}\n"]).said == "a task ran on node1, node2"
    for wrong in ({keys[0]: "node1"}, {**ran, keys[1]: "node1"}, {}):
        verdict = trial.judge([json.dumps(wrong)])
        assert not verdict.proven and "no task ran on" in verdict.said
    for text in ("", "Traceback", "[1]", "{"):
        assert not trial.judge([text]).proven


@pytest.mark.parametrize("name", NAMES)
def test_the_request_reads_who_is_in(name: str) -> None:
    reply = (DATA / REPLIES[name]).read_bytes()
    read = trial_of(name).request.read
    assert read == READERS[name]
    assert read(reply).count("node" if name == "dask" else "10.77.0.1") == 2
    assert read(without(reply, *ENDED[name])) == ""


@pytest.mark.parametrize("name", NAMES)
def test_every_door_is_one_that_the_firewall_opens(name: str) -> None:
    told, cluster = facts(f"engine: {name}"), cluster_of(f"engine: {name}")
    module = nodetools.module(f"engines.{name}")
    opened = {port.ports for port in engines.ports(cluster)}
    for node in ("node1", "node2"):
        assert {str(door.port) for door in module.doors(told, node)} <= opened
        assert {door.unit for door in module.doors(told, node)} <= set(module.units(told, node))
        assert trial_of(name).listens[node]
    assert module.url(told).startswith("http://10.77.0.11:")
    assert not warnings(cluster)[1:]
