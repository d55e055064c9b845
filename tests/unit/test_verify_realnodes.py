"""The checklist of real nodes: every point on positive proof, and what cannot be looked at is not passed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder import chat
from builder.errors import BuilderError, Exit
from builder.run import Completed
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.verify import realnodes
from builder.verify.report import Report

DATA = Path(__file__).parents[1] / "data/exo/v1.0.71"
PLAN = "a" * 64
SPEC = """name: pair
network: {subnet: 10.0.0.0/24}
nodes:
  - {name: node1, match: {mac: "52:54:00:00:00:01"}, address: 10.0.0.2}
  - {name: node2, match: {mac: "52:54:00:00:00:02"}, address: 10.0.0.3}
models: [{name: builder--tiny, path: builder--tiny}]
engine: {name: exo, namespace_file: namespace, card: card.toml, model: builder/tiny}
"""


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: int) -> Cluster:
    monkeypatch.setattr("builder.engines.exo.API_PORT", api)
    for where in ("builder.verify.realnodes.host", "builder.chat.host"):
        monkeypatch.setattr(where, lambda _node: "127.0.0.1")
    (tmp_path / "builder--tiny").mkdir()
    (tmp_path / "builder--tiny/config.json").write_text("{}")
    (tmp_path / "card.toml").write_text('model_id = "builder/tiny"\nn_layers = 8\n[storage_size]\nin_bytes = 9\n')
    (tmp_path / "namespace").write_text("0123456789abcdef" * 4)
    return loads(SPEC, base=tmp_path)


class Api(BaseHTTPRequestHandler):
    """exo's API, with the reply that was recorded of it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = (DATA / "completion.json").read_bytes()
        assert asked["model"] == "builder/tiny" and self.path == "/v1/chat/completions"
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def answer(node: str, *problems: str) -> str:
    checks = [{"name": "engine", "state": "problem", "what": what, "why": "w", "do": "d"} for what in problems]
    return json.dumps({"node": node, "ready": True, "joined": [2, 2], "plan": PLAN, "checks": checks})


def nodes(state: str = "ready", *problems: str) -> realnodes.Ask:
    def ask(argv: Sequence[str]) -> Completed:
        node = "node1" if argv[-2].endswith("10.0.0.2") else "node2"
        if "node-doctor" in argv[-1]:
            return Completed(answer(node, *problems), "", 0)
        assert argv[-1].startswith("sudo -n sh -c ") and node == "node1"
        return Completed((DATA / f"{state}.json").read_text(), "", 0)

    return ask


def outcomes(report: Report) -> dict[str, str]:
    return {step.name: step.outcome for step in (*report.steps, *report.checks)}


def test_a_cluster_that_answers_passes_and_gpus_that_it_has_not_are_not_run(pair: Cluster) -> None:
    report = realnodes.verify(pair, PLAN, lambda _line: None, ask=nodes())
    assert report.passed
    assert outcomes(report) == {
        realnodes.WELL: "passed",
        realnodes.COMPLETION: "passed",
        realnodes.SPEED: "passed",
        realnodes.DRIVER: "not run",
        realnodes.ENGINE_GPU: "not run",
    }
    (speed,) = (step for step in report.steps if step.name == realnodes.SPEED)
    assert speed.evidence.startswith("16 tokens in ") and report.timings[0].phase == "16 tokens"


def test_a_node_with_a_problem_fails_its_point_and_the_others_are_looked_at(pair: Cluster) -> None:
    report = realnodes.verify(pair, PLAN, lambda _line: None, ask=nodes("ready", "exo.service crashed"))
    assert not report.passed and outcomes(report)[realnodes.COMPLETION] == "passed"
    assert report.steps[0].reason.startswith("node1: exo.service crashed")


CARD = "NVIDIA GeForce RTX 3090, 550.163.01, 24576 MiB, 8.6"


@pytest.mark.parametrize(
    ("cards", "status", "outcome", "why"),
    [
        (f"{CARD}\n{CARD}", 0, "passed", ""),
        (CARD, 0, "failed", "node1 has 1 GPUs, and the spec says 2"),
        (
            f"{CARD}\n{CARD.replace('550.163.01', '535.274.02')}",
            0,
            "failed",
            "node1 has another driver than 550: NVIDIA GeForce RTX 3090, 535.274.02",
        ),
        ("No devices were found", 6, "failed", "exited 6"),
    ],
)
def test_the_driver_is_asked_for_the_cards(
    pair: Cluster, tmp_path: Path, cards: str, status: int, outcome: str, why: str
) -> None:
    with_gpus = loads(f"{SPEC}gpu: {{model: rtx-3090, count: 2}}\n", base=tmp_path)

    def ask(argv: Sequence[str]) -> Completed:
        if "nvidia-smi --query-gpu" in argv[-1]:
            return Completed(cards, "", status)
        return Completed("-12.5 Device(gpu, 0)", "", 0) if "mx.gpu" in argv[-1] else nodes()(argv)

    report = realnodes.verify(with_gpus, PLAN, lambda _line: None, ask=ask)
    (step,) = (step for step in report.steps if step.name == realnodes.DRIVER)
    assert (step.outcome, report.passed) == (outcome, outcome == "passed")
    assert why in step.reason
    assert outcomes(report)[realnodes.ENGINE_GPU] == "passed"


def test_an_answer_that_a_node_had_no_part_in_is_none(pair: Cluster) -> None:
    report = realnodes.verify(pair, PLAN, lambda _line: None, ask=nodes("joined"))
    assert not report.passed and outcomes(report)[realnodes.COMPLETION] == "failed"


def test_a_lost_node_is_no_pass(pair: Cluster) -> None:
    report = realnodes.verify(pair, None, lambda _line: None, ask=lambda _argv: Completed("", "no route", 255))
    assert not report.passed and outcomes(report)[realnodes.WELL] == "failed"


def test_chat_asks_the_engine(pair: Cluster) -> None:
    assert chat.chat(pair, "hello").startswith("enerated")


def test_chat_needs_an_engine_that_talks(pair: Cluster, tmp_path: Path) -> None:
    alone = loads(SPEC[: SPEC.index("models:")], base=tmp_path)
    with pytest.raises(BuilderError, match="answers no questions") as caught:
        chat.chat(alone, "hello")
    assert caught.value.code is Exit.SPEC


def test_chat_says_who_does_not_answer(pair: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.engines.exo.API_PORT", 1)
    with pytest.raises(BuilderError, match=r"no answer from http://127\.0\.0\.1:1: .*refused"):
        chat.chat(pair, "hello")
