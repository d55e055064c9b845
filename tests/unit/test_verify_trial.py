"""How an engine is tried: what is asked, what is looked at, and what counts as proof that every node took part."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Literal, cast

import pytest
from pydantic import Field

from builder import engines, firewall, plan
from builder.engines import none
from builder.engines.kind import Minimum, Port
from builder.engines.trial import Look, Request, Trial, Verdict
from builder.errors import SpecError
from builder.run import Completed
from builder.spec.engine import Engine
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.verify import clusterspec
from builder.verify.report import StepFailed
from builder.verify.ssh import Ssh

SPEC = """\
name: trio
network: {subnet: 10.0.0.0/24}
nodes:
  - {name: a, match: {mac: "52:54:00:00:00:01"}, address: 10.0.0.2}
  - {name: b, match: {mac: "52:54:00:00:00:02"}, address: 10.0.0.3}
  - {name: c, match: {mac: "52:54:00:00:00:03"}, address: 10.0.0.4}
"""


def trial_of(text: str) -> Trial:
    cluster = loads(SPEC + text)
    trial = engines.of(cluster).trial(cluster)
    assert trial is not None
    return trial


@pytest.fixture
def llamacpp() -> Trial:
    return trial_of(
        'models: [{name: x.gguf, url: "https://h/x.gguf"}]\n'
        "engine: {name: llamacpp, head: b, port: 9000, rpc_port: 9001}\n"
    )


def test_without_an_engine_there_is_nothing_to_try() -> None:
    cluster = loads(SPEC)
    assert engines.of(cluster).trial(cluster) is None


def test_what_llamacpp_is_asked_and_what_is_looked_at(llamacpp: Trial) -> None:
    assert llamacpp.listens == {"a": (9001,), "b": (9000,), "c": (9001,)}
    assert llamacpp.request == Request(
        node="b",
        port=9000,
        path="/v1/completions",
        read=llamacpp.request.read,
        body={"prompt": "Subject to the terms", "max_tokens": 16, "temperature": 0},
    )
    assert llamacpp.looks == (
        Look("b", "journalctl --unit llamacpp-server --output cat --no-pager"),
        Look("a", "ss -tinH state established '( sport = :9001 )'"),
        Look("c", "ss -tinH state established '( sport = :9001 )'"),
    )


LOG = """\
load_tensors: RPC0[10.0.0.2:9001] model buffer size =     1.38 MiB
load_tensors: RPC1[10.0.0.4:9001] model buffer size =     0.69 MiB
"""
SENT = "0 0 10.0.0.2:9001 10.0.0.3:40000\n cubic bytes_sent:{} bytes_acked:1\n"


@pytest.mark.parametrize(
    ("log", "sent", "proven", "said"),
    [
        (LOG, (8192, 9000), True, "a holds 1.38 MiB of the model and sent 8192 bytes; c holds 0.69 MiB of the"),
        (LOG, (8191, 9000), False, "a sent 8191 bytes, too few for 16 tokens"),
        (LOG, (9000, 0), False, "c sent 0 bytes"),
        (LOG.replace("10.0.0.4", "10.0.0.40"), (9000, 9000), False, "the head gave c no part of the model"),
        ("", (9000, 9000), False, "the head gave a no part of the model"),
    ],
)
def test_what_proves_that_every_worker_computed(
    llamacpp: Trial, log: str, sent: tuple[int, int], proven: bool, said: str
) -> None:
    verdict = llamacpp.judge([log, *(SENT.format(number) if number else "" for number in sent)])
    assert verdict.proven == proven
    assert verdict.said.startswith(said)


class Api(HTTPServer):
    """Answers every request with the same bytes, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.status = b"", 200
        self.asked: list[tuple[str, str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append((self.command, self.path, json.loads(body) if body else None))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.answer)

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, *_args: object) -> None: ...


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_completion_is_asked_for_as_a_client_would(llamacpp: Trial, api: Api) -> None:
    api.answer = b'{"choices": [{"text": " and so on"}]}'
    complete = clusterspec.engine_of(llamacpp).complete
    assert complete(f"http://127.0.0.1:{api.server_port}") == " and so on"
    assert api.asked == [("POST", "/v1/completions", llamacpp.request.body)]


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (200, b"", "/v1/completions answered b'' \\(JSONDecodeError"),
        (200, b"[]", "answered .* \\(TypeError"),
        (200, b'{"choices": []}', "answered .* \\(IndexError"),
        (200, b'{"error": "loading"}', "loading.*KeyError"),
        (200, b'{"choices": [{"text": " "}]}', "an empty text"),
        (503, b"", "503"),
    ],
)
def test_what_is_no_completion(llamacpp: Trial, api: Api, status: int, answer: bytes, said: str) -> None:
    api.status, api.answer = status, answer
    with pytest.raises((ValueError, OSError), match=said):
        clusterspec.ask(llamacpp.request, f"http://127.0.0.1:{api.server_port}")


