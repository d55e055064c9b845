"""The virtual LAN with a real QEMU as its router; cards of the harness play the nodes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuilderError
from builder.run import run, which
from builder.verify import clustertest
from builder.verify.bootsector import boot_sector, bootable
from builder.verify.clock import RealClock
from builder.verify.clusterrequest import ClusterTest
from builder.verify.clustertest import cluster_test
from builder.verify.disks import GIB, MIB, make_blank
from builder.verify.frames import (
    ACK,
    BROADCAST,
    RST,
    SYN,
    Arp,
    Host,
    Packet,
    Wire,
    arp,
    knock,
    mac_bytes,
    parse,
    tcp,
)
from builder.verify.lan import Forward, Lan, Network, connected, plan_lan
from builder.verify.machine import QEMU
from builder.verify.report import Report, StepFailed
from builder.verify.request import BootTest, Limits

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(which(QEMU) is None, reason=f"{QEMU} is not installed"),
]
NET = IPv4Network("10.77.0.0/24")
NODES = {"one": IPv4Address("10.77.0.11"), "two": IPv4Address("10.77.0.12")}
ONE = Host(mac_bytes("52:54:00:77:00:01"), NODES["one"])
TWO = Host(mac_bytes("52:54:00:77:00:02"), NODES["two"])
CLOCK = RealClock()
PATIENCE = 20.0


def plan(folder: Path) -> Lan:
    return plan_lan(NET, IPv4Address("10.77.0.1"), NODES, [Forward(NODES["one"], 22)], folder)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with connected(plan(tmp_path), tmp_path, CLOCK) as network:
        yield network


@contextlib.contextmanager
def cabled(network: Network, node: str) -> Iterator[Wire]:
    wire = Wire(network.lan.cable(node).socket, CLOCK)
    try:
        wait(lambda: network.plugged()[node])
        yield wire
    finally:
        wire.close()


def wait(true: Callable[[], bool]) -> None:
    deadline = CLOCK.now() + PATIENCE
    while not true():
        assert CLOCK.now() < deadline
        CLOCK.sleep(0.02)


def heard(wire: Wire, wanted: Callable[[Arp | Packet], bool]) -> Arp | Packet:
    """The next frame that is wanted; all before it are passed over."""
    deadline = CLOCK.now() + PATIENCE
    while (frame := wire.receive(deadline - CLOCK.now())) is not None:
        seen = parse(frame)
        if seen is not None and wanted(seen):
            return seen
    pytest.fail("nothing of that kind came")


def router_of(network: Network, wire: Wire, asks: Host) -> Host:
    """The router's card, by asking as a node does; it knows that node's card from then on."""
    address = network.lan.network.host
    wire.send(arp(1, asks, Host(bytes(6), address), BROADCAST))
    answer = heard(wire, lambda seen: isinstance(seen, Arp) and seen.operation == 2)
    assert isinstance(answer, Arp)
    assert answer.sender.address == address
    return answer.sender


def test_a_connection_between_two_nodes_is_theirs_alone(network: Network) -> None:
    """With QEMU's hub the router would reset it in the other node's name, as it is restricted."""
    with cabled(network, "one") as one, cabled(network, "two") as two:
        router_of(network, one, ONE)  # so that a reset could reach the node
        one.send(tcp(ONE, TWO, 40000, 50052, SYN))
        assert heard(two, lambda seen: isinstance(seen, Packet)) == Packet(
            ONE.address, TWO.address, 40000, 50052, SYN
        )
        two.send(tcp(TWO, ONE, 50052, 40000, SYN | ACK))
        answer = heard(one, lambda seen: isinstance(seen, Packet))
        assert answer == Packet(TWO.address, ONE.address, 50052, 40000, SYN | ACK)
        router_of(network, one, ONE)  # a reset would have come before this answer
        assert one.receive(0.2) is None


def test_the_host_reaches_a_node_through_a_forwarded_port(network: Network) -> None:
    with cabled(network, "one") as one, socket.socket() as client:
        router_of(network, one, ONE)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", network.port(NODES["one"], 22)))
        seen = heard(one, lambda seen: isinstance(seen, Packet) and seen.flags == SYN)
        assert isinstance(seen, Packet)
        assert (seen.sender, seen.target, seen.to_port) == (network.lan.network.host, NODES["one"], 22)
    with pytest.raises(StepFailed, match=r"forwards no port to 10\.77\.0\.12:22"):
        network.port(NODES["two"], 22)


@pytest.mark.parametrize("way_out", [False, True])
def test_no_way_out_and_a_test_that_would_notice_one(tmp_path: Path, way_out: bool) -> None:
    lan = dataclasses.replace(plan(tmp_path), way_out=way_out)
    with (
        socket.create_server(("127.0.0.1", 0)) as outside,
        connected(lan, tmp_path, CLOCK) as network,
        cabled(network, "one") as one,
    ):
        router = router_of(network, one, ONE)
        one.send(tcp(ONE, router, 40000, outside.getsockname()[1], SYN))
        answer = heard(one, lambda seen: isinstance(seen, Packet))
        assert isinstance(answer, Packet)
        assert answer.flags == (SYN | ACK if way_out else RST | ACK)
        outside.settimeout(PATIENCE if way_out else 0.2)
        if way_out:
            outside.accept()[0].close()
        else:
            with pytest.raises(TimeoutError):
                outside.accept()


def test_a_cable_is_free_again_when_its_machine_is_gone(network: Network) -> None:
    with cabled(network, "one") as one:
        with cabled(network, "two"):
            assert network.plugged() == {"one": True, "two": True}
        wait(lambda: not network.plugged()["two"])
        with cabled(network, "two") as two:
            one.send(arp(1, ONE, TWO, BROADCAST))
            assert heard(two, lambda seen: True) == Arp(1, ONE, TWO.address)
    assert network.ended() is None


def test_a_full_cable_does_not_hold_up_the_others(network: Network) -> None:
    """A machine that reads nothing loses frames once its queue is full; the rest go on."""
    frame = TWO.mac + ONE.mac + b"\x88\xb5" + bytes(60000)  # an EtherType for experiments (IEEE 802)
    with cabled(network, "one") as one, cabled(network, "two") as two:
        two.send(arp(1, TWO, ONE, BROADCAST))
        heard(one, lambda seen: True)
        for _ in range(400):
            one.send(frame)
        assert router_of(network, one, ONE)
        got = 0
        while two.receive(1.0) is not None:
            got += 1
        assert 100 < got < 400


def test_knocking_tells_open_refused_and_silent_ports(network: Network) -> None:
    """The router is the target: a forwarded port of its own it has not, so it refuses all; a node drops some."""
    with cabled(network, "one") as one:
        router = router_of(network, one, ONE)
        me = Host(mac_bytes("52:54:00:fe:00:01"), network.lan.inside)
        with network.wire(CLOCK) as wire:
            found = knock(wire, CLOCK, me, router, [22, 8080], patience=PATIENCE)
        assert found.pings
        assert found.ports == {22: "refused", 8080: "refused"}
        with network.wire(CLOCK) as wire:
            nobody = knock(wire, CLOCK, me, TWO, [22], patience=1.5)
        assert (nobody.pings, nobody.ports) == (False, {22: "silent"})


def test_a_router_that_cannot_start_is_quoted(tmp_path: Path) -> None:
    lan = plan(tmp_path)
    bad = dataclasses.replace(lan, network=dataclasses.replace(lan.network, host=IPv4Address("10.99.0.1")))
    with pytest.raises(BuilderError, match="the virtual LAN did not start"), connected(bad, tmp_path, CLOCK):
        pytest.fail("it started")


PLAN = "0123456789abcdef" * 4
MANIFEST: dict[str, Any] = {
    "format": 1,
    "cluster": "pair",
    "plan": PLAN,
    "files": [],
    "models": [],
    "nodes": [
        {"name": f"node{number}", "match": {"mac": f"52:54:00:77:00:0{number}"}, "disk": {"largest": True}}
        for number in (1, 2)
    ],
    "storage": {"esp": 256 * MIB, "root": None, "models": 0},
    "after": "reboot",
}


def installed_disk(folder: Path, name: str, said: str) -> Path:
    """As an installer leaves it: GPT, clean ext4, and a boot sector that says one line and halts."""
    path = folder / f"{name}.raw"
    make_blank(path, 1 * GIB)
    run(["sfdisk", "-q", path], step="partitioning", stdin="label: gpt\nstart=2MiB, size=64MiB, name=root\n")
    argv: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", f"offset={2 * MIB}", path, "64M"]
    run(argv, step="making root")
    with path.open("r+b") as file:
        file.write(boot_sector(said.encode() + b"\r\n", "halt")[:440])
    return path


def pair(folder: Path, says: dict[str, str], installs: dict[str, str] | None = None) -> Report:
    """A cluster test of two boot sectors, as far as these can get: ssh is beyond them."""
    nodes = []
    for number, (name, said) in enumerate(says.items(), 1):
        iso = folder / f"{name}.iso"
        line = (installs or {}).get(name, f"builder-installed {name} {PLAN}")
        iso.write_bytes(bootable(boot_sector(line.encode() + b"\r\n", "reset")))
        nodes.append(
            BootTest(
                iso=iso,
                out=folder,
                node=name,
                address=IPv4Address(f"10.77.0.1{number}"),
                subnet=NET,
                gateway=IPv4Address("10.77.0.1"),
                manifest=MANIFEST,
                medium="disk",
                memory=64,
                content=installed_disk(folder, name, said),
                stall=5,
                limits=Limits(install=60, leave=5, boot=60, ssh=1, cloud_init=1, checks=1, power_off=1),
            )
        )
    return cluster_test(ClusterTest(tuple(nodes), folder / "out", head="node1", together=2))


needs_disk_tools = pytest.mark.skipif(
    not all(map(which, ("mke2fs", "sfdisk", "ssh", "ssh-keygen"))), reason="a tool is not installed"
)


def reasons(report: Report) -> dict[str, str]:
    return {step.name: step.reason for step in report.steps if step.outcome == "failed"}


@needs_disk_tools
def test_two_nodes_are_installed_and_boot_together(tmp_path: Path) -> None:
    report = pair(tmp_path, {"node1": f"builder-ready {PLAN}", "node2": f"builder-ready {PLAN}"})
    passed = [step.name for step in report.steps if step.outcome == "passed"]
    assert passed == [
        clustertest.DISKS,
        clustertest.INSTALL,
        clustertest.CLEAN,
        clustertest.READY,
        clustertest.UNTOUCHED,
    ], report.summary()
    assert "ssh did not get through" in reasons(report)[clustertest.SSH]
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert (written["passed"], written["node"]) == (False, "node1+node2")
    for node in ("node1", "node2"):
        assert f"builder-ready {PLAN}" in (tmp_path / "out" / node / "serial-boot.log").read_text()
        assert (report.files or {})[f"{node}: serial log of the first boot"] == f"{node}/serial-boot.log"
        assert f"{node}:\n" in report.last_screen


@needs_disk_tools
def test_one_bad_node_is_named(tmp_path: Path) -> None:
    report = pair(tmp_path, {"node1": f"builder-ready {PLAN}", "node2": f"builder-not-ready {PLAN}: x: y"})
    assert reasons(report) == {clustertest.READY: "node2: the node is not ready: x: y"}


@needs_disk_tools
def test_one_silent_node_is_named(tmp_path: Path) -> None:
    report = pair(tmp_path, {"node1": f"builder-ready {PLAN}", "node2": "GRUB"})
    assert "node2: stalled" in reasons(report)[clustertest.READY]
    assert (report.files or {})["node2: screen when the first boot failed"] == "node2/screen-boot.png"


@needs_disk_tools
def test_one_failed_install_is_named(tmp_path: Path) -> None:
    says = {"node1": "x", "node2": "x"}
    report = pair(tmp_path, says, {"node2": "builder-failed disk: two disks of 8 GiB"})
    assert "node2: the installer failed" in reasons(report)[clustertest.INSTALL]
