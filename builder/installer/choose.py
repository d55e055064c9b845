"""Which node this machine is, and which disk may be written: ``identify`` and ``guard``, asked with the facts of
the moment. Both installers decide here: the direct one and the picker of Ubuntu's."""

from __future__ import annotations

from dataclasses import replace

from . import commands, facts, guard, identify, layout
from .console import Console
from .model import Disk, InstallError, Manifest, Node
from .payload import Payload

SLOW_NICS = 20.0  # seconds that network drivers get to show their cards


def node(console: Console, manifest: Manifest) -> Node:
    """Which node this machine is; slow network cards are waited for. Raises InstallError if it is none, or two."""
    console.phase = "node"
    answer: identify.Identified | identify.Unknown = identify.Unknown("not looked yet")

    def look() -> bool:
        nonlocal answer
        commands.settle(console.log)
        answer = identify.identify(facts.read_machine(), manifest.nodes)
        # Two matches do not become one by waiting.
        return isinstance(answer, identify.Identified) or bool(answer.names)

    commands.wait_for(look, SLOW_NICS, every=0.5)
    if isinstance(answer, identify.Unknown):
        raise InstallError(answer.reason)
    console.step("node", f"{answer.node.name} ({answer.why})")
    return answer.node


def node_named(console: Console, manifest: Manifest, name: str) -> Node:
    """The node that a person named, whatever the machine is. Raises InstallError if the cluster has none such."""
    console.phase = "node"
    found = next((node for node in manifest.nodes if node.name == name), None)
    if found is None:
        names = ", ".join(node.name for node in manifest.nodes)
        raise InstallError(f"builder.node={name}: the cluster has no such node, but {names}")
    console.step("node", f"{name} (builder.node={name} on the kernel's command line)")
    if not identify.matches(facts.read_machine(), found.match):
        console.step("node", f"note: the spec knows {name} by identifiers that this machine does not have")
    return found


def disk(console: Console, found: Payload, node: Node) -> Disk:
    """The disk that the guard allows. Raises InstallError if there is none, with a remark about each disk."""
    console.phase = "disk"
    decision = _judge(console, found, node)
    if isinstance(decision, guard.Refused):
        raise InstallError(decision.reason, tuple(f"{path}: {remark}" for path, remark in decision.disks))
    console.step("disk", f"{decision.disk.path} ({decision.why})")
    return decision.disk


def disk_again(console: Console, found: Payload, node: Node, target: Disk) -> None:
    """Raises InstallError unless the guard still chooses the same disk, unchanged.

    Checking a large payload takes minutes: the machine may not be the one any more that was judged.
    """
    console.phase = "disk"
    decision = _judge(console, found, node)
    changed = "the disks changed while the payload was being checked"
    if isinstance(decision, guard.Refused):
        raise InstallError(f"{changed}: {decision.reason}")
    # Links may still be appearing; all else must be as it was.
    if replace(decision.disk, links=()) != replace(target, links=()):
        raise InstallError(f"{changed}: {target.path} is not what it was")


def _judge(console: Console, found: Payload, node: Node) -> guard.Chosen | guard.Refused:
    manifest = found.manifest
    need = layout.need(manifest.storage, manifest.layer_bytes, manifest.model_sizes)
    disks = facts.read_disks(console.log)
    return guard.decide(disks, node.disk, payload=found.devices, need=need)
