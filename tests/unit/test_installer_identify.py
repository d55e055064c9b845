"""Which node: every key that is given must be this machine's, and exactly one node may match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.installer.facts import identifier
from builder.installer.identify import Identified, Unknown, identify, matches
from builder.installer.model import Machine, Match, Nic, Node, Want

MAC = "52:54:00:77:00:01"
UUID = "4c4c4544-0042-3510-8054-b4c04f4a4d32"
MACHINE = Machine(
    nics=(Nic("lo", "00:00:00:00:00:00", physical=False), Nic("eth0", "52:54:00:aa:aa:aa"), Nic("eth1", MAC)),
    serial="ABC123",
    uuid=UUID,
)


def node(name: str, **match: str) -> Node:
    return Node(name, Match(**match), Want(largest=True), f"seeds/{name}")


@pytest.mark.parametrize(
    "match",
    [
        {"mac": MAC},
        {"mac": "52:54:00:AA:AA:AA"},
        {"mac": "52-54-00-77-00-01"},
        {"serial": "abc123"},
        {"uuid": UUID.upper()},
        {"mac": MAC, "serial": "ABC123", "uuid": UUID},
    ],
)
def test_matches(match: dict[str, str]) -> None:
    answer = identify(MACHINE, (node("a", mac="52:54:00:00:00:99"), node("b", **match)))
    assert isinstance(answer, Identified)
    assert answer.node.name == "b"


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"mac": "00:00:00:00:00:00"},  # lo is no network card
        {"mac": MAC, "serial": "other"},
        {"serial": " "},
        {"uuid": UUID[:-1]},
    ],
)
def test_does_not_match(match: dict[str, str]) -> None:
    assert not matches(MACHINE, Match(**match))
    assert not matches(Machine(), Match(**match))


def test_no_node_and_two_nodes_are_refused() -> None:
    none = identify(MACHINE, (node("a", mac="52:54:00:00:00:99"),))
    assert none == Unknown("this machine is none of the cluster's nodes: a")
    two = identify(MACHINE, (node("a", mac=MAC), node("b", serial="ABC123"), node("c", serial="x")))
    assert two == Unknown("this machine matches more than one node: a, b", ("a", "b"))


@pytest.mark.parametrize(
    "text",
    [
        *("To be filled by O.E.M.", "Default string", "System Serial Number", "Not Specified", "None", ""),
        *("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff", "0123456789"),
    ],
)
def test_placeholders_identify_nobody(text: str) -> None:
    assert identifier(text) == ""


@pytest.mark.parametrize("text", ["ABC123", UUID, "5CD1234XYZ", "J7N0WW"])
def test_real_identifiers_are_kept(text: str) -> None:
    assert identifier(text) == text


values = st.sampled_from(("", "a", "b", "c"))


@given(
    st.lists(st.builds(Match, values, values, values), max_size=5),
    st.lists(values, max_size=2),
    values,
    values,
)
def test_an_identified_node_is_the_only_one_whose_keys_all_hold(
    wishes: list[Match], macs: list[str], serial: str, uuid: str
) -> None:
    machine = Machine(tuple(Nic(f"eth{n}", mac) for n, mac in enumerate(macs)), serial, uuid)
    nodes = tuple(Node(str(n), wish, Want(largest=True), "") for n, wish in enumerate(wishes))

    def holds(wish: Match) -> bool:
        asked = [(wish.mac, set(macs)), (wish.serial, {serial}), (wish.uuid, {uuid})]
        asked = [pair for pair in asked if pair[0]]
        return bool(asked) and all(key in have for key, have in asked)

    right = [node for node in nodes if holds(node.match)]
    answer = identify(machine, nodes)
    assert ([answer.node] if isinstance(answer, Identified) else []) == (right if len(right) == 1 else [])
