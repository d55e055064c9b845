"""What every node says of itself, asked from the admin's machine over ssh: one row a node.

A node answers with the JSON of its own `node-doctor` (overlays/site/rootfs/usr/lib/builder/doctor).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from builder.run import Completed, run
from builder.spec.model import Cluster, Node

LIMIT = 60  # seconds that a node's doctor may take
LOST = 255  # ssh's own exit status when the connection, not the command, failed
AT_ONCE = 16

Ask = Callable[[Sequence[str]], Completed]


@dataclass(frozen=True)
class Row:
    """One node. None: not known, since the node could not be asked.

    ``joined``: nodes that it sees in the cluster, of how many; None without an engine too. ``plan_matches``:
    whether it was installed from the plan that the spec and its lock give now; None without a lock. ``url``,
    ``notes``: where the engine is reached, and what it says of itself.
    """

    node: str
    address: str
    reachable: bool
    ready: bool | None = None
    joined: tuple[int, int] | None = None
    plan: str | None = None
    plan_matches: bool | None = None
    problems: tuple[str, ...] = ()
    url: str = ""
    notes: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether there is nothing to do about this node."""
        whole = self.joined is None or self.joined[0] == self.joined[1]
        return bool(
            self.reachable and self.ready and whole and self.plan_matches is not False and not self.problems
        )

    def as_data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {**asdict(self), "good": self.good}


def ask(argv: Sequence[str]) -> Completed:
    """The real way to ask: ssh, with the user's agent, which no other program of ours needs."""
    agent = {name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ}
    return run(argv, step="asking a node", env=agent, check=False)


def status(cluster: Cluster, plan_id: str | None, ask: Ask = ask) -> tuple[Row, ...]:
    """Ask every node, many at once; in the order of the spec. ``plan_id``: what they should run, if it is known.

    Raises BuilderError if ssh is not installed. A node that cannot be asked is a row, not an error.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda node: ask(argv(cluster, node)), cluster.nodes)
        return tuple(row(node, done, plan_id) for node, done in zip(cluster.nodes, answers, strict=True))


def argv(cluster: Cluster, node: Node) -> list[str]:
    """The command line. Pure. A node by DHCP is asked for by its name, which its network may know.

    A reinstalled node has new host keys: one that was never seen is taken, a changed one is refused.
    """
    return [
        "ssh",
        *("-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
        f"{cluster.access.user}@{host(node)}",
        f"sudo -n timeout {LIMIT} node-doctor --json",
    ]


def host(node: Node) -> str:
    """What a node is reached by."""
    return node.name if node.address == "dhcp" else str(node.address)


def row(node: Node, done: Completed, plan_id: str | None) -> Row:
    """What an answer means. Pure."""
    where = (node.name, str(node.address))
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    if done.returncode == LOST:
        return Row(*where, reachable=False, problems=(_why_lost(node, done.stderr),))
    try:
        answer = json.loads(done.stdout)
        joined = (int(answer["joined"][0]), int(answer["joined"][1])) if answer["joined"] else None
        problems = tuple(f"{c['what']}: {c['why']}" for c in answer["checks"] if c["state"] == "problem")
        if answer["node"] != node.name:
            problems = (f"the machine at this address says that it is {answer['node']}", *problems)
        return Row(
            *where,
            reachable=True,
            ready=answer["ready"],
            joined=joined,
            plan=str(answer["plan"]),
            plan_matches=None if plan_id is None else answer["plan"] == plan_id,
            problems=problems,
            url=str(answer.get("url") or ""),
            notes=tuple(map(str, answer.get("notes") or ())),
        )
    except (ValueError, KeyError, TypeError, IndexError):
        why = f"node-doctor exited {done.returncode} without an answer"
        if done.returncode == 124:
            why = f"node-doctor took longer than {LIMIT} s"
        return Row(*where, reachable=True, problems=(f"{why}: {said[-1]}" if said else why,))


def _why_lost(node: Node, stderr: str) -> str:
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in stderr:
        return f"its host key changed; if it was reinstalled: ssh-keygen -R {host(node)}"
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "ssh said nothing"


def table(rows: Sequence[Row]) -> str:
    """The rows for a person; one line a node, of its problems the first and how many more. Pure."""
    cells = [("NODE", "ADDRESS", "REACHABLE", "READY", "JOINED", "PLAN", "PROBLEM")]
    for row in rows:
        cells.append(
            (
                row.node,
                row.address,
                _word(row.reachable),
                _word(row.ready),
                "-" if row.joined is None else f"{row.joined[0]}/{row.joined[1]}",
                _plan(row),
                _problem(row.problems),
            )
        )
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
    return "".join(f"{line.rstrip()}\n" for line in (*lines, *_told(rows)))


def _told(rows: Sequence[Row]) -> list[str]:
    """Where the cluster is to be reached, and what its engine says of itself; each once."""
    said = [f"{row.node}: {note}" for row in rows for note in row.notes]
    urls = dict.fromkeys(f"open {row.url}" for row in rows if row.url)
    return [*urls, *said]


def _word(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "-"}[value]


def _plan(row: Row) -> str:
    if row.plan is None:
        return "-"
    return {True: "ok", False: f"OTHER {row.plan[:12]}", None: row.plan[:12]}[row.plan_matches]


def _problem(problems: tuple[str, ...]) -> str:
    if not problems:
        return "-"
    more = f" (+{len(problems) - 1})" if len(problems) > 1 else ""
    return problems[0] + more
