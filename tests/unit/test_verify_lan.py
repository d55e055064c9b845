"""The virtual LAN's parts that need no process: addresses, the router's command line, where frames go."""

from __future__ import annotations

import shlex
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError, Exit
from builder.verify.bridge import Table, framed, take_frames
from builder.verify.frames import (
    ACK,
    BROADCAST,
    RST,
    SYN,
    Arp,
    Host,
    Packet,
    arp,
    checksum,
    echo_request,
    knock,
    mac_bytes,
    parse,
    tcp,
)
from builder.verify.lan import PROBE, ROUTER, Forward, forwards, plan_lan, router_argv
from builder.verify.machine import Cable, Machine, Nic, Serial, qemu_argv

NET = IPv4Network("10.77.0.0/24")
NODES = {"node1": IPv4Address("10.77.0.11"), "node2": IPv4Address("10.77.0.12")}
ONE = Host(mac_bytes("52:54:00:77:00:01"), NODES["node1"])
TWO = Host(mac_bytes("52:54:00:77:00:02"), NODES["node2"])


def test_router_command_line() -> None:
    wanted = [Forward(NODES["node1"], 22), Forward(NODES["node2"], 22), Forward(NODES["node1"], 8080)]
    lan = plan_lan(NET, IPv4Address("10.77.0.1"), NODES, wanted, Path("/t"))
    assert (
        "\n".join(shlex.join(router_argv(lan)).replace(" -", "\n-").splitlines())
        == """\
qemu-system-x86_64
-name builder-lan
-nodefaults
-no-user-config
-machine none
-display none
-chardev socket,id=qmp0,path=/t/lan-qmp,server=on,wait=off
-mon chardev=qmp0,mode=control
-netdev user,id=user,net=10.77.0.0/24,host=10.77.0.1,dns=10.77.0.254,dhcpstart=10.77.0.253,restrict=on,ipv6=off,\
hostfwd=tcp:127.0.0.1:0-10.77.0.11:22,hostfwd=tcp:127.0.0.1:0-10.77.0.12:22,hostfwd=tcp:127.0.0.1:0-10.77.0.11:8080
-netdev hubport,id=user-port,hubid=0,netdev=user
-netdev stream,id=cable,server=off,addr.type=unix,addr.path=/t/lan-0
-netdev hubport,id=cable-port,hubid=0,netdev=cable"""
    )
    assert lan.inside == IPv4Address("10.77.0.252")
    assert [path.name for path in lan.sockets().values()] == ["lan-0", "lan-1", "lan-2", "lan-3"]


def test_a_cabled_machine_has_the_same_card() -> None:
    machine = Machine(
        name="n",
        accel="tcg",
        cpu="max",
        serial=Serial(Path("/s")),
        qmp=Path("/q"),
        nic=Nic("52:54:00:77:00:01", Cable(Path("/t,t/lan-2"))),
    )
    argv = qemu_argv(machine)
    assert argv[argv.index("-netdev") + 1] == "stream,id=net0,server=off,addr.type=unix,addr.path=/t,,t/lan-2"
    assert "virtio-net-pci,netdev=net0,mac=52:54:00:77:00:01,addr=0x8,romfile=" in argv


def test_long_folders_are_refused() -> None:
    with pytest.raises(BuilderError, match="too long for a Unix socket"):
        router_argv(plan_lan(NET, None, NODES, [], Path("/" + "x" * 110)))


@given(prefix=st.integers(20, 28), numbers=st.sets(st.integers(1, 10), min_size=1), gateway=st.booleans())
def test_no_address_is_given_twice(prefix: int, numbers: set[int], gateway: bool) -> None:
    subnet = IPv4Network(f"10.128.0.0/{prefix}")
    nodes = {f"n{number}": subnet[number] for number in sorted(numbers)}
    router = subnet[11] if gateway else None
    lan = plan_lan(subnet, router, nodes, [], Path("/t"))
    own = [lan.network.host, lan.network.dns, lan.network.dhcp_start, lan.inside]
    assert len({*own, *nodes.values()}) == len(own) + len(nodes)
    assert all(address in subnet and address != subnet.broadcast_address for address in own)
    assert router is None or lan.network.host == router


def test_a_full_subnet_is_refused() -> None:
    nodes = {"a": IPv4Address("10.0.0.1"), "b": IPv4Address("10.0.0.2"), "c": IPv4Address("10.0.0.3")}
    with pytest.raises(BuilderError) as caught:
        plan_lan(IPv4Network("10.0.0.0/29"), None, nodes, [], Path("/t"))
    assert caught.value.code == Exit.SPEC


def test_forwards_of_several_nodes() -> None:
    said = (
        "Hub 0 (user):\r\n"
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[HOST_FORWARD]  12       127.0.0.1 40049      10.77.0.11    22     0     0\r\n"
        "  TCP[HOST_FORWARD]  11       127.0.0.1 41601      10.77.0.12    22     0     0\r\n"
        "  TCP[ESTABLISHED]   13       127.0.0.1 50000      10.77.0.12    22     0     0\r\n"
    )
    assert forwards(said) == {Forward(NODES["node1"], 22): 40049, Forward(NODES["node2"], 22): 41601}


