"""exo on a node: who is in, what to do for the model, and how it is started; against replies of a real exo."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests import nodetools

DATA = Path(__file__).parents[1] / "data/exo/v1.0.71"
OVERLAY = nodetools.OVERLAYS / "engine-exo/rootfs"
exo = nodetools.module("engines.exo")
exostate = nodetools.module("engines.exostate")
NODES = ["node1", "node2"]
State = dict[str, Any]


def program(path: str) -> ModuleType:
    """A program of the overlay as a module, without running it."""
    file = OVERLAY / path
    name = file.name.replace("-", "_")
    loader = importlib.machinery.SourceFileLoader(name, str(file))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


placing = program("usr/lib/builder/exo/placing.py")
tidy = program("usr/lib/builder/exo/tidy")
start = program("opt/exo/usr/local/bin/exo-start")
GOAL = placing.Goal("builder/tiny", "Pipeline", ("node1", "node2"), 2)


def recorded(name: str) -> State:
    state: State = json.loads((DATA / f"{name}.json").read_text())
    return state


def changed(name: str, change: Callable[[State], None]) -> State:
    state = recorded(name)
    change(state)
    return state


def node_id(state: State, name: str) -> str:
    found: dict[str, dict[str, str]] = state["nodeIdentities"]
    return next(node for node, one in found.items() if one["friendlyName"] == name)


def without_edge(source: str, sink: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        del state["topology"]["connections"][node_id(state, source)][node_id(state, sink)]

    return change


def runner_of(state: State, name: str) -> str:
    (tagged,) = state["instances"].values()
    (instance,) = tagged.values()
    runner: str = instance["shardAssignments"]["nodeToRunner"][node_id(state, name)]
    return runner


def status(name: str, kind: str, **details: str) -> Callable[[State], None]:
    def change(state: State) -> None:
        state["runners"][runner_of(state, name)] = {kind: details}

    return change


def absent(state: State) -> dict[str, str | None]:
    found: dict[str, str | None] = exostate.absent(exostate.seen(state), NODES)
    return found


def test_two_nodes_with_an_edge_each_way_are_in() -> None:
    assert absent(recorded("joined")) == {"node1": None, "node2": None}


def test_one_direction_alone_is_named() -> None:
    found = absent(changed("joined", without_edge("node1", "node2")))
    assert found == {
        "node1": "it cannot reach exo's API on node2",
        "node2": "node1 cannot reach exo's API on it",
    }


def test_people_are_told_of_every_edge_or_of_those_that_lack() -> None:
    found = exostate.seen(recorded("joined"))
    assert exostate.links(found, NODES) == "2 of 2 edges: node1->node2, node2->node1"
    one_way = found._replace(edges=found.edges - {("node2", "node1")})
    assert exostate.links(one_way, NODES) == "1 of 2 edges, without node2->node1"
    many = [*NODES, *(f"node{n}" for n in range(3, 6))]
    assert exostate.links(found, many).startswith("2 of 20 edges, without node1->node3, ")
    assert exostate.links(found, many).endswith(" and 14 more")


def test_a_node_whose_process_ended_is_missed_by_its_edge_while_exo_still_lists_it() -> None:
    """Recorded 14 s after the kill: exo lists it for 30 s more, its runners still as ready."""
    state = recorded("lost")
    assert len(state["topology"]["nodes"]) == 2
    assert any(absent(state).values())
    assert not placing.step(state, GOAL, 99).ready


def test_a_restarted_node_is_known_by_its_host_name_not_by_its_old_id() -> None:
    def again(state: State) -> None:
        old = node_id(state, "node2")
        state["nodeIdentities"]["new"] = dict(state["nodeIdentities"][old])
        state["topology"]["nodes"].append("new")

    found = exostate.seen(changed("joined", again))
    assert found.ids["node2"] == "new"


def test_the_model_is_placed_over_both_once_they_are_in_and_hold_it() -> None:
    todo = placing.step(recorded("joined"), GOAL, 99)
    assert todo.place == {
        "model_id": "builder/tiny",
        "sharding": "Pipeline",
        "instance_meta": "MlxRing",
        "min_nodes": 2,
    }


def test_it_is_not_asked_for_twice_while_exo_thinks() -> None:
    assert placing.step(recorded("joined"), GOAL, 3).place is None
    assert placing.step(recorded("joined"), GOAL, placing.ASK_AGAIN).place is not None


def test_an_instance_without_ready_runners_is_loading_whatever_exo_says_of_it() -> None:
    todo = placing.step(recorded("loading"), GOAL, 99)
    assert (todo.ready, todo.place, todo.remove) == (False, None, None)
    assert todo.said.startswith("loading: ")


def test_ready_is_when_every_runner_is() -> None:
    assert placing.step(recorded("ready"), GOAL, 99) == placing.Step("ready on node1, node2", ready=True)
    for kind in ("RunnerIdle", "RunnerConnecting", "RunnerLoading", "RunnerWarmingUp", "RunnerShutdown"):
        todo = placing.step(changed("ready", status("node2", kind)), GOAL, 99)
        assert not todo.ready and f"node2 {kind.removeprefix('Runner').lower()}" in todo.said
    assert placing.step(changed("ready", status("node2", "RunnerRunning")), GOAL, 99).ready


def test_a_failed_runner_is_told_with_its_reason() -> None:
    failed = changed("ready", status("node2", "RunnerFailed", errorMessage="Traceback\nNo module named 'mlx'"))
    assert placing.step(failed, GOAL, 99).said.endswith("node2 failed: No module named 'mlx'")


def test_runners_that_come_no_further_are_given_up() -> None:
    waiting = changed("ready", status("node2", "RunnerConnecting"))
    assert placing.step(waiting, GOAL, 99, placing.STUCK).remove is None
    todo = placing.step(waiting, GOAL, 99, placing.STUCK + 1)
    assert todo.remove in waiting["instances"] and todo.said.startswith("stuck (node1 ready, node2 connecting)")


def test_after_the_master_forgot_everything_it_is_placed_again() -> None:
    def forget(state: State) -> None:
        state["instances"], state["runners"] = {}, {}

    assert placing.step(changed("ready", forget), GOAL, 99).place is not None


def test_a_placement_on_too_few_nodes_is_taken_away() -> None:
    todo = placing.step(recorded("ready"), GOAL._replace(least=3), 99)
    assert todo.remove in recorded("ready")["instances"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            without_edge("node2", "node1"),
            "waiting: 0 of 2 nodes (node1: node2 cannot reach exo's API on it; node2: ",
        ),
        (lambda s: s["nodeMemory"].popitem(), "waiting: exo does not know the memory of "),
        (lambda s: s["downloads"].clear(), "waiting: the model is not complete on node"),
    ],
)
def test_what_is_still_missing_is_named_and_nothing_is_placed(change: Callable[[State], None], told: str) -> None:
    todo = placing.step(changed("joined", change), GOAL, 99)
    assert todo.said.startswith(told) and todo.place is None


def test_a_failed_look_at_the_weights_is_named() -> None:
    def fail(state: State) -> None:
        node = node_id(state, "node1")
        for tagged in state["downloads"][node]:
            if "DownloadCompleted" in tagged:
                body = tagged.pop("DownloadCompleted")
                tagged["DownloadFailed"] = {**body, "errorMessage": "not found locally in offline mode"}

    todo = placing.step(changed("joined", fail), GOAL, 99)
    assert todo.said == "waiting: the model is not complete on node1: not found locally in offline mode"


CLUSTER: dict[str, Any] = {
    "nodes": [{"name": "node1", "address": "10.77.0.11"}, {"name": "node2", "address": "10.77.0.12"}],
    "engine": {
        "name": "exo",
        "master": "node1",
        "api": {"port": 52415},
        "peers": {"port": 30415},
        "transport": "libp2p",
        "model": "builder/tiny",
        "min_nodes": 2,
        "units": ["exo.service"],
        "flags": {"node1": ["--libp2p-port", "30415", "--force-master"], "node2": ["--libp2p-port", "30415"]},
        "memory_mib": {"node1": 10500, "node2": None},
    },
}


class Look:
    """What the doctor may look at, with this node's exo in ``state``; None: it does not answer."""

    me = "node2"

    def __init__(self, state: State | None) -> None:
        self.state = state

    def get(self, name: str, port: int, path: str) -> SimpleNamespace:
        assert (name, port, path) == ("node2", 52415, "/state")
        if self.state is None:
            raise ConnectionRefusedError(111, "Connection refused")
        return SimpleNamespace(status=200, body=json.dumps(self.state).encode())


