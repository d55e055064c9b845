"""Who may be installed, and how far they are: a value, and what each event makes of it. Pure.

A node boots the installer only while there is an *order* to: a word made anew each time somebody says ``builder
reinstall``. The word goes to the installer over the kernel's command line; with it the installer asks before the
first write, reports, and marks the finished disk. So

- no order, no install: the node is sent to its disk;
- the report that an install is complete ends the order, and the answer goes out when that is on the disk;
- an installer that was started by an order that has ended, or was taken back, is told not to write;
- a report that got lost does no harm: the next boot finds the order's mark on the disk, and writes nothing.

An order outlives a power cut in the middle of an install: what was half written is written again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

FORMAT = 1
STRANGERS = 100  # machines that no node matches; the oldest are forgotten
LINE = 300  # characters of a report's line that are kept
_WORD = 40
# In the order in which they come; the page shows where a node is.
PHASES = (
    *("ordered", "loading", "iso", "start", "payload", "node", "disk", "verify", "ask", "partition"),
    *("fetch", "unpack", "document", "ubuntu", "place"),
    *("bootloader", "seed", "models", "done", "installed"),
)


@dataclass(frozen=True)
class Node:
    """What is known of a node. Times are seconds since 1970, 0 for never; ``done`` and ``total`` in bytes.

    ``order`` is in force; ``carried`` was the last one that ended by an install. ``seen`` is the last report,
    ``moved`` the last that brought something new, ``began`` the begin of the phase; ``rate`` is bytes a second.
    """

    order: str = ""
    carried: str = ""
    phase: str = ""
    done: int = 0
    total: int = 0
    rate: float = 0.0
    line: str = ""
    failed: str = ""
    touched: str = ""
    plan: str = ""
    ordered: float = 0.0
    began: float = 0.0
    seen: float = 0.0
    moved: float = 0.0
    installed: float = 0.0


@dataclass(frozen=True)
class Stranger:
    """A machine that asked what to boot and is no node."""

    mac: str
    uuid: str
    serial: str
    address: str
    seen: float


@dataclass(frozen=True)
class State:
    """All of it. ``strangers`` by MAC."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    strangers: Mapping[str, Stranger] = field(default_factory=dict)

    def node_of(self, order: str) -> str | None:
        """Whose order that is, in force or carried out."""
        if not order:
            return None
        return next((name for name, node in self.nodes.items() if order in (node.order, node.carried)), None)


@dataclass(frozen=True)
class Answer:
    """To a report. ``lasting``: the state has to be on the disk before the answer goes out."""

    go: bool
    why: str = ""
    lasting: bool = False


def order(state: State, orders: Mapping[str, str], now: float) -> State:
    """Install these nodes at their next boot; ``orders``: name → a new word."""
    made = {
        name: replace(
            Node(), order=word, carried=state.nodes[name].carried, plan=state.nodes[name].plan, phase="ordered",
            installed=state.nodes[name].installed, ordered=now, began=now, seen=now, moved=now,
        )
        for name, word in orders.items()
    }  # fmt: skip
    return replace(state, nodes={**state.nodes, **made})


def take_back(state: State, names: list[str], now: float) -> State:
    """These nodes boot their disks. An installer that runs already is told so when it asks."""
    made = {
        name: replace(node, order="", phase="", line="the order to install was taken back", began=now, failed="")
        for name in names
        if (node := state.nodes[name]).order
    }
    return replace(state, nodes={**state.nodes, **made})


def loading(state: State, name: str, now: float) -> State:
    """The boot loader was told to start the installer."""
    node = state.nodes[name]
    made = replace(node, phase="loading", line="the boot loader was sent the installer", failed="", touched="")
    made = replace(made, done=0, total=0, rate=0.0, began=now, seen=now, moved=now)
    return replace(state, nodes={**state.nodes, name: made})


def stranger(state: State, found: Stranger) -> State:
    """A machine that is no node asked what to boot."""
    others = [one for mac, one in state.strangers.items() if mac != found.mac]
    kept = sorted(others, key=lambda one: one.seen)[-(STRANGERS - 1) :]
    return replace(state, strangers={one.mac: one for one in (*kept, found)})


def report(state: State, news: Mapping[str, Any], plan: str, now: float) -> tuple[State, Answer]:
    """What an installer says; ``news`` came from the network, and may hold anything. ``plan``: of the tree."""
    word, phase = news.get("order"), news.get("phase")
    name = state.node_of(word) if isinstance(word, str) else None
    if name is None or not isinstance(phase, str):
        return state, Answer(False, "this order to install is not in force")
    node = state.nodes[name]
    if word != node.order:  # it was carried out: nothing is to be done, and nothing to be written
        return state, Answer(phase == "installed", "this order to install was carried out already")
    claimed = news.get("node", name)
    if claimed != name:
        why = f"the order is for {name}, and the machine is {_text(claimed, _WORD)}"
        return _with(state, name, replace(node, failed=phase, line=why, seen=now, moved=now)), Answer(False, why)
    if phase == "installed":
        made = replace(node, order="", carried=node.order, phase=phase, failed="", touched="", plan=plan)
        made = replace(made, line=_text(news.get("line"), LINE), done=0, total=0, began=now, seen=now, moved=now)
        return _with(state, name, replace(made, installed=now)), Answer(True, lasting=True)
    if phase == "failed":
        made = replace(node, failed=_text(news.get("failed"), _WORD) or "unknown", seen=now, moved=now)
        made = replace(made, line=_text(news.get("line"), LINE), touched=_text(news.get("touched"), _WORD))
        return _with(state, name, made), Answer(True, lasting=True)
    return _with(state, name, _moved(node, news, phase[:_WORD], now)), Answer(True, lasting=phase == "ask")


def _moved(node: Node, news: Mapping[str, Any], phase: str, now: float) -> Node:
    done, total = _bytes(news.get("done")), _bytes(news.get("total"))
    line = _text(news.get("line"), LINE)
    fresh = (phase, done, line) != (node.phase, node.done, node.line) or bool(node.failed)
    made = replace(node, phase=phase, done=done, total=total, line=line, failed="", touched="", seen=now)
    if phase != node.phase:
        made = replace(made, began=now, rate=0.0)
    elif done > node.done and now > node.moved:
        late = (done - node.done) / (now - node.moved)
        made = replace(made, rate=late if not node.rate else (2 * node.rate + late) / 3)
    return replace(made, moved=now) if fresh else made


def _with(state: State, name: str, node: Node) -> State:
    return replace(state, nodes={**state.nodes, name: node})


def _bytes(value: Any) -> int:
    return value if type(value) is int and 0 <= value < 1 << 60 else 0


def _text(value: Any, limit: int) -> str:
    """One line of printable characters, whatever came."""
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else "?" for c in value[:limit])


def to_data(state: State) -> dict[str, Any]:
    """As JSON."""
    return {
        "format": FORMAT,
        "nodes": {name: dataclasses.asdict(node) for name, node in state.nodes.items()},
        "strangers": [dataclasses.asdict(one) for one in state.strangers.values()],
    }


def from_data(data: Any, names: list[str]) -> State:
    """Of JSON, for the nodes that there are now.

    Raises ValueError, KeyError or TypeError if it is none of ours.
    """
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']}")
    known = {name: Node(**entry) for name, entry in data["nodes"].items()}
    strangers = {entry["mac"]: Stranger(**entry) for entry in data["strangers"]}
    return State({name: known.get(name, Node()) for name in names}, strangers)
