"""Which node of the cluster is this machine: a pure function of its identifiers and the manifest's nodes."""

from __future__ import annotations

from dataclasses import dataclass

from .model import Machine, Match, Node


@dataclass(frozen=True)
class Identified:
    """The one node that this machine is."""

    node: Node
    why: str


@dataclass(frozen=True)
class Unknown:
    """No node, or more than one. ``names`` are the nodes that matched."""

    reason: str
    names: tuple[str, ...] = ()


def identify(machine: Machine, nodes: tuple[Node, ...]) -> Identified | Unknown:
    """The node whose every given key (MAC of any physical NIC, serial, UUID) is this machine's."""
    found = [node for node in nodes if matches(machine, node.match)]
    if len(found) == 1:
        match = found[0].match
        keys = (("mac", match.mac), ("serial", match.serial), ("uuid", match.uuid))
        return Identified(found[0], ", ".join(f"{key} {value}" for key, value in keys if value))
    if found:
        names = tuple(node.name for node in found)
        return Unknown(f"this machine matches more than one node: {', '.join(names)}", names)
    return Unknown("this machine is none of the cluster's nodes: " + ", ".join(node.name for node in nodes))


def matches(machine: Machine, match: Match) -> bool:
    """Whether all keys given are this machine's; a match without keys is nobody's."""
    if not (match.mac or match.serial or match.uuid):
        return False
    macs = {_fold(nic.mac) for nic in machine.nics if nic.physical and nic.mac}
    return (
        (not match.mac or _fold(match.mac) in macs)
        and (not match.serial or _same(match.serial, machine.serial))
        and (not match.uuid or _same(match.uuid, machine.uuid))
    )


def _same(wanted: str, actual: str) -> bool:
    """What the machine does not have is equal to nothing."""
    return bool(actual) and _fold(wanted) == _fold(actual)


def _fold(text: str) -> str:
    return text.strip().lower().replace("-", ":") if text.count("-") == 5 else text.strip().lower()