def members(state: State | None) -> dict[str, str | None]:
    found: dict[str, str | None] = exo.members(CLUSTER, Look(state))
    return found


def test_joined_is_when_the_model_is_served_by_all() -> None:
    assert members(recorded("ready")) == {"node1": None, "node2": None}
    assert set(members(recorded("joined")).values()) == {
        "the model is not placed yet; see exo-place.service on the master"
    }
    busy = members(changed("ready", status("node1", "RunnerLoading")))
    assert set(busy.values()) == {"the model is not ready yet (node1 loading, node2 ready)"}


def test_a_node_without_an_answering_exo_says_so() -> None:
    found = members(None)
    assert "exo does not answer at port 52415 (Connection refused)" in (found["node2"] or "")
    assert found["node1"] == "not known: node2 has no exo to ask"


def test_two_looks_at_an_exo_that_starts_over_do_not_add_up_to_joined() -> None:
    """Seen in a virtual machine: one look saw the other node alone, the next one this node alone."""

    def alone(name: str) -> Callable[[State], None]:
        return lambda state: state["topology"].update(nodes=[node_id(state, name)], connections={})

    looks = [members(changed("joined", alone(name))) for name in ("node1", "node2", "node1", "node2")]
    watch = nodetools.module("watch")
    state = watch.State()
    for number, seen in enumerate(looks):
        state, _ = watch.step(state, float(number), seen, "plan")
        assert not state.complete


