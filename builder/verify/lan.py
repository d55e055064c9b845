"""A virtual LAN for several virtual machines, without any privilege and without a way out.

Each machine's one network card is cabled to :mod:`builder.verify.bridge`, a switch in this process, so the tested
image sees the card that it sees in a test alone. One more QEMU, which runs no guest (``-machine none``), is the
router: its hub joins one cable to a user-mode network that forwards ports of the host to the nodes and is
otherwise shut (``restrict=on``). It must not be started with ``-S``: QEMU delivers no packet to a stopped machine.
A cable more, on which everything is mirrored, is for the harness itself (:mod:`builder.verify.frames`).

Multicast sockets would need no switch, but would put all tests of one host on one segment.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from builder.errors import BuilderError, Exit
from builder.run import start
from builder.verify.bridge import Bridge
from builder.verify.clock import Clock
from builder.verify.frames import Wire
from builder.verify.machine import QEMU, Cable, option, refuse_long_socket
from builder.verify.network import UserNetwork, plan_network
from builder.verify.qmp import Qmp, QmpError
from builder.verify.report import StepFailed
from builder.verify.vm import CONNECT_WAIT, STOP_WAIT

# Ports of the switch besides the nodes'; a node's name holds no colon.
ROUTER, PROBE = ":router", ":probe"


@dataclass(frozen=True)
class Forward:
    """A node's TCP port that the host can reach; on the host it gets a free port of the loopback interface."""

    address: IPv4Address
    port: int


@dataclass(frozen=True)
class Lan:
    """One segment. ``network`` holds QEMU's own addresses in the subnet; ``nodes`` by name.

    ``inside`` is an address of the subnet that nobody has, for the harness to claim. ``folder`` holds the
    sockets and needs a short path. ``way_out`` lets the nodes out; only a test of the test wants that.
    """

    network: UserNetwork
    nodes: Mapping[str, IPv4Address]
    forwards: tuple[Forward, ...]
    inside: IPv4Address
    folder: Path
    way_out: bool = False

    @property
    def qmp(self) -> Path:
        return self.folder / "lan-qmp"

    def sockets(self) -> dict[str, Path]:
        """Every port of the switch; numbered, as names of nodes may be long."""
        return {name: self.folder / f"lan-{number}" for number, name in enumerate((ROUTER, PROBE, *self.nodes))}

    def cable(self, node: str) -> Cable:
        """What ``node``'s machine plugs in."""
        return Cable(self.sockets()[node])


def plan_lan(
    subnet: IPv4Network,
    gateway: IPv4Address | None,
    nodes: Mapping[str, IPv4Address],
    forwards: Iterable[Forward],
    folder: Path,
    taken: Iterable[IPv4Address] = (),
) -> Lan:
    """Choose the addresses that the switch and the harness need; ``taken`` are further ones in use.

    Raises BuilderError (SPEC) if the subnet has no room for four more.
    """
    used = {*nodes.values(), *taken}
    network = plan_network(subnet, gateway, next(iter(nodes.values())), used)
    used |= {network.host, network.dns, network.dhcp_start}
    # plan_network takes the highest free addresses; the next one below is the harness's.
    numbers = range(int(network.dhcp_start) - 1, int(subnet.network_address), -1)
    inside = next((IPv4Address(number) for number in numbers if IPv4Address(number) not in used), None)
    if inside is None:
        raise BuilderError(
            f"{subnet} has no free address for the cluster test's own card",
            hint="it needs four addresses that no node uses; give the cluster a larger subnet",
            code=Exit.SPEC,
        )
    return Lan(network, dict(nodes), tuple(forwards), inside, folder)


def router_argv(lan: Lan) -> list[str]:
    """The whole command line of the router. Raises BuilderError for a folder whose path is too long."""
    for path in (lan.qmp, *lan.sockets().values()):
        refuse_long_socket(path)
    own = lan.network
    user = (
        "user",
        "id=user",
        f"net={own.subnet}",
        f"host={own.host}",
        f"dns={own.dns}",
        f"dhcpstart={own.dhcp_start}",
        f"restrict={'off' if lan.way_out else 'on'}",
        "ipv6=off",
        *(f"hostfwd=tcp:127.0.0.1:0-{one.address}:{one.port}" for one in lan.forwards),
    )
    argv = [QEMU, "-name", "builder-lan", "-nodefaults", "-no-user-config", "-machine", "none", "-display", "none"]
    argv += ["-chardev", f"socket,id=qmp0,path={option(lan.qmp)},server=on,wait=off"]
    argv += ["-mon", "chardev=qmp0,mode=control"]
    argv += ["-netdev", ",".join(user), "-netdev", "hubport,id=user-port,hubid=0,netdev=user"]
    cable = option(lan.sockets()[ROUTER])
    argv += ["-netdev", f"stream,id=cable,server=off,addr.type=unix,addr.path={cable}"]
    return [*argv, "-netdev", "hubport,id=cable-port,hubid=0,netdev=cable"]


