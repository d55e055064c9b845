"""The nodes of a cluster test as one: they get power together, say their lines, and are asked how they are."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from builder.run import Completed
from builder.verify import verdicts
from builder.verify.clock import Clock
from builder.verify.clusterrequest import ClusterTest, Engine
from builder.verify.lan import Forward, Lan, Network, plan_lan
from builder.verify.member import Member
from builder.verify.report import StepFailed
from builder.verify.serial import Seen
from builder.verify.ssh import PAUSE
from builder.verify.together import wait_for_all
from builder.verify.vm import VM


def joined(count: int, plan: str) -> re.Pattern[str]:
    """The line of a node that sees the whole cluster."""
    return re.compile(rf"builder-joined {count}/{count} {plan}")


def not_joined(count: int, plan: str, name: str) -> re.Pattern[str]:
    """The line of a node that misses the node ``name``."""
    return re.compile(rf"builder-not-joined \d+/{count} {plan}: (?:.*; )?{re.escape(name)}: ")


def doctor_said(text: str) -> dict[str, Any]:
    """The doctor's JSON. Raises ValueError if it is none."""
    said = json.loads(text)
    if not isinstance(said, dict) or not isinstance(said.get("members"), dict) or "checks" not in said:
        raise ValueError("it has no members and checks")
    return said


def missing_members(said: Mapping[str, Any]) -> dict[str, str]:
    """Which nodes the doctor calls missing, and why."""
    return {str(name): str(reason) for name, reason in said["members"].items() if reason is not None}