def test_a_state_of_another_shape_is_no_pass() -> None:
    assert all(members(changed("ready", lambda s: s.update(topology={}))).values())


def test_the_banner_says_how_far_the_model_is(tmp_path: Path) -> None:
    assert exo.notes(CLUSTER, tmp_path) == ("model builder/tiny",)
    path = tmp_path / exo.STATUS
    path.parent.mkdir(parents=True)
    path.write_text('{"said": "ready on node1, node2", "ready": true, "edges": "2 of 2 edges"}')
    assert exo.notes(CLUSTER, tmp_path) == ("model builder/tiny: ready on node1, node2", "2 of 2 edges")


def test_the_master_alone_has_the_placing_unit() -> None:
    assert exo.units(CLUSTER, "node1") == ("exo.service", "exo-place.service")
    assert exo.units(CLUSTER, "node2") == ("exo.service",)


def test_exo_is_started_with_its_nodes_own_flags_and_memory() -> None:
    engine = CLUSTER["engine"]
    assert start.arguments(engine, "node2") == ["exo", "--libp2p-port", "30415", "--api-port", "52415"]
    assert start.memory(engine, "node1") == {"OVERRIDE_MEMORY_MB": "10500"} and start.memory(engine, "node2") == {}


def test_exo_knows_the_models_that_the_node_has_and_no_others(tmp_path: Path) -> None:
    resources, models = tmp_path / "resources", tmp_path / "models"
    for name in (
        "inference_model_cards/org--here",
        "inference_model_cards/org--not",
        "image_model_cards/org--pic",
    ):
        (resources / name).parent.mkdir(parents=True, exist_ok=True)
        (resources / f"{name}.toml").write_text(name)
    (resources / "inference_model_cards/of-this-cluster.toml").write_text("ours")
    for name in ("org--here", "org--pic"):
        (models / name).mkdir(parents=True)
    start.cards(resources, models, tmp_path / "chosen")
    found = {str(path.relative_to(tmp_path / "chosen")): path.read_text() for path in tmp_path.glob("chosen/*/*")}
    assert found == {
        "inference_model_cards/org--here.toml": "inference_model_cards/org--here",
        "inference_model_cards/of-this-cluster.toml": "ours",
        "image_model_cards/org--pic.toml": "image_model_cards/org--pic",
    }


def test_what_is_put_into_the_environment_is_not_in_pythons_copy() -> None:
    """exo logs os.getenv of its namespace; its Rust part reads the process's own environment."""
    os.putenv("BUILDER_TEST_NAMESPACE", "secret")
    try:
        assert os.getenv("BUILDER_TEST_NAMESPACE") is None
        assert "os.putenv(variable, secret)" in (OVERLAY / "opt/exo/usr/local/bin/exo-start").read_text()
    finally:
        os.unsetenv("BUILDER_TEST_NAMESPACE")


def test_logs_stay_below_their_bound() -> None:
    state = "/var/lib/private/exo"
    sizes = {
        f"{state}/cache/exo/exo_log/runner_log/stderr": tidy.CUT_AT + 1,
        f"{state}/cache/exo/exo_log/runner_log/stdout": tidy.CUT_AT,
        f"{state}/data/exo/event_log/master/events.bin": 70,
        f"{state}/data/exo/event_log/api/events.bin": 31,
    }
    assert tidy.overgrown(sizes, 100) == ([f"{state}/cache/exo/exo_log/runner_log/stderr"], True)
    assert tidy.overgrown(sizes, 101)[1] is False
