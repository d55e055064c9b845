"""How long each phase of a cluster's boot took, on each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.verify import console
from builder.verify.report import Timing
from builder.verify.serial import Line

_UNITS = ("network-online.target", "cloud-init-local.service", "cloud-final.service")
SHOW = "systemctl show --property=Id,InactiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic " + " ".join(
    _UNITS
)


@dataclass(frozen=True)
class Boot:
    """One boot as the harness and the node saw it; seconds of the harness's clock.

    ``units``: seconds since the kernel's start at which a unit began and was up.
    """

    node: str
    began: float
    lines: Sequence[Line]
    ready: float
    joined: float | None
    units: Mapping[str, tuple[float, float]]

    @property
    def kernel(self) -> float:
        return next((line.at for line in self.lines if console.KERNEL.search(line.text)), self.began)

    @property
    def user_space(self) -> float:
        return next((line.at for line in self.lines if console.USER_SPACE.search(line.text)), self.kernel)

    @property
    def network(self) -> float:
        """When its network was up; if the node does not say, when it was ready."""
        up = self.units.get(_UNITS[0], (0.0, 0.0))[1]
        return self.kernel + up if up else self.ready


def cluster_timings(boots: Sequence[Boot]) -> tuple[Timing, ...]:
    """Each node's phases. ``cloud-init`` lies inside ``services``; ``join`` counts from the last network up."""
    up = max((boot.network for boot in boots), default=0.0)
    found = []
    for boot in boots:
        cloud_init = boot.units.get(_UNITS[2], (0.0, 0.0))[1] - boot.units.get(_UNITS[1], (0.0, 0.0))[0]
        phases = {
            "boot firmware": boot.kernel - boot.began,
            "boot kernel": boot.user_space - boot.kernel,
            "boot services": boot.ready - boot.user_space,
            "boot cloud-init": cloud_init,
        }
        if boot.joined is not None:
            phases |= {"join": boot.joined - up, "power-on to joined": boot.joined - boot.began}
        found += [Timing(f"{boot.node} {phase}", round(max(0.0, took), 3)) for phase, took in phases.items()]
    return tuple(found)


def unit_times(shown: str) -> dict[str, tuple[float, float]]:
    """Unit to when it began and was up, in seconds since the kernel's start, from ``systemctl show``."""
    found = {}
    for block in shown.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        began, up = (
            int(values.get(f"{name}TimestampMonotonic") or 0) / 1e6 for name in ("InactiveExit", "ActiveEnter")
        )
        found[values.get("Id", "")] = (began, up)
    return found
