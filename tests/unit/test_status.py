"""The admin's table: what ssh says becomes rows, and no answer is never a good one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from builder import status
from builder.run import Completed
from builder.spec.model import Cluster

PLAN = "a" * 64


def answer(node: str, **changes: Any) -> str:
    checks = [
        {"name": "address", "state": "ok", "what": "10.77.0.11 on enp1s0"},
        {"name": "gpu", "state": "not run", "why": "the cluster's spec has no GPU"},
    ]
    data = {"node": node, "ready": True, "joined": [2, 2], "plan": PLAN, "checks": checks}
    return json.dumps({**data, **changes})


PROBLEM = {"name": "ports here", "state": "problem", "what": "tcp 50052 is closed", "why": "no rule", "do": "x"}


def asked(cluster: Cluster, done: Completed, plan: str | None = PLAN) -> status.Row:
    return status.row(cluster.nodes[0], done, plan)


def test_each_node_is_asked_once_and_the_rows_are_in_the_spec_s_order(quickstart: Cluster) -> None:
    calls: list[list[str]] = []

    def ask(argv: Sequence[str]) -> Completed:
        calls.append(list(argv))
        return Completed(answer("node1" if status.host(quickstart.nodes[0]) in argv[-2] else "node2"), "", 0)

    rows = status.status(quickstart, PLAN, ask)
    assert [row.node for row in rows] == [node.name for node in quickstart.nodes]
    assert sorted(call[-2] for call in calls) == sorted(
        f"{quickstart.access.user}@{status.host(node)}" for node in quickstart.nodes
    )
    assert all(row.good for row in rows)


def test_the_command_line(quickstart: Cluster) -> None:
    assert status.argv(quickstart, quickstart.nodes[0]) == [
        *("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "StrictHostKeyChecking=accept-new"),
        *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
        f"{quickstart.access.user}@{status.host(quickstart.nodes[0])}",
        "sudo -n timeout 60 node-doctor --json",
    ]


def test_a_node_by_dhcp_is_asked_for_by_name(quickstart: Cluster) -> None:
    node = quickstart.nodes[0]
    assert status.host(node.model_copy(update={"address": "dhcp"})) == node.name


@pytest.mark.parametrize(
    ("done", "row"),
    [
        (
            Completed("", "ssh: connect to host 10.77.0.11 port 22: No route to host\n", 255),
            {"reachable": False, "problems": ("ssh: connect to host 10.77.0.11 port 22: No route to host",)},
        ),
        (
            Completed("", "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key …\n", 255),
            {
                "reachable": False,
                "problems": ("its host key changed; if it was reinstalled: ssh-keygen -R {host}",),
            },
        ),
        (Completed("", "", 255), {"reachable": False, "problems": ("ssh said nothing",)}),
        (
            Completed("", "sudo: a password is required\n", 1),
            {
                "reachable": True,
                "problems": ("node-doctor exited 1 without an answer: sudo: a password is required",),
            },
        ),
        (
            Completed('{"half', "", 124),
            {"reachable": True, "problems": ('node-doctor took longer than 60 s: {"half',)},
        ),
        (Completed(answer("node1"), "", 0), {"reachable": True, "ready": True, "joined": (2, 2), "problems": ()}),
        (Completed(answer("node1", joined=None), "", 0), {"joined": None, "good": True}),
        (Completed(answer("node1", joined=[1, 2]), "", 1), {"joined": (1, 2), "good": False}),
        (Completed(answer("node1", ready=None), "", 0), {"ready": None, "good": False}),
        (Completed(answer("node1", plan="b" * 64), "", 0), {"plan_matches": False, "good": False}),
        (
            Completed(answer("node1", checks=[PROBLEM]), "", 1),
            {"problems": ("tcp 50052 is closed: no rule",), "good": False},
        ),
        (
            Completed(answer("node2"), "", 0),
            {"problems": ("the machine at this address says that it is node2",), "good": False},
        ),
        (Completed("[]", "", 0), {"reachable": True, "good": False}),
        (Completed("{}", "", 0), {"reachable": True, "good": False}),
    ],
)
def test_an_answer_becomes_a_row(quickstart: Cluster, done: Completed, row: dict[str, Any]) -> None:
    host = status.host(quickstart.nodes[0])
    wanted = json.loads(json.dumps(row).replace("{host}", host))
    found = json.loads(json.dumps(asked(quickstart, done).as_data()))
    assert {key: found[key] for key in wanted} == wanted


def test_without_a_lock_the_plan_is_shown_and_not_judged(quickstart: Cluster) -> None:
    row = asked(quickstart, Completed(answer("node1"), "", 0), plan=None)
    assert row.plan_matches is None
    assert row.good
    assert PLAN[:12] in status.table([row])


def test_the_table() -> None:
    rows = [
        status.Row("node1", "10.77.0.11", True, True, (1, 2), PLAN, True, ("first", "second")),
        status.Row("node2", "10.77.0.12", False, problems=("No route to host",)),
        status.Row("node3", "dhcp", True, False, None, "b" * 64, False),
    ]
    assert status.table(rows) == (
        "NODE   ADDRESS     REACHABLE  READY  JOINED  PLAN                PROBLEM\n"
        "node1  10.77.0.11  yes        yes    1/2     ok                  first (+1)\n"
        "node2  10.77.0.12  no         -      -       -                   No route to host\n"
        "node3  dhcp        yes        no     -       OTHER bbbbbbbbbbbb  -\n"
    )
