"""What needs more than one value to judge, each with its exact words; and what is only a warning."""

# ruff: noqa: E501  (tables: one case a line)

from __future__ import annotations

import pytest

from builder.errors import Mistake, SpecError
from builder.spec.load import loads
from builder.spec.model import Cluster
from builder.spec.warnings import warnings

HEAD = """\
name: demo
network:
  subnet: 10.77.0.0/24
  gateway: 10.77.0.1
  dns: [10.77.0.2]
nodes:
  - name: node1
    match: {mac: "52:54:00:77:00:01", serial: A1, uuid: 4c4c4544-0042-3510-8048-b7c04f4d3433}
    address: 10.77.0.11
"""


def only(text: str) -> Mistake:
    with pytest.raises(SpecError) as caught:
        loads(text)
    (mistake,) = caught.value.mistakes
    return mistake


def node(match: str = "{mac: '52:54:00:77:00:02'}", name: str = "node2", more: str = "") -> str:
    return f"  - name: {name}\n    match: {match}\n{more}"


OTHER = "each node needs an identifier of its own"
SAME = "a machine that is node2 would be node1 as well"
CASES = [
    (node(name="node1"), 10, "nodes[1].name", "the name node1 is also nodes[0]'s", ""),
    (node("{mac: '52-54-00-77-00-01'}"), 11, "nodes[1].match.mac", "the MAC address 52:54:00:77:00:01 is also node1's", OTHER),
    (node("{serial: a1}"), 11, "nodes[1].match.serial", "the serial number a1 is also node1's", OTHER),
    (node("{uuid: 4C4C4544-0042-3510-8048-B7C04F4D3433}"), 11, "nodes[1].match.uuid", "the UUID 4c4c4544-0042-3510-8048-b7c04f4d3433 is also node1's", OTHER),
    (node(more="    address: 10.77.0.11\n"), 12, "nodes[1].address", "the address 10.77.0.11 is also nodes[0]'s", ""),
    (node(more="    address: 10.78.0.11\n"), 12, "nodes[1].address", "10.78.0.11 is outside 10.77.0.0/24", ""),
    (node(more="    address: 10.77.0.0\n"), 12, "nodes[1].address", "10.77.0.0 is the address of the network 10.77.0.0/24 itself", ""),
    (node(more="    address: 10.77.0.255\n"), 12, "nodes[1].address", "10.77.0.255 is the broadcast address of 10.77.0.0/24", ""),
    (node(more="    address: 10.77.0.1\n"), 12, "nodes[1].address", "10.77.0.1 is the gateway's address", ""),
    (node(more="    address: 10.77.0.2\n"), 12, "nodes[1].address", "10.77.0.2 is also a name server, which no node is", ""),
    (node("{serial: B2}", more="    address: 10.77.0.12\n"), 12, "nodes[1].address", "a static address needs to know which network card gets it", "give match.mac, or interface: enp5s0"),
    ("    disk: {serial: D1}\n" + node(more="    disk: {serial: d1}\n"), 13, "nodes[1].disk.serial", "this disk is also nodes[0]'s", ""),
    ("    disk: {wwn: '0x5'}\n" + node(more="    disk: {wwn: '5'}\n"), 13, "nodes[1].disk.wwn", "this disk is also nodes[0]'s", ""),
    (node() + "storage: {disk: {serial: D1}}\n", 12, "storage.disk.serial", "names one disk, and 2 nodes would use it", "give each node its own disk"),
    ("storage: {root: rest, models: rest}\n", 10, "storage.models", "root and models cannot both take the rest of the disk", "give one of them a size; root is rest unless it has one"),
    ("storage: {models: rest}\n", 10, "storage.models", "root and models cannot both take the rest of the disk", "give one of them a size; root is rest unless it has one"),
    ("storage: {root: 512M}\n", 10, "storage.root", "a node needs at least 1G", ""),
    ("storage: {root: 20G, models: 20G, disk: {largest: true, min_size: 30G}}\n", 10, "storage.disk.min_size", "is less than storage.root and storage.models need together", ""),
    ("models: [{name: a, url: 'https://h/1'}, {name: a, url: 'https://h/2'}]\n", 10, "models[1].name", "the name a is also models[0]'s", ""),
    ("distribution: {packages: [htop, htop]}\n", 10, "distribution.packages[1]", "htop is given twice", ""),
    ("distribution: {release: bookworm}\n", 10, "distribution.release", "debian bookworm is not known", 'known: "13" (trixie)'),
    ("distribution: {security_mirror: 'https://h/s'}\n", 10, "distribution.security_mirror", "is given without mirror", "give both, or neither"),
    ("firewall: {allow: [{port: 80}, {port: 80}]}\n", 10, "firewall.allow[1].port", "tcp is opened to the same machines by firewall.allow[0] already", "name each port once"),
    ("firewall: {allow: [{port: 80-90}, {port: 85}]}\n", 10, "firewall.allow[1].port", "tcp is opened to the same machines by firewall.allow[0] already", "name each port once"),
    ("firewall: {allow: [{port: 85}, {port: 80-90, from: 10.77.0.0/24}]}\n", 10, "firewall.allow[1].port", "tcp is opened to the same machines by firewall.allow[0] already", "name each port once"),
    ("firewall: {allow: [{port: 80-90, from: any}, {port: 85}]}\n", 10, "firewall.allow[1].port", "is open to any by firewall.allow[0] already", ""),
    ("firewall: {allow: [{port: 85}, {port: 80-90, from: 0.0.0.0/0}]}\n", 10, "firewall.allow[0].port", "is open to any by firewall.allow[1] already", ""),
    ("firewall: {allow: [{port: 22}]}\n", 10, "firewall.allow[0].port", "includes port 22, which is always open", "say from where under firewall.ssh"),
]  # fmt: skip


