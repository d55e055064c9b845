"""Who is installed and when: each event, and then any sequence of them, against the promise of no second wipe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import BuilderError
from builder.netboot import orders
from builder.netboot.orders import Answer, Node, State, Stranger
from builder.netboot.store import Store, token

NAMES = ["node1", "node2"]
START = State({name: Node() for name in NAMES})


def ordered(state: State = START, word: str = "w1", now: float = 10.0) -> State:
    return orders.order(state, {"node1": word}, now)


def told(state: State, now: float = 20.0, **news: Any) -> tuple[State, Answer]:
    return orders.report(state, {"order": "w1", **news}, "plan", now)


def test_an_order_ends_with_the_report_that_it_was_carried_out() -> None:
    state, answer = told(ordered(), phase="installed", line="node1 is installed")
    node = state.nodes["node1"]
    assert answer == Answer(True, lasting=True)
    assert (node.order, node.carried, node.phase, node.plan, node.installed) == (
        "",
        "w1",
        "installed",
        "plan",
        20.0,
    )
    assert state.nodes["node2"] == Node()


def test_a_report_that_comes_twice_is_well_and_changes_nothing() -> None:
    state, _ = told(ordered(), phase="installed")
    again, answer = told(state, 30.0, phase="installed")
    assert (again, answer.go) == (state, True)


@pytest.mark.parametrize("phase", ["ask", "unpack", "start"])
def test_after_that_nothing_may_be_written(phase: str) -> None:
    state, _ = told(ordered(), phase="installed")
    after, answer = told(state, phase=phase)
    assert not answer.go and "carried out" in answer.why and after == state


def test_an_order_that_was_taken_back_or_replaced_is_not_in_force() -> None:
    for state in (orders.take_back(ordered(), ["node1"], 11.0), ordered(ordered(), "w2", 11.0)):
        after, answer = told(state, phase="ask")
        assert not answer.go and "not in force" in answer.why and after == state
        after, answer = told(state, phase="installed")
        assert not answer.go and after == state  # an old report does not end a new order


def test_an_order_is_for_one_node() -> None:
    state, answer = told(ordered(), phase="ask", node="node2")
    assert not answer.go and "the order is for node1, and the machine is node2" in answer.why
    assert state.nodes["node1"].failed == "ask" and state.nodes["node1"].order == "w1"
    assert told(ordered(), phase="ask", node="node1")[1] == Answer(True, lasting=True)


def test_a_failure_is_kept_until_something_moves_again() -> None:
    state, answer = told(ordered(), phase="failed", failed="disk", line="no disk", touched="/dev/vda")
    node = state.nodes["node1"]
    assert answer.go and (node.failed, node.line, node.touched, node.order) == (
        "disk",
        "no disk",
        "/dev/vda",
        "w1",
    )
    assert orders.loading(state, "node1", 30.0).nodes["node1"].failed == ""


def test_progress_says_how_fast_and_when_it_moved() -> None:
    state, _ = told(ordered(), 20.0, phase="unpack", done=0, total=100)
    state, _ = told(state, 22.0, phase="unpack", done=40, total=100)
    assert (state.nodes["node1"].rate, state.nodes["node1"].moved) == (20.0, 22.0)
    state, _ = told(state, 25.0, phase="unpack", done=40, total=100)
    node = state.nodes["node1"]
    assert (node.seen, node.moved, node.began, node.rate) == (25.0, 22.0, 20.0, 20.0)
    state, _ = told(state, 26.0, phase="models", done=0, total=7)
    assert (state.nodes["node1"].rate, state.nodes["node1"].began) == (0.0, 26.0)


@pytest.mark.parametrize(
    "news",
    [
        {},
        {"order": None, "phase": "ask"},
        {"order": "", "phase": "ask"},
        {"order": ["w1"], "phase": "ask"},
        {"order": "w1"},
        {"order": "w1", "phase": 7},
        {"order": "w9", "phase": "installed"},
    ],
)
def test_who_has_no_order_changes_nothing(news: dict[str, Any]) -> None:
    """Also not the nodes that were never ordered, whose order is the empty word."""
    assert orders.report(ordered(), news, "plan", 20.0)[0] == ordered()
    assert not orders.report(ordered(), news, "plan", 20.0)[1].go


def test_what_an_installer_says_is_cut_and_made_printable() -> None:
    state, _ = told(ordered(), phase="unpack" * 99, line="\x1b[2J" + "x" * 999, done=-1, total="many")
    node = state.nodes["node1"]
    assert len(node.phase) <= 40 and len(node.line) == orders.LINE and "\x1b" not in node.line
    assert (node.done, node.total) == (0, 0)
    assert told(ordered(), phase="unpack", done=True, total=1.5)[0].nodes["node1"].done == 0


def test_strangers_are_remembered_and_the_oldest_forgotten() -> None:
    state = START
    for number in range(orders.STRANGERS + 20):
        state = orders.stranger(state, Stranger(f"m{number}", "", "", "", float(number)))
    state = orders.stranger(state, Stranger("m119", "again", "", "", 500.0))
    assert len(state.strangers) == orders.STRANGERS
    assert "m19" not in state.strangers and state.strangers["m119"].uuid == "again"


# ---- any sequence of what can happen to one node


class World:
    """A node and its server, with everything that the promise is about: what is on disk, and what was wiped."""

    def __init__(self) -> None:
        self.server = START
        self.kept = START  # the server's state as it is on the disk
        self.now = 0.0
        self.words = 0
        self.mark = ""  # the order's mark on the node's disk
        self.wipes: list[str] = []
        self.complete: list[str] = []
        self.running: list[tuple[str, bool]] = []  # installers: their order, and whether they write

    def keep(self, state: State, lasting: bool = True) -> None:
        self.server = state
        if lasting:
            self.kept = state

    def ask(self, word: str, phase: str, reaches: bool) -> bool | None:
        if not reaches:
            return None
        state, answer = orders.report(self.server, {"order": word, "phase": phase}, "plan", self.now)
        self.keep(state, answer.lasting)
        return answer.go


EVENTS = ["order", "take back", "boot", "write", "finish", "finish unheard", "power cut", "restart", "stale boot"]


@settings(max_examples=400)
@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_no_order_is_carried_out_twice_and_nothing_is_wiped_without_one(events: list[str]) -> None:
    world = World()
    old = ""
    given_out: set[str] = set()
    for event in events:
        world.now += 1
        word = world.server.nodes["node1"].order
        if event == "order":
            world.words += 1
            given_out.add(f"w{world.words}")
            world.keep(orders.order(world.server, {"node1": f"w{world.words}"}, world.now))
        elif event == "take back":
            world.keep(orders.take_back(world.server, ["node1"], world.now))
        elif event == "restart":
            data = json.loads(json.dumps(orders.to_data(world.kept)))
            world.server = orders.from_data(data, NAMES)
        elif event == "power cut":
            world.running.clear()
        elif event in ("boot", "stale boot"):
            # A stale one: the boot loader got its script long ago, and starts only now.
            word, old = (old, word) if event == "stale boot" else (word, word or old)
            world.running.clear()
            if word and world.mark == word:
                world.ask(word, "installed", reaches=True)
            elif word:
                world.running.append((word, False))
        elif event == "write" and world.running and not world.running[0][1]:
            word = world.running[0][0]
            if world.ask(word, "ask", reaches=True):
                assert word not in world.complete, "what was complete is wiped"
                assert word == world.server.nodes["node1"].order
                world.wipes.append(word)
                world.mark = ""
                world.running[0] = (word, True)
            else:
                world.running.clear()
        elif event in ("finish", "finish unheard") and world.running and world.running[0][1]:
            word = world.running[0][0]
            world.mark = word
            world.complete.append(word)
            world.ask(word, "installed", reaches=event == "finish")
            world.running.clear()
    assert set(world.wipes) <= given_out
    assert len(world.complete) == len(set(world.complete))


# ---- on the disk


def test_the_state_survives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.json", NAMES, lambda: 50.0)
    store.change(lambda state, now: (ordered(state, now=now), None, True))
    again = Store(tmp_path / "state.json", [*NAMES, "node3"])
    assert again.state.nodes["node1"].order == "w1" and again.state.nodes["node3"] == Node()
    assert set(Store(tmp_path / "state.json", ["node2"]).state.nodes) == {"node2"}


def test_progress_is_written_now_and_then_and_an_order_at_once(tmp_path: Path) -> None:
    now = [100.0]
    store = Store(tmp_path / "state.json", NAMES, lambda: now[0])
    store.change(lambda state, when: (ordered(state), None, True))
    before = (tmp_path / "state.json").read_bytes()

    def move(state: State, when: float) -> tuple[State, None, bool]:
        node = replace(state.nodes["node1"], done=state.nodes["node1"].done + 1)
        return replace(state, nodes={**state.nodes, "node1": node}), None, False

    store.change(move)
    assert (tmp_path / "state.json").read_bytes() == before and store.state.nodes["node1"].done == 1
    now[0] += 60
    store.change(move)
    assert Store(tmp_path / "state.json", NAMES).state.nodes["node1"].done == 2
    store.change(move)
    store.flush()
    assert Store(tmp_path / "state.json", NAMES).state.nodes["node1"].done == 3


def test_what_cannot_be_written_has_not_happened(tmp_path: Path) -> None:
    store = Store(tmp_path / "missing/state.json", NAMES)
    with pytest.raises(OSError, match="No such file"):
        store.change(lambda state, now: (ordered(state), None, True))
    assert store.state == START


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "nodes": {"node1": {"x": 1}}}'])
def test_a_damaged_state_is_nothing_to_guess_from(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(BuilderError, match="nobody knows which nodes are to be installed") as caught:
        Store(tmp_path / "state.json", NAMES)
    assert "remove it" in caught.value.hint


def test_the_token_is_made_once_for_its_owner(tmp_path: Path) -> None:
    word = token(tmp_path / "token")
    assert len(word) >= 32 and token(tmp_path / "token") == word
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
