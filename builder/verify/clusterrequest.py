"""What a cluster test is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Address
from pathlib import Path

from builder.errors import BuilderError, Exit
from builder.verify.request import BootTest
from builder.verify.ssh import Ssh


@dataclass(frozen=True)
class Engine:
    """What the test has to know of the cluster's engine.

    ``head`` serves the API at TCP ``port``; ``listens`` are each node's TCP ports that the others need.
    ``complete`` asks the API at a base URL for one completion and returns its text; ``evidence`` proves from
    the nodes themselves, by name, that each took part. Both raise StepFailed, OSError or ValueError if not.
    """

    head: str
    port: int
    listens: Mapping[str, tuple[int, ...]]
    complete: Callable[[str], str]
    evidence: Callable[[Mapping[str, Ssh]], str]


@dataclass(frozen=True)
class ClusterLimits:
    """Caps in seconds, as those of a boot test."""

    join: float = 600  # from builder-ready on the last node to builder-joined on all
    healthy: float = 180
    missing: float = 180  # from the power cut to the doctor's naming it

    def scaled(self, factor: float) -> ClusterLimits:
        return ClusterLimits(**{one.name: getattr(self, one.name) * factor for one in fields(self)})


@dataclass(frozen=True)
class ClusterTest:
    """A cluster to be installed from one medium.

    ``nodes``: one boot test for each, all from the same medium; their folders become ``out``/NAME. ``head``:
    where the doctor is asked. Without an ``engine`` there is nothing to join, and no test of it. ``inside_only``:
    TCP ports that the firewall opens to the subnet only; ``unopened``: one that it opens to nobody. ``together``:
    how many are installed at a time; if more than one, each has 1 CPU. ``doctor``: a command that exits 0 if all
    is well and prints JSON: ``members`` says of each node why it is missing, or null.
    """

    nodes: tuple[BootTest, ...]
    out: Path
    head: str
    engine: Engine | None = None
    inside_only: tuple[int, ...] = ()
    unopened: int = 7
    together: int = 1
    doctor: str = "node-doctor --json"
    limits: ClusterLimits = ClusterLimits()


def static_addresses(request: ClusterTest) -> dict[str, IPv4Address]:
    """Each node's address. Raises BuilderError (SPEC) for a cluster that cannot be tested so."""
    found: dict[str, IPv4Address] = {}
    for one in request.nodes:
        if one.address == "dhcp":
            raise BuilderError(
                f"{one.node} takes its address by DHCP, so nobody could say where it is on the virtual LAN",
                hint="test a copy of the spec with static addresses, or each node alone: builder boot-test --node",
                code=Exit.SPEC,
            )
        found[one.node] = one.address
    if request.head not in found:
        raise BuilderError(f"the head {request.head} is not among {', '.join(found)}", code=Exit.SPEC)
    return found
