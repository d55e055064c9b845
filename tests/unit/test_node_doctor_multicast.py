"""Whether multicast passes: what is said to the group, and what the doctor makes of who was heard."""

from __future__ import annotations

from typing import Any

import pytest

from tests import nodetools
from tests.unit.test_node_doctor_checks import SAYS, facts, peer

checks = nodetools.module("checks")
model = nodetools.module("model")
multicast = nodetools.module("multicast")

EXO = {"group": "224.0.0.251", "port": 5353, "instead": "engine.discovery: static"}


def looked(heard: dict[str, float] | None, there: dict[str, float] | None, **changes: Any) -> Any:
    says = {**SAYS, "heard": there}
    return checks.multicast(facts(multicast=EXO, heard=heard, peers={"node2": peer(says=says)}, **changes))


def test_what_is_said_is_a_dns_question_and_nothing_else_is_taken_for_one() -> None:
    packet = multicast.question("node1")
    assert packet.hex() == (
        "000000000001000000000000"
        + "056e6f646531"
        + "085f6275696c646572"
        + "045f756470"
        + "056c6f63616c00"
        + "000c0001"
    )
    assert multicast.name_in(packet) == "node1"
    for other in (b"", b"\0" * 12, packet[:-1], packet + b"x", packet.replace(b"_builder", b"_printer")):
        assert multicast.name_in(other) is None


def test_an_engine_without_multicast_is_not_asked() -> None:
    assert checks.multicast(facts()) == model.NotRun("the engine (llamacpp) does not use multicast")


def test_both_directions() -> None:
    assert looked({"node2": 1.0}, {"node1": 19.0}) == model.Ok("224.0.0.251, udp 5353: to and from 1 nodes")


@pytest.mark.parametrize(
    ("heard", "there", "what"),
    [
        ({}, {"node1": 1.0}, "from node2 it does not arrive here"),
        ({"node2": 21.0}, {"node1": 1.0}, "from node2 it does not arrive here"),
        ({"node2": 1.0}, {}, "from here it does not arrive at node2"),
        ({}, {}, "from node2 it does not arrive here; from here it does not arrive at node2"),
    ],
)
def test_a_direction_that_is_blocked(heard: dict[str, float], there: dict[str, float], what: str) -> None:
    found = looked(heard, there)
    assert found.what == f"multicast (224.0.0.251, udp 5353): {what}"
    assert "IGMP snooping" in found.do
    assert found.do.endswith("or write engine.discovery: static")


def test_it_is_not_judged_before_both_have_listened_for_a_while() -> None:
    early = "builder-join on this node has not listened for long enough"
    assert looked(None, {"node1": 1.0}, limits={"heard": early}) == model.NotRun(early)
    assert isinstance(looked({}, None), model.NotRun)
