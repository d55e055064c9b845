"""Where to serve: one interface with an address in the cluster's network, and ports that are free."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from builder.errors import BuilderError, Exit
from builder.netboot import neighbours, place
from builder.netboot.neighbours import Offer
from builder.netboot.place import Place, Port

NET = IPv4Network("10.77.0.0/24")


def link(name: str, *addresses: str) -> dict[str, Any]:
    return {"ifname": name, "addr_info": [{"family": "inet", "local": address} for address in addresses]}


LO = link("lo", "127.0.0.1")
LAN = link("enp5s0", "10.77.0.1")
HOME = link("wlan0", "192.168.1.5")


def test_the_interface_in_the_network_is_found() -> None:
    assert place.choose([LO, HOME, LAN], NET, None, []) == Place("enp5s0", IPv4Address("10.77.0.1"))


@pytest.mark.parametrize(
    ("links", "interface", "message", "hint"),
    [
        ([LO, HOME], None, "no interface of this host has an address in", "ip address add 10.77.0.1/24 dev wlan0"),
        ([LO], None, "this host has none", "dev INTERFACE"),
        ([LO, HOME, LAN], "wlan0", "wlan0 has no address in the cluster's network 10.77.0.0/24", "dev wlan0"),
        ([LO, LAN], "eth9", "this host has no interface eth9", "it has enp5s0"),
        ([LO, LAN, link("br0", "10.77.0.2")], None, "in 10.77.0.0/24 more than once", "--interface"),
        ([link("a", "10.77.0.11")], None, "which the spec gives to a node", "no node has"),
    ],
)
def test_no_place(links: list[dict[str, Any]], interface: str | None, message: str, hint: str) -> None:
    with pytest.raises(BuilderError) as caught:
        place.choose(links, NET, interface, [IPv4Address("10.77.0.11")])
    assert message in caught.value.message
    assert caught.value.code == Exit.SPEC
    assert hint in caught.value.hint


def test_a_port_in_use_is_named_with_who_could_tell() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        port = Port(socket.SOCK_STREAM, number, "the payload", "--http-port")
        with pytest.raises(BuilderError) as caught:
            place.require_free(IPv4Address("127.0.0.1"), [port])
    assert caught.value.message == f"tcp port {number} at 127.0.0.1, for the payload, is in use"
    assert f"sport = :{number}" in caught.value.hint and "--http-port" in caught.value.hint
    place.require_free(IPv4Address("127.0.0.1"), [port])


def test_no_permission_and_other_trouble() -> None:
    port = Port(socket.SOCK_DGRAM, 67, "DHCP")
    found = place._unusable(OSError(errno.EACCES, "x"), IPv4Address("10.0.0.1"), port, "udp")
    assert "udp port 67 at 10.0.0.1, for DHCP, may not be used by" in found.message and "sudo" in found.hint
    found = place._unusable(OSError(errno.EADDRNOTAVAIL, "no such"), IPv4Address("10.0.0.1"), port, "udp")
    assert found.message == "udp port 67 at 10.0.0.1, for DHCP, cannot be used: no such"


ID = b"\x01\x02\x03\x04"


def offer(options: dict[int, bytes], file: bytes = b"", identity: bytes = ID, kind: int = 2) -> bytes:
    head = bytes((kind, 1, 6, 0)) + identity + bytes(8) + bytes((10, 77, 0, 50)) + bytes(24 + 64)
    tail = b"".join(bytes((code, len(data))) + data for code, data in options.items())
    return head.ljust(108, b"\0") + file.ljust(128, b"\0") + b"\x63\x82\x53\x63" + b"\0" + tail + b"\xff"


SERVER = {53: b"\x02", 54: bytes((10, 77, 0, 9))}


def test_the_question_is_one_that_pxe_firmware_asks() -> None:
    packet = neighbours.discover(ID, b"\x02abcde")
    assert packet[4:8] == ID and packet[28:34] == b"\x02abcde" and packet[236:240] == b"\x63\x82\x53\x63"
    assert b"PXEClient:Arch:00007" in packet and packet[240:243] == b"\x35\x01\x01"


def test_an_answer_is_understood() -> None:
    server, given = IPv4Address("10.77.0.9"), IPv4Address("10.77.0.50")
    assert neighbours.parse(offer(SERVER), ID) == Offer(server, given, "")
    assert neighbours.parse(offer(SERVER, b"pxelinux.0"), ID) == Offer(server, given, "pxelinux.0")
    assert neighbours.parse(offer({**SERVER, 67: b"x.efi\0"}), ID) == Offer(server, given, "x.efi")
    assert neighbours.parse(offer({**SERVER, 60: b"PXEClient"}), ID) == Offer(server, given, "a boot menu")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        offer(SERVER)[:239],
        offer(SERVER, identity=b"xxxx"),
        offer(SERVER, kind=1),
        offer({53: b"\x05", 54: bytes(4)}),
        offer({53: b"\x02"}),
        offer({53: b"\x02", 54: b"\x01"}),
    ],
)
def test_what_is_no_answer_of_ours(packet: bytes) -> None:
    assert neighbours.parse(packet, ID) is None


def test_options_that_end_in_the_middle_are_read_as_far_as_they_go() -> None:
    for tail in (b"\x36", b"\x43\x20abc"):
        found = neighbours.parse(offer(SERVER)[:-1] + tail, ID)
        assert found is not None and found.server == IPv4Address("10.77.0.9")


def test_nobody_may_be_the_second() -> None:
    gives = Offer(IPv4Address("10.77.0.9"), IPv4Address("10.77.0.50"), "")
    boots = Offer(IPv4Address("10.77.0.8"), IPv4Address("0.0.0.0"), "pxelinux.0")
    for dhcp in ("proxy", "full"):
        with pytest.raises(
            BuilderError, match=r"another PXE server answers on eth0: 10\.77\.0\.8 offers pxelinux"
        ):
            neighbours.require_alone([gives, boots], dhcp, "eth0")
    with pytest.raises(BuilderError, match=r"a DHCP server answers on eth0: 10\.77\.0\.9"):
        neighbours.require_alone([gives], "full", "eth0")
    assert neighbours.require_alone([gives], "proxy", "eth0") == ""
    assert neighbours.require_alone([], "full", "eth0") == ""
    assert "--dhcp full" in neighbours.require_alone([], "proxy", "eth0")
