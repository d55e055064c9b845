"""What builder-join says when, what the banner shows, and how an engine's members are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import nodetools

banner = nodetools.module("banner")
engines = nodetools.module("engines")
llamacpp = nodetools.module("engines.llamacpp")
looks = nodetools.module("look")
membership = nodetools.module("members")
net = nodetools.module("net")
node = nodetools.module("node")
watch = nodetools.module("watch")

ALL: dict[str, str | None] = {"node1": None, "node2": None}
ONE: dict[str, str | None] = {"node1": None, "node2": "no answer"}
NOBODY: dict[str, str | None] = {"node1": "loading", "node2": "no answer"}
CLUSTER: dict[str, Any] = {
    "cluster": "pair",
    "nodes": [{"name": f"node{n}", "address": f"10.77.0.1{n}"} for n in (1, 2, 3)],
    "engine": {
        "name": "llamacpp",
        "head": "node1",
        "api": {"port": 8080},
        "rpc": {"port": 50052},
        "units": {"head": ["llamacpp-server.service"], "worker": ["llamacpp-rpc.service"]},
    },
}


def told(looks: list[tuple[float, dict[str, str | None]]]) -> tuple[list[tuple[float, str]], ...]:
    """(time, line) of the journal and of the consoles, over a series of looks."""
    state = watch.State(console_at=0.0)
    journal, console = [], []
    for now, seen in looks:
        state, say = watch.step(state, now, seen, "PLAN")
        journal += [(now, line) for line in say.journal]
        console += [(now, line) for line in say.console]
    return journal, console


def test_joined_is_said_once_and_at_once() -> None:
    journal, console = told([(2, ONE), (4, ALL), (9, ALL), (99, ALL)])
    assert journal == [(2, "builder-not-joined 1/2 PLAN: node2: no answer"), (4, "builder-joined 2/2 PLAN")]
    assert console == [(4, "builder-joined 2/2 PLAN")]


def test_waiting_is_never_silent() -> None:
    journal, console = told([(float(now), ONE) for now in range(0, 601, 2)])
    assert [now for now, _ in journal] == [30.0 * n for n in range(21)]
    assert [now for now, _ in console] == [60.0 * n for n in range(1, 11)]
    assert {line for _, line in console} == {"builder-not-joined 1/2 PLAN: node2: no answer"}


def test_the_journal_follows_who_comes_and_not_each_change_of_words() -> None:
    journal, _ = told([(1, NOBODY), (3, {**NOBODY, "node1": "starting"}), (5, ONE)])
    assert [now for now, _ in journal] == [1, 5]


def test_a_loss_is_named_after_two_looks_and_the_return_is_said() -> None:
    journal, console = told([(1, ALL), (6, ONE), (11, ONE), (16, ONE), (21, ALL)])
    assert journal == console
    assert [(now, line.split(" PLAN")[0]) for now, line in console] == [
        (1, "builder-joined 2/2"),
        (11, "builder-not-joined 1/2"),
        (21, "builder-joined 2/2"),
    ]


def test_one_missed_look_is_not_a_loss() -> None:
    journal, _ = told([(1, ALL), (6, ONE), (11, ALL), (16, ONE), (21, ALL)])
    assert len(journal) == 1


def test_the_banner_says_where_and_who() -> None:
    text = banner.text(CLUSTER, "node2", "c" * 64, {"node1": None, "node2": None, "node3": "no answer"})
    assert text.splitlines() == [
        "cluster pair, node node2 (10.77.0.12), plan cccccccccccc",
        "joined 2/3",
        "  node3: no answer",
        "API: http://10.77.0.11:8080/v1",
        "what is wrong, and what to do: sudo node-doctor",
    ]
    assert banner.for_issue("a\\b") == "a\\\\b\n"


def test_the_banner_without_an_engine() -> None:
    cluster = {**CLUSTER, "engine": {"name": "none"}}
    assert "nothing to join" in banner.text(cluster, "node1", "c" * 64, {})


class Look:
    """What a probe would see. ``says``: node → (listening, members); ``status``: of the head's /health."""

    def __init__(self, me: str, status: int | None, says: dict[str, Any], links: set[str], orphan: bool = False):
        self.me, self.status, self.says, self.links, self.orphan = me, status, says, links, orphan
        self.why = {f"node{n}": f"no answer from 10.77.0.1{n}:50051" for n in (1, 2, 3)}

    def address(self, name: str) -> str:
        return f"10.77.0.1{name[-1]}"

    def ask_all(self, _names: object) -> None: ...

    def ask(self, name: str) -> dict[str, Any] | None:
        said = self.says.get(name)
        return None if said is None else {"listening": said[0], "members": said[1]}

    def get(self, _name: str, _port: int, _path: str) -> Any:
        if self.status is None:
            raise ConnectionRefusedError(111, "Connection refused")
        return net.Reply(self.status, b"")

    def listening(self, port: int) -> bool:
        return self.me in self.says and port in self.says[self.me][0]

    def connected(self, name: str, _port: int) -> bool:
        return name in self.links

    def orphans(self, _name: str, _port: int) -> tuple[int, ...]:
        return (40000,) if self.orphan else ()