_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+([\d.]+)\s+(\d+)\s")


def forwards(usernet: str) -> dict[Forward, int]:
    """The host's port for each forward, read from the monitor's ``info usernet``."""
    found = _FORWARD.findall(usernet)
    return {Forward(IPv4Address(address), int(inside)): int(outside) for outside, address, inside in found}


class Network:
    """The running LAN."""

    def __init__(self, lan: Lan, bridge: Bridge, process: subprocess.Popen[bytes], qmp: Qmp, stderr: Path) -> None:
        self.lan = lan
        self._bridge = bridge
        self._process = process
        self._qmp = qmp
        self._stderr = stderr

    def ended(self) -> str | None:
        """None while it runs; then what broke."""
        status = self._process.poll()
        if status is not None:
            return f"the virtual LAN's router exited {status} ({_said(self._stderr)})"
        return self._bridge.broken

    def port(self, address: IPv4Address, inside: int) -> int:
        """The host's TCP port for a node's port. Raises StepFailed if it is not forwarded or the LAN is gone."""
        try:
            return forwards(self._qmp.usernet())[Forward(address, inside)]
        except KeyError as error:
            raise StepFailed(f"the virtual LAN forwards no port to {address}:{inside}") from error
        except QmpError as error:
            raise StepFailed(self.ended() or f"the virtual LAN's router: {error}") from error

    def plugged(self) -> dict[str, bool]:
        """For each node whether a machine holds its cable."""
        held = self._bridge.plugged()
        return {node: held[node] for node in self.lan.nodes}

    @contextlib.contextmanager
    def wire(self, clock: Clock) -> Iterator[Wire]:
        """The harness's own card, which hears everything. Raises StepFailed."""
        wire = Wire(self.lan.sockets()[PROBE], clock)
        try:
            yield wire
        finally:
            wire.close()


@contextlib.contextmanager
def connected(lan: Lan, folder: Path, clock: Clock) -> Iterator[Network]:
    """Start the LAN; it is stopped on leaving. The router's messages go to ``folder``/qemu-lan.stderr.

    Raises BuilderError if QEMU is missing or does not take its command line.
    """
    argv = router_argv(lan)
    stderr = folder / "qemu-lan.stderr"
    bridge = Bridge(lan.sockets(), reserved=[ROUTER], mirrors=[PROBE])
    try:
        with (
            stderr.open("wb") as errors,
            start(argv, step="starting the virtual LAN", stderr=errors.fileno()) as process,
        ):
            qmp = _connect(lan, process, stderr, clock)
            try:
                yield Network(lan, bridge, process, qmp, stderr)
            finally:
                _stop(process, qmp)
    finally:
        bridge.stop()


def _connect(lan: Lan, process: subprocess.Popen[bytes], stderr: Path, clock: Clock) -> Qmp:
    """The monitor answers once QEMU has set up its network."""
    deadline = clock.now() + CONNECT_WAIT
    while True:
        try:
            return Qmp(lan.qmp)
        except (OSError, QmpError) as error:
            if process.poll() is not None or clock.now() > deadline:
                reason = _said(stderr) or str(error)
                raise BuilderError(f"the virtual LAN did not start: {reason}", code=Exit.BOOT) from error
            clock.sleep(0.05)


def _stop(process: subprocess.Popen[bytes], qmp: Qmp) -> None:
    with contextlib.suppress(QmpError):
        qmp.quit()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_WAIT)
    if process.poll() is None:
        process.kill()
        process.wait()
    qmp.close()


def _said(stderr: Path) -> str:
    """Its messages, without the one that is always there: a hub without a card is what we want."""
    lines = stderr.read_text(errors="replace").strip().splitlines()
    return "; ".join(line for line in lines if "hub 0 with no nics" not in line)