class Group:
    """See the module. Every limit is stretched by ``slower`` where the machines share this host's cores."""

    def __init__(self, request: ClusterTest, members: Sequence[Member], clock: Clock) -> None:
        self.request = request
        self.clock = clock
        self.members = {member.name: member for member in members}
        self.head = self.members[request.head]
        first = members[0].bench
        self.plan = str(first.manifest["plan"])
        self.limits = request.limits.scaled(first.limits.boot / first.request.limits.boot)
        self.slower = max(1.0, len(members) / (os.cpu_count() or 1))
        self._stall = first.stall * self.slower

    @property
    def all(self) -> tuple[Member, ...]:
        return tuple(self.members.values())

    @property
    def joined(self) -> re.Pattern[str]:
        return joined(len(self.members), self.plan)

    def lan(self) -> Lan:
        """Raises BuilderError if the subnet has no room for the addresses that the test needs."""
        first = self.head.bench.request
        nodes = {member.name: member.address for member in self.all}
        forwards = [Forward(address, 22) for address in nodes.values()]
        if self.request.engine is not None:
            forwards.append(Forward(nodes[self.request.engine.head], self.request.engine.port))
        return plan_lan(first.subnet, first.gateway, nodes, forwards, self.head.bench.scratch, first.taken)

    def boot(self, network: Network, members: Sequence[Member], phase: str) -> list[str]:
        """Power on from the disk, until each has said that it is ready."""
        seen = self.power_on(
            members,
            lambda member: member.start(network, phase),
            verdicts.READY_LINES,
            stall=self._stall,
            limit=self.head.bench.limits.boot * self.slower,
            lost=network.ended,
        )
        told = []
        for name, one in seen.items():
            with verdicts.of(name):
                told.append(f"{name}: {verdicts.ready(one, self.members[name].machine.serial, self.plan)}")
        return told

    def power_on(
        self,
        members: Sequence[Member],
        start: Callable[[Member], VM],
        patterns: Mapping[str, re.Pattern[str]],
        *,
        stall: float,
        limit: float,
        lost: Callable[[], str | None] = lambda: None,
        may_leave: bool = False,
    ) -> dict[str, Seen]:
        """Start machines and wait for each one's line."""
        machines = {member.name: start(member) for member in members}
        return wait_for_all(
            machines, patterns, self.clock, stall=stall, limit=limit, lost=lost, may_leave=may_leave
        )

    def wait_joined(self, network: Network, members: Sequence[Member], after: float = 0.0) -> list[str]:
        return self.wait_said(network, members, {"builder-joined": self.joined}, self.limits.join, after)

    def wait_said(
        self,
        network: Network,
        members: Sequence[Member],
        patterns: Mapping[str, re.Pattern[str]],
        limit: float,
        after: float,
    ) -> list[str]:
        """A node that waits for its peers says nothing, so silence is no stall here."""
        limit *= self.slower
        seen = wait_for_all(
            {member.name: member.machine for member in members},
            patterns,
            self.clock,
            stall=limit,
            limit=limit,
            lost=network.ended,
            after=after,
        )
        return [f"{name}: {one.line.text.strip()}" for name, one in seen.items()]

    def wait_healthy(self, member: Member) -> str:
        """Until its doctor finds nothing wrong."""
        for done, said in self._ask_doctor(member, self.limits.healthy):
            if done.returncode == 0 and not missing_members(said):
                return f"{member.name}: {self.request.doctor} exited 0 and misses nobody"
        raise StepFailed(f"{member.name}: {self.request.doctor} still finds something wrong", done.stdout)

    def wait_missed(self, name: str) -> str:
        """Until the head's doctor calls the node missing."""
        for done, said in self._ask_doctor(self.head, self.limits.missing):
            reason = missing_members(said).get(name)
            if done.returncode != 0 and reason is not None:
                return f"{self.head.name}'s doctor: {name}: {reason}"
        raise StepFailed(f"the doctor on {self.head.name} does not name {name}", done.stdout)

    def wait_diagnosed(self, member: Member, what: str) -> str:
        """Until its doctor names a problem that has ``what`` in it."""
        for done, said in self._ask_doctor(member, self.limits.missing):
            problems = [check for check in said["checks"] if check["state"] == "problem"]
            named = [check for check in problems if what in check["what"]]
            if done.returncode != 0 and named:
                return f"{member.name}'s doctor: {named[0]['what']}: {named[0]['why']}. Do: {named[0]['do']}"
        raise StepFailed(f"the doctor on {member.name} does not name {what}", done.stdout)

    def _ask_doctor(self, member: Member, limit: float) -> Iterator[tuple[Completed, dict[str, Any]]]:
        """Ask again and again, until ``limit`` seconds are over."""
        deadline = self.clock.now() + limit * self.slower
        while True:
            done = member.ssh.run(self.request.doctor, member.bench.limits.ssh)
            try:
                said = doctor_said(done.stdout)
            except ValueError as error:
                reason = f"{member.name}: {self.request.doctor} exited {done.returncode} without its JSON"
                raise StepFailed(reason, done.stdout + done.stderr) from error
            yield done, said
            if self.clock.now() > deadline:
                return
            self.clock.sleep(PAUSE)

    def complete(self, network: Network, engine: Engine) -> list[str]:
        """One completion through the head, and the proof that every node took part."""
        base = f"http://127.0.0.1:{network.port(self.members[engine.head].address, engine.port)}"
        try:
            text = engine.complete(base)
            if not text.strip():
                raise StepFailed("the completion is empty")
            proof = engine.evidence({member.name: member.ssh for member in self.all})
        except (OSError, ValueError) as error:
            raise StepFailed(f"no completion: {error}", network.ended() or "") from error
        return [f"completion: {text.strip()}", f"every node took part: {proof}"]

    def left_by(self, member: Member, how: str) -> str:
        """Until its QEMU has exited after ``systemctl`` "reboot" or "poweroff"."""
        reason = member.left(member.bench.limits.power_off * self.slower)
        with verdicts.of(member.name):
            return f"{member.name}: {verdicts.left(reason, how, member.machine.serial, why=f'systemctl {how}')}"

    @contextlib.contextmanager
    def power(self, keep: Callable[[str], None]) -> Iterator[None]:
        """On leaving no machine has power; after a failure ``keep`` gets what they show."""
        try:
            yield
        except StepFailed as failed:
            for member in self.all:
                if member.vm is not None:
                    keep(f"{member.name}:\n{member.vm.serial.screen(10)}\n")
                member.show_failure(failed)
            raise
        finally:
            for member in self.all:
                member.stop()
