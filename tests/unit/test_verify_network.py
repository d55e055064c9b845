"""Addresses of QEMU's user network: inside the subnet, all different, none that a node uses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuilderError, Exit
from builder.verify.network import Address, forwarded, netdev, plan_network

NET = IPv4Network("10.77.0.0/24")


def test_a_static_node_keeps_its_address() -> None:
    network = plan_network(NET, None, IPv4Address("10.77.0.254"), [IPv4Address("10.77.0.253")])
    assert str(network.node) == "10.77.0.254"
    assert [str(one) for one in (network.host, network.dns, network.dhcp_start)] == [
        "10.77.0.252",
        "10.77.0.251",
        "10.77.0.250",
    ]


def test_a_dhcp_node_gets_the_first_lease() -> None:
    network = plan_network(NET, IPv4Address("10.77.0.1"), "dhcp")
    assert network.node == network.dhcp_start
    assert f"dhcpstart={network.node}," in netdev(network)
    assert netdev(network).endswith(f"hostfwd=tcp:127.0.0.1:0-{network.node}:22")


@given(
    prefix=st.integers(16, 28),
    nodes=st.sets(st.integers(1, 14), min_size=1, max_size=8),
    gateway=st.one_of(st.none(), st.just(1)),
    dhcp=st.booleans(),
)
def test_never_an_address_in_use(prefix: int, nodes: set[int], gateway: int | None, dhcp: bool) -> None:
    subnet = IPv4Network(f"10.128.0.0/{prefix}")
    numbers = sorted(nodes - {gateway})
    taken = [subnet.network_address + number for number in numbers]
    router = None if gateway is None else subnet.network_address + gateway
    address: Address = "dhcp" if dhcp or not taken else taken[0]
    network = plan_network(subnet, router, address, taken)
    own = [network.host, network.dns, network.dhcp_start]
    assert len(set(own)) == 3
    assert all(one in subnet for one in own)
    assert not set(own) & set(taken)
    assert subnet.network_address not in own
    assert subnet.broadcast_address not in own
    assert router is None or network.host == router


def test_a_full_subnet_is_refused_with_a_hint() -> None:
    with pytest.raises(BuilderError) as caught:
        plan_network(IPv4Network("10.0.0.0/30"), IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"))
    assert caught.value.code == Exit.SPEC
    assert "larger subnet" in caught.value.hint


def test_forwarded_ports_are_read_from_the_monitor() -> None:
    said = (
        "Hub -1 (net0):\r\n"
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
        "  TCP[HOST_FORWARD]   3       127.0.0.1 43767      10.77.0.11    22     0     0\r\n"
        "  TCP[ESTABLISHED]   9       127.0.0.1 50000      10.77.0.11    22     0     0\r\n"
    )
    assert forwarded(said) == {22: 43767}
