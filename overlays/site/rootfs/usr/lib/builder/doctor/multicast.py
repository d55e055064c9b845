"""Whether multicast passes: each node says its name to the group now and then, and keeps whom it heard.

It goes to the group and port by which the engine's nodes find each other, so that it passes the same firewalls and
switches. It is a DNS question, as at mDNS's port anything else would be a nuisance; nobody answers it.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import time
from ipaddress import ip_address

FRESH = 20.0  # seconds; builder-join speaks every 5 s at the latest
SETTLING = 15.0  # seconds of listening after which silence means something
_SERVICE = (b"_builder", b"_udp", b"local")
_PTR_IN = struct.pack("!HH", 12, 1)
_SIOCGIFADDR = 0x8915  # linux/sockios.h


class Ear:
    """A group's listener and speaker on the interface that has ``address``."""

    def __init__(self, group: str, port: int, me: str, address: str) -> None:
        self.group, self.port, self.me, self.address = group, port, me, address
        self._socket: socket.socket | None = None
        self._since = 0.0
        self._heard: dict[str, float] = {}

    def turn(self) -> None:
        """Take in what has come, and say our name. Without the address, or the link, it tries again next time."""
        try:
            if self._socket is None:
                self._socket, self._since = _join(self.group, self.port, self.address), time.monotonic()
            while True:
                try:
                    said = name_in(self._socket.recv(1500))
                except BlockingIOError:
                    break
                if said and said != self.me:
                    self._heard[said] = time.monotonic()
            self._socket.sendto(question(self.me), (self.group, self.port))
        except OSError:
            if self._socket is not None:
                self._socket.close()
            self._socket = None

    def heard(self) -> dict[str, float] | None:
        """Node → seconds since it was heard; None while it is too early to tell."""
        now = time.monotonic()
        if self._socket is None or now - self._since < SETTLING:
            return None
        return {name: now - at for name, at in self._heard.items()}


def question(name: str) -> bytes:
    """A DNS question that holds a node's name. Pure."""
    labels = b"".join(bytes([len(label)]) + label for label in (name.encode(), *_SERVICE))
    return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + labels + b"\0" + _PTR_IN


def name_in(packet: bytes) -> str | None:
    """The name in such a question; None for all else that comes to this group. Pure."""
    name = packet[13 : 13 + packet[12]] if len(packet) > 12 else b""
    text = name.decode("ascii", errors="replace")
    return text if packet == question(text) else None


def _join(group: str, port: int, address: str) -> socket.socket:
    """Raises OSError, as long as no interface has the address."""
    six = ip_address(group).version == 6
    index = _interface(address)
    ear = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the engine listens there, too
        if six:
            ear.setsockopt(
                socket.IPPROTO_IPV6,
                socket.IPV6_JOIN_GROUP,
                socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index),
            )
            ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            us = socket.inet_aton(address)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + us)
            ear.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, us)
        ear.bind((group, port, 0, index) if six else (group, port))
    except OSError:
        ear.close()
        raise
    return ear


def _interface(address: str) -> int:
    """The index of the interface with an address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for index, name in socket.if_nameindex():
            try:
                reply = fcntl.ioctl(asking, _SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue  # this one has no address
            if socket.inet_ntoa(reply[20:24]) == address:
                return index
    raise OSError(f"no interface has {address}")
