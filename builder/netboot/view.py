"""What people see of the nodes, in a terminal and on the page: one row a node, failures first. Pure.

*Stuck* is a node that says nothing any more, or speaks but does not move; *slow* is one that moves, and much
slower than the others do in the same phase.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from builder.console import human
from builder.netboot.orders import Node, State

Health = Literal["failed", "stuck", "slow", "working", "waiting", "installed", "idle"]
ORDER: tuple[Health, ...] = ("failed", "stuck", "slow", "working", "waiting", "installed", "idle")
SILENT = 30.0  # seconds without a report; the installer sends one every 3
# Seconds without a report in the phases in which nothing of ours runs: firmware and kernel; casper, which fetches
# Ubuntu's ISO and boots it; Ubuntu's installer.
QUIET = {"loading": 240.0, "iso": 1800.0, "ubuntu": 1800.0}
STILL = {"verify": 120.0, "fetch": 120.0, "unpack": 120.0, "models": 120.0}  # seconds without a byte
STILL_ELSE = 300.0  # seconds that any other phase may take
SLOW = 1 << 20  # bytes a second, however fast the others are
TIMES_SLOWER = 4
_GRACE = 10.0  # seconds of a phase before its rate is judged


@dataclass(frozen=True)
class Row:
    """``percent`` is None where there is nothing to count; ``rate`` in bytes a second.

    ``age``: seconds since the last report, None for never; ``note`` says why it is stuck, slow or failed.
    """

    name: str
    health: Health
    phase: str
    percent: int | None
    rate: float
    line: str
    note: str
    age: float | None


def rows(state: State, now: float) -> list[Row]:
    """One for each node, failures first, then in the order of the spec."""
    usual = _usual(state, now)
    made = [_row(name, node, usual, now) for name, node in state.nodes.items()]
    return sorted(made, key=lambda row: ORDER.index(row.health))


def data(state: State, now: float, about: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON: what anybody on the network may read, so no order and no token is in it."""
    made = rows(state, now)
    counts = {health: sum(row.health == health for row in made) for health in ORDER}
    return {
        **about,
        "now": now,
        "counts": counts,
        "rows": [asdict(row) for row in made],
        "strangers": sorted(
            ({**asdict(one), "age": now - one.seen} for one in state.strangers.values()),
            key=lambda one: float(one["age"]),
        ),
    }


def table(found: Mapping[str, Any], width: int) -> str:
    """The same as text, of :func:`data`'s answer."""
    counts = ", ".join(f"{count} {health}" for health, count in found["counts"].items() if count)
    lines = [f"{found['cluster']}: {counts}"]
    names = max([4, *(len(row["name"]) for row in found["rows"])])
    lines.append(f"{'node':{names}} {'state':9} {'phase':10} {'':5} {'rate':>12} {'age':>6}  last line")
    for row in found["rows"]:
        percent = "" if row["percent"] is None else f"{row['percent']} %"
        rate = f"{human(int(row['rate']))}/s" if row["rate"] else ""
        said = row["note"] or row["line"]
        cells = (
            f"{row['name']:{names}} {row['health']:9} {row['phase']:10} {percent:>5} {rate:>12}",
            ago(row["age"]),
        )
        lines.append(f"{cells[0]} {cells[1]:>6}  {said}"[:width].rstrip())
    for one in found["strangers"]:
        text = f"no node: mac {one['mac']} uuid {one['uuid']} serial {one['serial']} asked {ago(one['age'])} ago"
        lines.append(text[:width])
    return "\n".join(lines)


def ago(age: float | None) -> str:
    """A time span in at most 6 characters."""
    if age is None:
        return "-"
    for unit, seconds in (("s", 60), ("min", 3600), ("h", 86400)):
        if age < seconds:
            return f"{age / {'s': 1, 'min': 60, 'h': 3600}[unit]:.0f} {unit}"
    return f"{age / 86400:.0f} d"


def _row(name: str, node: Node, usual: Mapping[str, float], now: float) -> Row:
    health, note = _health(node, usual, now)
    percent = min(100, 100 * node.done // node.total) if node.total else None
    moving = health in ("working", "slow")
    return Row(
        name=name,
        health=health,
        phase=node.failed or node.phase,
        percent=percent,
        rate=node.rate if moving else 0.0,
        line=node.line,
        note=note,
        age=now - node.seen if node.seen else None,
    )


def _health(node: Node, usual: Mapping[str, float], now: float) -> tuple[Health, str]:
    if node.failed:
        touched = f" (the disk {node.touched} was already being written)" if node.touched else ""
        return "failed", f"failed in {node.failed}: {node.line}{touched}"
    if not node.order:
        return ("installed" if node.phase == "installed" else "idle"), ""
    if node.phase == "ordered":
        return "waiting", "boots the installer when it is started from the network"
    silent, still = now - node.seen, now - node.moved
    if silent > QUIET.get(node.phase, SILENT):
        return "stuck", f"said nothing for {ago(silent)}: off, hung, or cut from the network"
    if node.phase not in QUIET and still > STILL.get(node.phase, STILL_ELSE):
        return "stuck", f"it answers, but has not moved for {ago(still)}"
    if node.rate and now - node.began > _GRACE:
        peers = usual.get(node.phase, 0.0)
        if node.rate < SLOW or node.rate * TIMES_SLOWER < peers:
            others = f"; the others have {human(int(peers))}/s" if peers else ""
            return "slow", f"it moves, at {human(int(node.rate))}/s{others}"
    return "working", ""


def _usual(state: State, now: float) -> dict[str, float]:
    """The median rate of each phase, where at least three nodes are in it."""
    rates: dict[str, list[float]] = {}
    for node in state.nodes.values():
        if node.order and node.rate and not node.failed and now - node.moved < SILENT:
            rates.setdefault(node.phase, []).append(node.rate)
    return {phase: statistics.median(found) for phase, found in rates.items() if len(found) > 2}