def test_a_frame_goes_where_its_card_was_seen() -> None:
    table = Table([ROUTER, PROBE, "node1", "node2", "node3"], [ROUTER], [PROBE])
    assert table.targets(arp(1, ONE, TWO, BROADCAST), "node1") == {ROUTER, PROBE, "node2", "node3"}
    # Never to the router: it would answer in the other node's name.
    assert table.targets(tcp(ONE, TWO, 1, 2, SYN), "node1") == {PROBE, "node2", "node3"}
    assert table.targets(tcp(TWO, ONE, 2, 1, SYN | ACK), "node2") == {PROBE, "node1"}
    assert table.targets(tcp(ONE, TWO, 1, 2, ACK), "node1") == {PROBE, "node2"}
    table.forget("node2")
    assert table.targets(tcp(ONE, TWO, 1, 2, ACK), "node1") == {PROBE, "node2", "node3"}


def test_the_router_gets_what_is_for_it() -> None:
    table = Table([ROUTER, "node1", "node2"], [ROUTER], [])
    router = Host(mac_bytes("52:55:0a:4d:00:01"), IPv4Address("10.77.0.1"))
    table.targets(arp(2, router, ONE, ONE.mac), ROUTER)
    assert table.targets(tcp(ONE, router, 1, 2, SYN), "node1") == {ROUTER}


@given(st.lists(st.binary(min_size=14, max_size=60), max_size=8), st.integers(1, 9))
def test_frames_survive_any_cut(frames: list[bytes], step: int) -> None:
    stream, arrived, found = b"".join(map(framed, frames)), bytearray(), []
    for at in range(0, len(stream), step):
        arrived += stream[at : at + step]
        found += list(take_frames(arrived))
    assert found == frames
    assert not arrived


def test_a_stream_out_of_step_is_refused() -> None:
    with pytest.raises(ValueError, match="a frame of 4294967295 bytes"):
        list(take_frames(bytearray(b"\xff" * 64)))


def test_frames_say_what_was_put_in() -> None:
    assert parse(arp(1, ONE, TWO, BROADCAST)) == Arp(1, ONE, TWO.address)
    assert parse(tcp(ONE, TWO, 40000, 8080, RST)) == Packet(ONE.address, TWO.address, 40000, 8080, RST)
    assert parse(echo_request(ONE, TWO, 1)) is None, "a request is no answer"
    for junk in (b"", b"\x08\x00" * 30, arp(1, ONE, TWO, BROADCAST)[:41]):
        assert parse(junk) is None


def test_checksums_are_right() -> None:
    """A sum over data that holds its own checksum is 0; RFC 1071's own example besides."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    frame = tcp(ONE, TWO, 40000, 8080, SYN)
    assert checksum(frame[14:34]) == 0
    pseudo = ONE.address.packed + TWO.address.packed + bytes([0, 6, 0, 20])
    assert checksum(pseudo + frame[34:]) == 0
    assert checksum(echo_request(ONE, TWO, 3)[34:]) == 0


class Node:
    """A node with a firewall, as a card sees it; it first asks who we are. Its clock stands while it answers."""

    def __init__(self, opened: dict[int, int], *, pings: bool = True) -> None:
        self.time = 0.0
        self.asked: list[int] = []
        self._opened, self._pings = opened, pings
        self._out: list[bytes] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def receive(self, wait: float) -> bytes | None:
        if self._out:
            return self._out.pop(0)
        self.time += wait
        return None

    def send(self, frame: bytes) -> None:
        seen = parse(frame)
        if isinstance(seen, Packet) and seen.flags == SYN:
            assert seen.port is not None
            self.asked.append(seen.to_port)
            if seen.to_port in self._opened:
                self._out.append(tcp(TWO, ONE, seen.to_port, seen.port, self._opened[seen.to_port]))
        elif isinstance(seen, Arp):
            assert (seen.operation, seen.sender) == (2, ONE)
        elif frame[23] == 1 and self._pings:
            self._out.append(arp(1, TWO, ONE, BROADCAST))
            reply = echo_request(TWO, ONE, 1)
            self._out.append(reply[:34] + b"\0" + reply[35:])


def test_a_silent_port_takes_three_answered_pings() -> None:
    node = Node({22: SYN | ACK, 23: RST | ACK})
    found = knock(node, node, ONE, TWO, [22, 23, 80], patience=60)
    assert (found.pings, found.ports) == (True, {22: "open", 23: "refused", 80: "silent"})
    assert node.asked.count(80) == 3
    assert node.asked.count(22) == 1
    assert node.time < 5


def test_no_port_takes_longer_than_its_answer() -> None:
    node = Node({22: SYN | ACK})
    assert knock(node, node, ONE, TWO, [22], patience=60).ports == {22: "open"}
    assert node.time == 0


def test_a_node_without_pings_is_waited_for() -> None:
    node = Node({}, pings=False)
    assert knock(node, node, ONE, TWO, [80], patience=10).pings is False
    assert node.time >= 10
