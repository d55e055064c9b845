"""The cluster's subnet as QEMU's user-mode network: no privilege, no way out, ssh forwarded.

A node keeps the address that its spec gives it; a DHCP node gets the one that ``dhcpstart`` names. libslirp
wants its own three addresses (host, DNS, first lease) inside the subnet and different from each other
(QEMU ``net/slirp.c``), so they are taken from those that no node uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from builder.errors import BuilderError, Exit

Address = IPv4Address | Literal["dhcp"]


@dataclass(frozen=True)
class UserNetwork:
    """The parameters of one ``-netdev user``. ``ports`` are the node's TCP ports that the host can reach."""

    subnet: IPv4Network
    host: IPv4Address
    dns: IPv4Address
    dhcp_start: IPv4Address
    node: IPv4Address
    ports: tuple[int, ...] = (22,)


def plan_network(
    subnet: IPv4Network, gateway: IPv4Address | None, address: Address, taken: Iterable[IPv4Address] = ()
) -> UserNetwork:
    """Choose QEMU's addresses in ``subnet``; ``taken`` are those of other nodes and of name servers.

    Raises BuilderError if the subnet has no room for them.
    """
    used = {one for one in (gateway, None if address == "dhcp" else address, *taken) if one is not None}
    free = _free(subnet, used)
    try:
        host = gateway if gateway is not None and gateway in subnet else next(free)
        dns = next(free)
        dhcp_start = next(free)
    except StopIteration as error:
        raise BuilderError(
            f"{subnet} has no free address for the boot test's virtual gateway, name server and DHCP lease",
            hint="it needs up to three addresses that no node uses; give the cluster a larger subnet",
            code=Exit.SPEC,
        ) from error
    node = dhcp_start if address == "dhcp" else address
    return UserNetwork(subnet, host, dns, dhcp_start, node)


def _free(subnet: IPv4Network, used: set[IPv4Address]) -> Iterator[IPv4Address]:
    """Unused host addresses, highest first: people number their nodes from the bottom."""
    first, last = int(subnet.network_address), int(subnet.broadcast_address)
    for number in range(last - 1, first, -1):
        address = IPv4Address(number)
        if address not in used:
            yield address


def netdev(network: UserNetwork) -> str:
    """The value of ``-netdev``. With host port 0 the kernel chooses one; :func:`forwarded` reads it back."""
    return ",".join(
        (
            "user,id=net0",
            f"net={network.subnet}",
            f"host={network.host}",
            f"dns={network.dns}",
            f"dhcpstart={network.dhcp_start}",
            "restrict=on",
            "ipv6=off",
            *(f"hostfwd=tcp:127.0.0.1:0-{network.node}:{port}" for port in network.ports),
        )
    )


_FORWARD = re.compile(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+[\d.]+\s+(\d+)\s")


def forwarded(usernet: str) -> dict[int, int]:
    """Node port to host port, read from the monitor's ``info usernet``."""
    return {int(inside): int(outside) for outside, inside in _FORWARD.findall(usernet)}
