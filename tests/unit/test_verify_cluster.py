"""The cluster test's decisions: what is waited for, what a firewall's silence proves, how long things took."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from builder.errors import BuilderError, Exit
from builder.verify.clusterrequest import ClusterTest, static_addresses
from builder.verify.clustertimings import Boot, cluster_timings, unit_times
from builder.verify.frames import Answer, Knocked
from builder.verify.group import doctor_said, joined, missing_members, not_joined
from builder.verify.network import Address
from builder.verify.perimeter import firewall_faults, foreign_address
from builder.verify.report import StepFailed
from builder.verify.request import BootTest
from builder.verify.serial import Line, SerialLog
from builder.verify.together import MachineFailed, wait_for_all

PLAN = "ab" * 32
READY = {"ready": re.compile(r"builder-ready"), "failed": re.compile(r"builder-failed")}


class Time:
    """Pauses pass at once; every machine writes at set times."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.machines: list[Machine] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for machine in self.machines:
            machine.write()


class Machine:
    def __init__(self, path: Path, time: Time, script: dict[float, bytes], ends_at: float | None) -> None:
        self._path, self._time, self._ends_at = path, time, ends_at
        self._script = {1000 + at: data for at, data in script.items()}
        self.serial = SerialLog(path, time, self.ended)
        time.machines.append(self)

    def write(self) -> None:
        for at in sorted(self._script):
            if at <= self._time.time:
                with self._path.open("ab") as file:
                    file.write(self._script.pop(at))

    def ended(self) -> str | None:
        over = self._ends_at is not None and self._time.time >= 1000 + self._ends_at
        return "QEMU exited 0" if over else None


Make = Callable[..., Machine]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def make(tmp_path: Path, time: Time) -> Make:
    def made(script: dict[float, bytes], ends_at: float | None = None) -> Machine:
        return Machine(tmp_path / f"serial-{len(time.machines)}", time, script, ends_at)

    return made


def test_all_have_to_say_it(time: Time, make: Make) -> None:
    machines = {"a": make({1: b"builder-ready 1\n"}), "b": make({50: b"x\n", 90: b"builder-ready 2\n"})}
    seen = wait_for_all(machines, READY, time, stall=60, limit=200)
    assert [one.line.text for one in seen.values()] == ["builder-ready 1", "builder-ready 2"]
    began = time.time
    again = wait_for_all(machines, READY, time, stall=60, limit=200)
    assert [one.line for one in again.values()] == [one.line for one in seen.values()], "what was said stays said"
    assert time.time == began


def test_the_silent_one_is_named_though_the_other_talks(time: Time, make: Make) -> None:
    talks = make({float(at): b"x\n" for at in range(300)})
    machines = {"talks": talks, "silent": make({1: b"GRUB\n"})}
    with pytest.raises(MachineFailed, match="silent: stalled: no output on the serial port for 60 s") as caught:
        wait_for_all(machines, READY, time, stall=60, limit=1000)
    assert (caught.value.machine, caught.value.evidence) == ("silent", "GRUB")
    assert time.time < 1063


def test_one_that_exits_is_told_at_once(time: Time, make: Make) -> None:
    machines = {"a": make({}), "b": make({1: b"half a line"}, ends_at=2)}
    with pytest.raises(StepFailed, match="b: QEMU exited 0 before ready or failed was seen") as caught:
        wait_for_all(machines, READY, time, stall=60, limit=1000)
    assert caught.value.evidence == "half a line"
    assert time.time < 1003


def test_one_that_is_done_may_exit_only_if_that_is_meant(time: Time, make: Make) -> None:
    machines = {"a": make({1: b"builder-ready\n"}, ends_at=3), "b": make({9: b"builder-ready\n"})}
    with pytest.raises(MachineFailed, match=r"^a: QEMU exited 0$"):
        wait_for_all(machines, READY, time, stall=60, limit=100)
    assert len(wait_for_all(machines, READY, time, stall=60, limit=100, may_leave=True)) == 2


def test_a_panic_and_a_lost_network_end_the_wait(time: Time, make: Make) -> None:
    machines = {"a": make({}), "b": make({1: b"Kernel panic - not syncing: VFS\n"})}
    with pytest.raises(MachineFailed, match="b: the kernel panicked"):
        wait_for_all(machines, READY, time, stall=60, limit=100)
    with pytest.raises(StepFailed, match=r"^no LAN$"):
        wait_for_all({"c": make({})}, READY, time, stall=60, limit=100, lost=lambda: "no LAN")


def test_one_that_talks_for_ever_meets_the_limit(time: Time, make: Make) -> None:
    with pytest.raises(MachineFailed, match="a: no ready or failed within 100 s"):
        wait_for_all({"a": make({float(n): b"x" for n in range(200)})}, READY, time, stall=60, limit=100)


def test_only_the_whole_cluster_of_this_plan_has_joined() -> None:
    pattern = joined(3, PLAN)
    assert pattern.search(f"[ 1.0] builder-joined 3/3 {PLAN}")
    for other in (f"builder-joined 2/3 {PLAN}", f"builder-joined 3/3 {'0' * 64}", f"builder-joined 13/3 {PLAN}"):
        assert not pattern.search(other)


def test_the_line_of_a_node_that_misses_another() -> None:
    pattern = not_joined(3, PLAN, "node1")
    assert pattern.search(f"builder-not-joined 2/3 {PLAN}: node1: no answer")
    assert pattern.search(f"builder-not-joined 1/3 {PLAN}: node2: port 22: closed; node1: no answer")
    for other in ("node2: node1 is not there", "node11: no answer", "node2: no answer"):
        assert not pattern.search(f"builder-not-joined 2/3 {PLAN}: {other}")


