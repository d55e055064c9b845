"""What people see: failures first, and slow told from stuck."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builder.netboot import view
from builder.netboot.orders import Node, State, Stranger

NOW = 10_000.0
MIB = 1 << 20
BUSY = replace(
    Node(order="w", phase="unpack", done=50, total=100, rate=50.0 * MIB, line="x"),
    began=NOW - 60,
    seen=NOW - 1,
    moved=NOW - 1,
)


def row(node: Node, **others: Node) -> view.Row:
    (found,) = (one for one in view.rows(State({"node1": node, **others}), NOW) if one.name == "node1")
    return found


@pytest.mark.parametrize(
    ("change", "health", "note"),
    [
        ({}, "working", ""),
        ({"order": "", "phase": ""}, "idle", ""),
        ({"order": "", "phase": "installed"}, "installed", ""),
        ({"phase": "ordered", "seen": NOW - 86400, "moved": NOW - 86400}, "waiting", "when it is started"),
        ({"seen": NOW - 31}, "stuck", "said nothing for 31 s"),
        ({"seen": NOW - 29}, "working", ""),
        ({"moved": NOW - 121}, "stuck", "it answers, but has not moved for 2 min"),
        ({"moved": NOW - 119}, "working", ""),
        ({"phase": "bootloader", "total": 0, "rate": 0.0, "moved": NOW - 121}, "working", ""),
        ({"phase": "bootloader", "total": 0, "rate": 0.0, "moved": NOW - 301}, "stuck", "has not moved for 5 min"),
        ({"phase": "loading", "seen": NOW - 120, "moved": NOW - 120}, "working", ""),
        ({"phase": "loading", "seen": NOW - 241, "moved": NOW - 241}, "stuck", "said nothing for 4 min"),
        ({"rate": 0.5 * MIB}, "slow", "it moves, at 512.0 KiB/s"),
        ({"rate": 0.5 * MIB, "began": NOW - 5}, "working", ""),
        ({"failed": "disk", "line": "no disk"}, "failed", "failed in disk: no disk"),
        ({"failed": "unpack", "touched": "/dev/vda"}, "failed", "the disk /dev/vda was already being written"),
        ({"failed": "disk", "seen": NOW - 9999, "moved": NOW - 9999}, "failed", "failed in disk"),
    ],
)
def test_health(change: dict[str, Any], health: str, note: str) -> None:
    found = row(replace(BUSY, **change))
    assert found.health == health
    assert note in found.note


def test_slow_is_much_slower_than_the_others_in_the_same_phase() -> None:
    others = {f"node{n}": BUSY for n in range(2, 6)}
    assert row(replace(BUSY, rate=12.0 * MIB), **others).health == "slow"
    assert "the others have 50.0 MiB/s" in row(replace(BUSY, rate=12.0 * MIB), **others).note
    assert row(replace(BUSY, rate=13.0 * MIB), **others).health == "working"
    elsewhere = {name: replace(node, phase="models") for name, node in others.items()}
    assert row(replace(BUSY, rate=12.0 * MIB), **elsewhere).health == "working"


def test_failures_first_then_the_order_of_the_spec() -> None:
    states = {
        "a": Node(),
        "b": BUSY,
        "c": replace(BUSY, seen=NOW - 99),
        "d": replace(BUSY, failed="disk"),
        "e": BUSY,
        "f": Node(phase="installed"),
        "g": replace(BUSY, rate=1.0),
    }
    assert [one.name for one in view.rows(State(states), NOW)] == ["d", "c", "g", "b", "e", "f", "a"]


def test_nothing_secret_is_shown() -> None:
    state = State({"node1": replace(BUSY, order="secret1", carried="secret2")})
    text = str(view.data(state, NOW, {"cluster": "c"}))
    assert "secret" not in text and "'percent': 50" in text


def test_the_table_fits_the_terminal() -> None:
    state = State(
        {f"node{n}": replace(BUSY, line="long " * 50) for n in range(500)},
        {"m": Stranger("52:54:00:00:00:09", "u", "s", "10.0.0.9", NOW - 7200)},
    )
    text = view.table(view.data(state, NOW, {"cluster": "c"}), 100)
    lines = text.splitlines()
    assert len(lines) == 503 and max(map(len, lines)) <= 100
    assert lines[0] == "c: 500 working"
    assert lines[-1].startswith("no node: mac 52:54:00:00:00:09") and "2 h ago" in lines[-1]


@pytest.mark.parametrize(
    ("age", "text"), [(None, "-"), (0.4, "0 s"), (59, "59 s"), (61, "1 min"), (7300, "2 h"), (200000, "2 d")]
)
def test_ages(age: float | None, text: str) -> None:
    assert view.ago(age) == text
