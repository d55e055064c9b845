"""Who else answers machines that boot from this network: one question, as PXE firmware asks it, before we serve.

Two servers that both say what to boot is how a node ends up with somebody else's installer. Formats: RFC 2131 and
2132, and the Preboot Execution Environment specification 2.1, whose options a client sends.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address

from builder.errors import BuilderError

WAIT = 6.0  # seconds; dnsmasq first pings the address that it is about to give, for 3
_COOKIE = b"\x63\x82\x53\x63"
_SERVER, _CLIENT = 67, 68
_BROADCAST = 0x8000


@dataclass(frozen=True)
class Offer:
    """An answer. ``address``: given to the asker, 0.0.0.0 from a server that only says what to boot.

    ``boot``: what to boot, empty from a server that only gives addresses.
    """

    server: IPv4Address
    address: IPv4Address
    boot: str


def discover(identity: bytes, card: bytes) -> bytes:
    """The question of a machine with this MAC address; ``identity``: 4 bytes that the answers repeat. Pure."""
    head = struct.pack("!BBBB4sHH", 1, 1, 6, 0, identity, 0, _BROADCAST)
    head += bytes(16) + card.ljust(16, b"\0") + bytes(192)
    options = (
        (53, b"\x01"),  # DISCOVER
        (55, bytes((1, 3, 43, 54, 60, 66, 67, 128, 129, 130, 131, 132, 133, 134, 135))),
        (57, struct.pack("!H", 1260)),
        (60, b"PXEClient:Arch:00007:UNDI:003016"),
        (93, struct.pack("!H", 7)),
        (94, b"\x01\x03\x10"),
        (97, b"\0" + bytes(16)),
    )
    return head + _COOKIE + b"".join(bytes((code, len(data))) + data for code, data in options) + b"\xff"


def parse(packet: bytes, identity: bytes) -> Offer | None:
    """The offer that a packet is, to this question; None for anything else. Pure."""
    if len(packet) < 240 or packet[0] != 2 or packet[4:8] != identity or packet[236:240] != _COOKIE:
        return None
    options = dict(_options(packet[240:]))
    if options.get(53) != b"\x02" or len(options.get(54, b"")) != 4:
        return None
    name = options.get(67, packet[108:236]).split(b"\0")[0].decode("ascii", "replace")
    says = name or ("a boot menu" if options.get(60, b"").startswith((b"PXEClient", b"HTTPClient")) else "")
    return Offer(IPv4Address(options[54]), IPv4Address(packet[16:20]), says)


def _options(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data) and data[at] != 255:
        if data[at] == 0:
            at += 1
            continue
        if at + 1 >= len(data):
            break
        length = data[at + 1]
        found.append((data[at], data[at + 2 : at + 2 + length]))
        at += 2 + length
    return found


def ask(interface: str, wait: float = WAIT) -> list[Offer]:
    """Every offer that comes in ``wait`` seconds. Needs root. Raises OSError."""
    identity = os.urandom(4)
    card = bytes((0x02, *(random.randrange(256) for _ in range(5))))  # locally administered: nobody's
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        sock.bind(("", _CLIENT))
        end = time.monotonic() + wait
        found: dict[IPv4Address, Offer] = {}
        for again in (0.0, wait / 3):  # the first packet after a link comes up may be lost
            sock.sendto(discover(identity, card), ("255.255.255.255", _SERVER))
            until = end if again else time.monotonic() + wait / 3
            while (left := until - time.monotonic()) > 0:
                if select.select([sock], [], [], left)[0] and (offer := parse(sock.recv(4096), identity)):
                    found[offer.server] = offer
                    if offer.boot:  # nothing worse can come
                        return list(found.values())
        return list(found.values())


def require_alone(offers: list[Offer], dhcp: str, interface: str) -> str:
    """Refuse to be the second who says what to boot, or the second who gives addresses. Pure.

    Returns a warning, or an empty string. Raises BuilderError.
    """
    for offer in offers:
        if offer.boot:
            raise BuilderError(
                f"another PXE server answers on {interface}: {offer.server} offers {offer.boot}",
                hint="stop it, or keep it and let it point to ours: builder serve --dhcp none --print-config",
            )
    if dhcp == "full" and offers:
        raise BuilderError(
            f"a DHCP server answers on {interface}: {offers[0].server}",
            hint="serve beside it: --dhcp proxy; full is for a network that has none",
        )
    if dhcp == "proxy" and not offers:
        return f"no DHCP server answers on {interface}; on an isolated network: --dhcp full"
    return ""
