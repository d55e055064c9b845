"""What a node lets in from its own subnet and from another, and that nothing of it gets out."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from builder.verify.frames import Host, Knocked, knock, mac_bytes
from builder.verify.group import Group
from builder.verify.lan import Network
from builder.verify.member import Member
from builder.verify.report import StepFailed

# Addresses that no cluster has (RFC 5737), and cards that no node has: locally administered.
_FOREIGN = tuple(IPv4Network(net) for net in ("198.51.100.0/24", "203.0.113.0/24", "192.0.2.0/24"))
_INSIDE_MAC, _OUTSIDE_MAC = mac_bytes("52:54:00:fe:00:01"), mac_bytes("52:54:00:fe:00:02")
_KNOCK_PATIENCE = 15.0  # seconds; a node takes three, unless it answers no pings

# On the node: try to reach each address:port; one line each.
_REACH = """\
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.partition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
        print(target, "reached")
    except OSError as error:
        print(target, "not reached:", error)
"""


def foreign_address(subnet: IPv4Network) -> IPv4Address:
    """An address outside ``subnet`` that is nobody's."""
    return next(net for net in _FOREIGN if not net.overlaps(subnet))[7]


def firewall_faults(
    inside: Knocked, outside: Knocked, listens: Sequence[int], inside_only: Sequence[int], unopened: int
) -> list[str]:
    """What is wrong with what the ports of a node did. A silent port proves something only beside a ping."""
    if not inside.pings:
        return ["it answers no ping from its own subnet, so nothing can be told"]
    faults = [
        f"port {port} is {inside.ports[port]} from the cluster's subnet, where it must be open"
        for port in listens
        if inside.ports[port] != "open"
    ]
    faults += [
        f"port {port} is shut by the firewall to the cluster's subnet, which the spec lets in"
        for port in inside_only
        if port not in listens and inside.ports[port] == "silent"
    ]
    if inside.ports[unopened] != "silent":
        faults.append(
            f"port {unopened}, which nobody opened, is {inside.ports[unopened]} from the cluster's subnet"
        )
    if not outside.pings:
        return [*faults, "it answers no ping from another subnet, so a closed port proves nothing"]
    faults += [
        f"port {port} is {outside.ports[port]} from another subnet, where the firewall must drop it"
        for port in (*inside_only, unopened)
        if outside.ports[port] != "silent"
    ]
    return faults


def ports_are_shut(network: Network, member: Member, group: Group) -> str:
    """Knock from inside and, with a foreign address, from outside the cluster's subnet."""
    lan, request, clock = network.lan, group.request, group.clock
    engine = request.engine
    listens = tuple(engine.listens.get(member.name, ())) if engine else ()
    inside_only = tuple(sorted(request.inside_only))
    target = Host(mac_bytes(member.bench.identity.mac), member.address)
    ports = {*listens, *inside_only, request.unopened}
    foreign = Host(_OUTSIDE_MAC, foreign_address(lan.network.subnet))
    with network.wire(clock) as wire:
        own = Host(_INSIDE_MAC, lan.inside)
        inside = knock(wire, clock, own, target, ports, patience=_KNOCK_PATIENCE)
        outside = knock(wire, clock, foreign, target, ports, patience=_KNOCK_PATIENCE)
        if not outside.pings:
            # A node without a router has no way back to us; give it one for this one address.
            with _route(member, foreign.address, lan.inside):
                outside = knock(wire, clock, foreign, target, ports, patience=_KNOCK_PATIENCE, own=[lan.inside])
    shown = f"from {lan.inside} {_told(inside)}; from {foreign.address} {_told(outside)}"
    faults = firewall_faults(inside, outside, listens, inside_only, request.unopened)
    if faults:
        raise StepFailed(f"{member.name}: {'; '.join(faults)}", shown)
    return shown


@contextlib.contextmanager
def _route(member: Member, to: IPv4Address, via: IPv4Address) -> Iterator[None]:
    limit = member.bench.limits.ssh
    done = member.ssh.run(f"ip route replace {to} via {via}", limit)
    if done.returncode != 0:
        raise StepFailed(f"{member.name}: no route for the probe could be set", done.stderr.strip())
    try:
        yield
    finally:
        member.ssh.once(f"ip route del {to}")


def cannot_reach_out(network: Network, member: Member) -> str:
    """Were it not shut, the router would hand these connections to this host."""
    with contextlib.ExitStack() as stack:
        listeners, targets = [], []
        for here, there in _ways_out(network.lan.network.host):
            listener = stack.enter_context(socket.create_server((here, 0)))
            listener.settimeout(0)
            listeners.append(listener)
            targets.append(f"{there}:{listener.getsockname()[1]}")
        command = f"python3 -c {shlex.quote(_REACH)} {' '.join(targets)}"
        done = member.ssh.run(command, member.bench.limits.ssh)
        said = done.stdout.strip()
        if done.returncode != 0 or len(said.splitlines()) != len(targets):
            raise StepFailed(f"{member.name}: the try to reach out did not run", said + done.stderr)
        for listener in listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                raise StepFailed(f"{member.name} reached this host, where nothing may leave", said)
        if re.search(r" reached$", re.sub(r"not reached.*", "", said), re.MULTILINE):
            raise StepFailed(f"{member.name} reached out, where nothing may leave", said)
    return said.replace("\n", "; ")


def _told(knocked: Knocked) -> str:
    ports = ", ".join(f"{port} {answer}" for port, answer in sorted(knocked.ports.items()))
    return f"ping {'answered' if knocked.pings else 'silent'}, {ports}"


def _ways_out(router: IPv4Address) -> list[tuple[str, str]]:
    """Where to listen on this host, and what a node would call that place if the router let it out."""
    ways = [("127.0.0.1", str(router))]  # libslirp maps its own address to the host's loopback
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((str(_FOREIGN[0][1]), 9))  # sends nothing: it only asks for a route
        own = probe.getsockname()[0]
        if not own.startswith("127."):
            ways.append((own, own))
    return ways