class Node:
    """An ssh connection that prints the same for each command."""

    def __init__(self, said: str, status: int = 0) -> None:
        self.done = Completed(said, "", status)
        self.commands: list[str] = []

    def once(self, command: str) -> Completed:
        self.commands.append(command)
        return self.done


def prove(trial: Trial, nodes: Mapping[str, Node]) -> str:
    return clusterspec.engine_of(trial).evidence(cast("Mapping[str, Ssh]", nodes))


def test_the_proof_is_looked_for_on_the_nodes(llamacpp: Trial) -> None:
    nodes = {"a": Node(SENT.format(9000)), "b": Node(LOG), "c": Node(SENT.format(9000))}
    assert prove(llamacpp, nodes).startswith("a holds 1.38 MiB")
    assert [nodes[look.node].commands for look in llamacpp.looks] == [[look.command] for look in llamacpp.looks]
    with pytest.raises(StepFailed, match="c sent 0 bytes"):
        prove(llamacpp, {**nodes, "c": Node("")})
    with pytest.raises(StepFailed, match=r"on b `journalctl .*` exited 255"):
        prove(llamacpp, {**nodes, "b": Node(LOG, 255)})


# An engine that nobody has heard of: what the seam must carry without a change anywhere else.


class Tasks(Engine):
    """Runs a task on every node, and has a dashboard."""

    name: Literal["tasks"] = Field("tasks", description="Tasks.", examples=["tasks"])


def by_all(names: Sequence[str], said: Sequence[str]) -> Verdict:
    silent = [name for name in names if name not in said[0].split()]
    return Verdict(not silent, f"no task ran on {', '.join(silent)}" if silent else "a task ran on each", said[0])


def try_out(cluster: Cluster) -> Trial:
    head, *workers = (node.name for node in cluster.nodes)
    return Trial(
        listens={head: (8786, 8787), **dict.fromkeys(workers, (8788,))},
        request=Request(head, 8787, "/health", read=bytes.decode),
        looks=(Look(head, "/opt/tasks/bin/python -m tasks.hostnames"),),
        judge=lambda said: by_all((head, *workers), said),
    )


TASKS = replace(
    none.KIND,
    options=Tasks,
    ports=lambda _cluster: (Port("tcp", "8786-8788", "cluster", "tasks"),),
    facts=lambda cluster, _files: {"scheduler": str(cluster.nodes[0].address)},
    minimum=lambda _cluster, _files: Minimum(memory=200 << 20, disk=1 << 30),
    trial=try_out,
)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setitem(engines.ENGINES, "tasks", TASKS)
    return loads(f"{SPEC}engine: tasks\n")


def test_a_new_engine_needs_its_module_only(tasks: Cluster) -> None:
    assert {rule.ports for rule in firewall.rules(tasks)} == {"22", "50051", "8786-8788"}
    facts = json.loads(plan.make(tasks, None).files("a")["/etc/builder/cluster.json"])
    assert facts["engine"] == {"name": "tasks", "scheduler": "10.0.0.2"}
    with pytest.raises(SpecError, match=r"allow\[0\]: covers port 8786-8788, which is opened for tasks"):
        loads(f"{SPEC}engine: tasks\nfirewall: {{allow: [{{port: 8787}}]}}\n")
    loads(f"{SPEC}engine: tasks\nfirewall: {{allow: [{{port: 8787, proto: udp}}]}}\n")


def test_an_engine_whose_work_is_a_task_of_all_nodes(tasks: Cluster, api: Api) -> None:
    trial = engines.of(tasks).trial(tasks)
    assert trial is not None
    api.answer = b"ok"
    engine = clusterspec.engine_of(trial)
    assert (engine.head, engine.port, engine.listens["c"]) == ("a", 8787, (8788,))
    assert engine.complete(f"http://127.0.0.1:{api.server_port}") == "ok"
    assert api.asked == [("GET", "/health", None)]
    assert prove(trial, {"a": Node("a\nb\nc\n")}) == "a task ran on each"
    with pytest.raises(StepFailed, match="no task ran on b"):
        prove(trial, {"a": Node("a\nc\n")})
