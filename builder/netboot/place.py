"""Where this host stands in the cluster's network: interface and address to serve at; whether they are free."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from builder.errors import BuilderError, Exit
from builder.run import run


@dataclass(frozen=True)
class Place:
    """An interface of this host with an address in the cluster's network."""

    interface: str
    address: IPv4Address


def find(subnet: IPv4Network, interface: str | None, taken: Iterable[IPv4Address]) -> Place:
    """The place in ``subnet``; ``interface`` narrows it down, ``taken`` are the nodes' addresses.

    Raises BuilderError if there is none, or more than one.
    """
    argv = ["ip", "-json", "-4", "address", "show"]
    return choose(json.loads(run(argv, step="looking at this host's addresses").stdout), subnet, interface, taken)


def choose(
    links: list[dict[str, Any]], subnet: IPv4Network, interface: str | None, taken: Iterable[IPv4Address]
) -> Place:
    """The same, of what ``ip -json address`` says. Pure."""
    seen = [Place(link["ifname"], address) for link in links for address in _addresses(link)]
    inside = [place for place in seen if place.address in subnet and interface in (None, place.interface)]
    names = [link["ifname"] for link in links if link["ifname"] != "lo"]
    if interface is not None and interface not in [link["ifname"] for link in links]:
        raise BuilderError(
            f"this host has no interface {interface} with an IPv4 address",
            hint=f"it has {', '.join(names) or 'none'}",
            code=Exit.SPEC,
        )
    if not inside:
        has = ", ".join(f"{place.address} on {place.interface}" for place in seen if place.interface != "lo")
        example = next(subnet.hosts())
        raise BuilderError(
            f"{f'{interface} has no' if interface else 'no interface of this host has an'} address in the "
            f"cluster's network {subnet} (this host has {has or 'none'})",
            hint=f"ip address add {example}/{subnet.prefixlen} dev {interface or (names or ['INTERFACE'])[0]}",
            code=Exit.SPEC,
        )
    if len(inside) > 1:
        listed = ", ".join(f"{place.address} on {place.interface}" for place in inside)
        raise BuilderError(
            f"this host is in {subnet} more than once: {listed}",
            hint="--interface says which to serve at",
            code=Exit.SPEC,
        )
    (place,) = inside
    if place.address in set(taken):
        raise BuilderError(
            f"this host has {place.address}, which the spec gives to a node",
            hint="serve from an address that no node has",
            code=Exit.SPEC,
        )
    return place


def _addresses(link: dict[str, Any]) -> Iterator[IPv4Address]:
    for entry in link.get("addr_info", ()):
        if entry.get("family") == "inet":
            yield IPv4Address(entry["local"])


@dataclass(frozen=True)
class Port:
    """A port that a server of ours needs; ``option`` of ``builder serve`` moves it, if one can."""

    kind: socket.SocketKind
    number: int
    what: str
    option: str = ""


def require_free(address: IPv4Address, ports: Iterable[Port]) -> None:
    """Raises BuilderError naming the first port that is in use, or may not be used by this user."""
    for port in ports:
        proto = "tcp" if port.kind == socket.SOCK_STREAM else "udp"
        with socket.socket(socket.AF_INET, port.kind) as probe:
            if port.kind == socket.SOCK_STREAM:  # a server that was just stopped leaves connections behind
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("" if port.kind == socket.SOCK_DGRAM else str(address), port.number))
            except OSError as error:
                raise _unusable(error, address, port, proto) from error


def _unusable(error: OSError, address: IPv4Address, port: Port, proto: str) -> BuilderError:
    where = f"{proto} port {port.number} at {address}, for {port.what},"
    other = f", or choose another: {port.option}" if port.option else ""
    if error.errno in (errno.EACCES, errno.EPERM):
        me = "root" if os.geteuid() == 0 else "this user"
        return BuilderError(f"{where} may not be used by {me}", hint=f"sudo, as the whole command{other}")
    if error.errno == errno.EADDRINUSE:
        flag = "t" if proto == "tcp" else "u"
        hint = f"`ss -Hlp{flag}n 'sport = :{port.number}'`, as root, names the program; stop it{other}"
        return BuilderError(f"{where} is in use", hint=hint)
    return BuilderError(f"{where} cannot be used: {error.strerror}")