@pytest.mark.parametrize(("more", "line", "path", "message", "hint"), CASES)
def test_cross_checks(more: str, line: int, path: str, message: str, hint: str) -> None:
    assert only(HEAD + more) == Mistake(line, path, message, hint)


def test_a_match_that_is_part_of_another_says_what_would_happen() -> None:
    text = HEAD.replace(
        '{mac: "52:54:00:77:00:01", serial: A1, uuid: 4c4c4544-0042-3510-8048-b7c04f4d3433}', "{serial: A1}"
    )
    text = text.replace("    address: 10.77.0.11\n", "")
    assert only(text + node("{serial: A1, mac: '52:54:00:77:00:02'}")).hint == SAME


NETWORKS = [
    ("  gateway: 10.78.0.1", 4, "network.gateway", "10.78.0.1 is outside 10.77.0.0/24"),
    ("  gateway: 10.77.0.255", 4, "network.gateway", "10.77.0.255 is the broadcast address of 10.77.0.0/24"),
    ("  dns: [9.9.9.9]", 4, "network.dns[0]", "9.9.9.9 is outside 10.77.0.0/24 and there is no gateway to reach it by"),
    ("  gateway: 10.77.0.1\n  dns: [127.0.0.53]", 5, "network.dns[0]", "127.0.0.53 cannot be a name server on the network"),
    ("  gateway: 10.77.0.1\n  dns: [10.77.0.1, 10.77.0.1]", 5, "network.dns[1]", "10.77.0.1 is given twice"),
    ("  dns: [10.77.0.0]", 4, "network.dns[0]", "10.77.0.0 is the address of the network 10.77.0.0/24 itself"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "line", "path", "message"), NETWORKS)
def test_networks(lines: str, line: int, path: str, message: str) -> None:
    text = HEAD.replace("  gateway: 10.77.0.1\n  dns: [10.77.0.2]", lines)
    mistake = only(text)
    assert (mistake.line, mistake.path, mistake.message) == (line, path, message)


def test_a_subnet_with_too_little_room() -> None:
    nodes = "".join(node(f"{{mac: '52:54:00:77:00:0{i}'}}", f"n{i}") for i in range(3))
    text = f"name: a\nnetwork: {{subnet: 10.0.0.0/30, gateway: 10.0.0.1}}\nnodes:\n{nodes}"
    assert only(text).message == "10.0.0.0/30 has room for 1 machines, and there are 3 nodes"


@pytest.mark.parametrize(
    "more",
    [
        "firewall: {allow: [{port: 80}, {port: 80, proto: udp}, {port: 81}, {port: 80, from: 192.168.0.0/16}]}\n",
        "firewall: {allow: [{port: 22, proto: udp}]}\n",
        "storage: {root: 20G, models: rest}\n",
        node("{serial: B2}", more="    address: 10.77.0.12\n    interface: enp*\n"),
        node("{serial: B2}"),
        "    disk: {path: pci-0000*}\n" + node(more="    disk: {path: pci-0000*}\n"),
    ],
)
def test_what_only_looks_alike_is_accepted(more: str) -> None:
    assert isinstance(loads(HEAD + more), Cluster)


@pytest.mark.parametrize(
    "text",
    [
        HEAD.replace("10.77.0.0/24", "nonsense"),
        HEAD.replace("10.77.0.1\n", "nonsense\n").replace("10.77.0.2", "9.9.9.9"),
        HEAD.replace('"52:54:00:77:00:01"', "nonsense"),
        HEAD + node("{serial: B2}", more="    address: 10.77.0.12\n    interface: '*'\n"),
        HEAD + "storage: {root: nonsense, models: rest}\n",
        HEAD + "distribution: {mirror: nonsense, security_mirror: 'https://h/s'}\n",
    ],
)
def test_no_finding_that_rests_on_a_wrong_value(text: str) -> None:
    only(text)


WARNINGS = [
    ("", "access: there is no ssh key and no password, so nobody can log in to the nodes"),
    (
        "access: {password_hash: '$6$saltsalt$" + "c" * 86 + "'}\n",
        "access.password_hash: the medium holds the hash, so its owner can try passwords on it",
    ),
    ("distribution: {kernel: cloud}\n", "distribution.kernel: cloud lacks the drivers of most real machines"),
    (
        "storage: {disk: {largest: true, overwrite: true}}\n",
        "storage.disk: the largest disk is wiped whatever it holds; naming it by serial is safer",
    ),
    ("join: {mixed_plans: refuse}\n", "join.mixed_plans: without an engine nothing joins, so nothing is refused"),
    ("models: [{name: x, url: 'http://h/x'}]\n", "models[0]: x comes by plain http, and no sha256 guards it"),
]


@pytest.mark.parametrize(("more", "warning"), WARNINGS)
def test_warnings(more: str, warning: str) -> None:
    assert warning in warnings(loads(HEAD + more))