UP: tuple[list[int], dict[str, str | None]] = ([50052], {})


@pytest.mark.parametrize(
    ("look", "reasons"),
    [
        (Look("node1", 200, {"node2": UP, "node3": UP}, {"node2", "node3"}), ("", "", "")),
        (Look("node1", 503, {"node2": UP, "node3": UP}, {"node2", "node3"}), ("is loading the model", "", "")),
        (Look("node1", None, {"node2": UP, "node3": UP}, set()), ("Connection refused", "holds no", "holds no")),
        # Measured: /health stays 200 after a worker died, and its connection may even look alive.
        (Look("node1", 200, {"node2": UP}, {"node2", "node3"}), ("", "", "no answer from 10.77.0.13:50051")),
        (Look("node1", 200, {"node2": ([], {}), "node3": UP}, {"node3"}), ("", "rpc.service is not running", "")),
        (Look("node1", 200, {"node2": UP, "node3": UP}, {"node3"}), ("", "holds no connection to 10.77.0.12", "")),
        # A worker believes the head about the others, and itself about itself.
        (
            Look("node2", 200, {"node1": ([], {"node2": None, "node3": "gone"}), "node2": UP}, set()),
            ("", "", "gone"),
        ),
        (
            Look("node2", 200, {"node1": ([], {"node2": None, "node3": None})}, set()),
            ("", "rpc.service is not running", ""),
        ),
        (
            Look("node2", 200, {"node1": ([], {}), "node2": UP}, set()),
            ("", "does not know it", "does not know it"),
        ),
        (Look("node2", None, {"node2": UP}, set()), ("Connection refused", "not known: no answer", "not known")),
    ],
)
def test_members_of_llamacpp(look: Look, reasons: tuple[str, ...]) -> None:
    members = llamacpp.members(CLUSTER, look)
    assert list(members) == ["node1", "node2", "node3"]
    for found, wanted in zip(members.values(), reasons, strict=True):
        assert found is None if wanted == "" else wanted in found


A, B = "a" * 64, "b" * 64


class Answers(Look):
    """A head that finds everybody in; ``plans`` are those of the nodes that answer."""

    def __init__(self, plans: dict[str, str]) -> None:
        super().__init__("node1", 200, {"node2": UP, "node3": UP}, {"node2", "node3"})
        self.plans = plans

    def ask(self, name: str) -> dict[str, Any] | None:
        said = super().ask(name)
        return None if said is None or name not in self.plans else {**said, "plan": self.plans[name]}


@pytest.mark.parametrize(
    ("rule", "plans", "members"),
    [
        ("flag", {"node2": A, "node3": B}, {"node1": None, "node2": None, "node3": None}),
        ("refuse", {"node2": A, "node3": A}, {"node1": None, "node2": None, "node3": None}),
        (
            "refuse",
            {"node2": A, "node3": B},
            {"node1": None, "node2": None, "node3": "has plan bbbbbbbbbbbb, and node1 has aaaaaaaaaaaa"},
        ),
        (
            "refuse",
            {"node2": B},
            {
                "node1": None,
                "node2": "has plan bbbbbbbbbbbb, and node1 has aaaaaaaaaaaa",
                "node3": "no answer from 10.77.0.13:50051",
            },
        ),
    ],
)
def test_a_node_of_another_plan_is_refused_if_the_spec_says_so(
    rule: str, plans: dict[str, str], members: dict[str, str | None]
) -> None:
    assert membership.seen({**CLUSTER, "join": {"mixed_plans": rule}}, Answers(plans), A) == members


def test_a_refused_node_is_named_with_both_plans() -> None:
    refused = membership.agreeing(ALL, "plan ", {"node2": B[:12]}, "node1", A[:12])
    assert watch.headline(refused, A) == (
        f"builder-not-joined 1/2 {A}: node2: has plan bbbbbbbbbbbb, and node1 has aaaaaaaaaaaa"
    )


def test_the_plan_is_the_first_reason_and_never_one_s_own() -> None:
    members = {"node1": None, "node2": "nothing listens"}
    assert membership.agreeing(members, "plan ", {"node2": B}, "node1", A)["node2"].startswith("has plan bbbb")
    assert membership.agreeing(members, "plan ", {"node2": A}, "node1", A) == members
    assert membership.agreeing(members, "plan ", {}, "node1", A) == members


def test_another_version_of_the_engine_is_refused_whatever_the_spec_says_of_plans() -> None:
    """Where the engine has versions that cannot be mixed; a node that says nothing of it is an older image."""

    class Versions(Look):
        def ask(self, name: str) -> dict[str, Any] | None:
            said = super().ask(name)
            return said and {**said, "plan": A, **({"engine": "llamacpp 2"} if name == "node2" else {})}

    look = Versions("node1", 200, {"node2": UP, "node3": UP}, {"node2", "node3"})
    mixed = {**CLUSTER, "join": {"mixed_plans": "flag"}, "engine": {**CLUSTER["engine"], "version": "3"}}
    refused = {"node1": None, "node2": "has llamacpp 2, and node1 has llamacpp 3", "node3": None}
    assert membership.seen(mixed, look, A) == refused