def test_who_the_doctor_misses() -> None:
    said = doctor_said('{"members": {"node1": null, "node2": "no answer"}, "checks": []}')
    assert missing_members(said) == {"node2": "no answer"}
    for bad in ("", "{}", "[]", "node2", '{"members": [], "checks": []}', '{"members": {}}'):
        with pytest.raises(ValueError):
            doctor_said(bad)


def test_what_was_said_before_does_not_count(time: Time, make: Make) -> None:
    machines = {"a": make({1: b"builder-ready 1\n", 50: b"builder-ready 2\n"})}
    wait_for_all(machines, READY, time, stall=60, limit=100)
    again = wait_for_all(machines, READY, time, stall=60, limit=100, after=time.now() + 1)
    assert again["a"].line.text == "builder-ready 2"


def knocked(pings: bool = True, **ports: Answer) -> Knocked:
    return Knocked(pings, {int(name[1:]): answer for name, answer in ports.items()})


INSIDE = knocked(p80="open", p90="refused", p7="silent")
OUTSIDE = knocked(p80="silent", p90="silent", p7="silent")


@pytest.mark.parametrize(
    ("inside", "outside", "wanted"),
    [
        (INSIDE, OUTSIDE, []),
        (knocked(p80="refused", p90="open", p7="silent"), OUTSIDE, ["port 80 is refused from the cluster's"]),
        (knocked(p80="silent", p90="open", p7="silent"), OUTSIDE, ["port 80 is silent from the cluster's"]),
        (knocked(p80="open", p90="silent", p7="silent"), OUTSIDE, ["port 90 is shut by the firewall"]),
        (knocked(p80="open", p90="open", p7="refused"), OUTSIDE, ["port 7, which nobody opened"]),
        (INSIDE, knocked(p80="open", p90="silent", p7="silent"), ["port 80 is open from another subnet"]),
        (INSIDE, knocked(p80="silent", p90="refused", p7="silent"), ["port 90 is refused from another"]),
        (INSIDE, dataclasses.replace(OUTSIDE, pings=False), ["a closed port proves nothing"]),
        (dataclasses.replace(INSIDE, pings=False), OUTSIDE, ["nothing can be told"]),
    ],
)
def test_what_a_firewall_did(inside: Knocked, outside: Knocked, wanted: list[str]) -> None:
    faults = firewall_faults(inside, outside, [80], [80, 90], 7)
    assert len(faults) == len(wanted)
    assert all(part in fault for part, fault in zip(wanted, faults, strict=True))


def test_a_foreign_address_is_never_the_cluster_s() -> None:
    for subnet in ("10.0.0.0/8", "198.51.100.0/24", "198.51.0.0/16"):
        assert foreign_address(IPv4Network(subnet)) not in IPv4Network(subnet)


def request_for(*addresses: Address) -> ClusterTest:
    nodes = tuple(
        BootTest(Path("i"), Path("o"), f"node{number}", address, IPv4Network("10.0.0.0/24"), None)
        for number, address in enumerate(addresses, 1)
    )
    return ClusterTest(nodes, Path("o"), head="node1")


def test_addresses_have_to_be_known() -> None:
    assert static_addresses(request_for(IPv4Address("10.0.0.1"))) == {"node1": IPv4Address("10.0.0.1")}
    with pytest.raises(BuilderError, match="node2 takes its address by DHCP") as caught:
        static_addresses(request_for(IPv4Address("10.0.0.1"), "dhcp"))
    assert caught.value.code == Exit.SPEC
    with pytest.raises(BuilderError, match="head nobody"):
        static_addresses(dataclasses.replace(request_for(IPv4Address("10.0.0.1")), head="nobody"))


SHOWN = """\
Id=network-online.target
InactiveExitTimestampMonotonic=12000000
ActiveEnterTimestampMonotonic=12500000

Id=cloud-init-local.service
InactiveExitTimestampMonotonic=6000000
ActiveEnterTimestampMonotonic=8000000

Id=cloud-final.service
InactiveExitTimestampMonotonic=15000000
ActiveEnterTimestampMonotonic=18000000
"""


def boot(node: str, began: float, joined_at: float) -> Boot:
    lines = (
        Line(began + 4, "Linux version 6.12"),
        Line(began + 9, "systemd[1]: systemd 257 running in system mode"),
    )
    return Boot(node, began, lines, began + 30, joined_at, unit_times(SHOWN))


def test_phases_of_every_node() -> None:
    """The later node's network is up at 103 + 4 + 12.5 s; the join counts from there."""
    found = {one.phase: one.seconds for one in cluster_timings([boot("a", 100, 135), boot("b", 103, 140)])}
    assert found == {
        "a boot firmware": 4,
        "a boot kernel": 5,
        "a boot services": 21,
        "a boot cloud-init": 12,
        "a join": 15.5,
        "a power-on to joined": 35,
        "b boot firmware": 4,
        "b boot kernel": 5,
        "b boot services": 21,
        "b boot cloud-init": 12,
        "b join": 20.5,
        "b power-on to joined": 37,
    }


def test_a_node_that_tells_no_times() -> None:
    silent = dataclasses.replace(boot("a", 0, 40), units=unit_times("Id=x\nActiveEnterTimestampMonotonic="))
    assert {one.phase: one.seconds for one in cluster_timings([silent])}["a join"] == 10