def test_nodes_whose_cluster_says_nothing_of_plans_are_flagged_only() -> None:
    assert not node.refuses_mixed_plans(CLUSTER)
    assert (
        membership.seen({**CLUSTER, "join": {"mixed_plans": "refuse"}, "engine": {"name": "none"}}, None, A) == {}
    )


def test_an_engine_that_the_image_lacks_is_named() -> None:
    with pytest.raises(
        node.UnknownError, match=r"cluster\.json names the engine slurm, and this image has nothing"
    ):
        engines.of({"engine": {"name": "slurm"}})


@pytest.mark.parametrize(
    ("look", "units"),
    [
        (Look("node1", 200, {"node2": UP, "node3": UP}, {"node2", "node3"}), ()),
        (Look("node1", 200, {"node2": UP, "node3": UP}, {"node3"}), ("llamacpp-server.service",)),
        (Look("node1", 200, {"node3": UP}, {"node3"}), ()),  # still dead: nothing to gain from a restart
        (Look("node1", 503, {"node2": UP, "node3": UP}, {"node3"}), ()),  # it is calling them just now
        (Look("node1", None, {"node2": UP, "node3": UP}, set()), ()),  # systemd's own restart is at work
        (Look("node2", 200, {"node2": UP}, set()), ()),
        (Look("node2", None, {"node2": UP}, set(), orphan=True), ("llamacpp-rpc.service",)),
    ],
)
def test_what_cannot_recover_by_itself_is_restarted(look: Look, units: tuple[str, ...]) -> None:
    assert llamacpp.mend(CLUSTER, look) == units


def test_units_and_doors_by_role() -> None:
    assert llamacpp.units(CLUSTER, "node1") == ("llamacpp-server.service",)
    assert llamacpp.units(CLUSTER, "node3") == ("llamacpp-rpc.service",)
    assert [(door.port, door.serial) for door in llamacpp.doors(CLUSTER, "node1")] == [(8080, False)]
    assert [(door.port, door.serial) for door in llamacpp.doors(CLUSTER, "node2")] == [(50052, True)]


def test_the_kernel_s_table_of_connections() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue\n"
        "   0: 00000000:C384 00000000:0000 0A 00000000:00000000\n"
        "   1: 0B004D0A:9C40 0C004D0A:C384 01 00000000:00000000\n"
        "   2: 0B004D0A:9C41 0C004D0A:C384 08 00000000:00000000\n"  # CLOSE_WAIT: the worker has died
        "   3: 0000000000000000FFFF00000B004D0A:1F90 0000000000000000FFFF00000C004D0A:9C42 01 0:0\n"
    )
    table = net.parse_table(text)
    assert table.listening == {50052}
    assert table.connections == {(40000, "10.77.0.12", 50052), (8080, "10.77.0.12", 40002)}


@pytest.mark.parametrize(
    ("theirs", "connected"),
    [
        ([[50052, "10.77.0.11", 40000]], True),
        ([[50052, "10.77.0.11", 39999]], False),  # it was rebooted: our end is left over
        ([[50052, "10.77.0.13", 40000]], False),
        ([], False),
        (None, True),  # it does not answer, and nobody can say more
    ],
)
def test_a_connection_counts_when_both_ends_know_it(
    theirs: list[list[Any]] | None, connected: bool, tmp_path: Path
) -> None:
    look = looks.Look(CLUSTER, "node1", tmp_path)
    look.table = net.Table(frozenset(), frozenset({(40000, "10.77.0.12", 50052)}))
    look._answers["node2"] = None if theirs is None else {"connections": theirs}
    assert look.connected("node2", 50052) is connected


@pytest.mark.parametrize(
    ("theirs", "orphans"),
    [
        ([[40000, "10.77.0.12", 50052]], (39999,)),
        ([[40000, "10.77.0.12", 50052], [39999, "10.77.0.12", 50052]], ()),
        (None, ()),
    ],
)
def test_an_end_that_the_head_does_not_know_is_an_orphan(
    theirs: list[list[Any]] | None, orphans: tuple[int, ...], tmp_path: Path
) -> None:
    look = looks.Look(CLUSTER, "node2", tmp_path)
    mine = {
        (50052, "10.77.0.11", 40000),
        (50052, "10.77.0.11", 39999),
        (50052, "10.77.0.13", 1),
        (22, "10.77.0.11", 2),
    }
    look.table = net.Table(frozenset({50052}), frozenset(mine))
    look._answers["node1"] = None if theirs is None else {"connections": theirs}
    assert look.orphans("node1", 50052) == orphans
