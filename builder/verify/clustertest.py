"""The cluster test: every node from one medium, all on one virtual LAN, and a cluster that forms by itself.

Each node is installed on its own disk; all power on together; each says ``builder-ready`` and then
``builder-joined N/N``; one completion through the head that every node took part in; the overlays' checks on every
node; ports closed from outside the subnet; no way out. Then the faults: a node without power is named as
missing and joins again when it has power; all reboot and join again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from builder.run import Completed
from builder.verify import console, disks
from builder.verify.checks import run_checks
from builder.verify.clock import Clock, RealClock
from builder.verify.clusterrequest import ClusterTest, Engine, static_addresses
from builder.verify.clustertimings import SHOW, Boot, cluster_timings, unit_times
from builder.verify.lab import lab, remove_disks
from builder.verify.lan import Forward, Lan, Network, connected, plan_lan
from builder.verify.member import Member
from builder.verify.perimeter import cannot_reach_out, ports_are_shut
from builder.verify.recorder import Recorder
from builder.verify.report import Report, Step, StepFailed, Timing
from builder.verify.serial import Seen
from builder.verify.ssh import PAUSE
from builder.verify.timings import install_timings
from builder.verify.together import MachineFailed, wait_for_all
from builder.verify.vm import VM

DISKS = "disks are made"
INSTALL = "the medium installs every node"
CLEAN = "file systems are clean"
READY = "every node boots and is ready"
SSH = "ssh to every node"
JOINED = "every node has joined"
HEALTHY = "the doctor finds nothing wrong"
COMPLETION = "a completion that every node took part in"
CHECKS = "checks on every node"
FIREWALL = "ports are open to the cluster's subnet only"
NO_WAY_OUT = "nothing leaves the cluster"
MISSING = "a node without power is named as missing"
BACK = "it joins again without help"
REBOOT = "every node is back after a reboot of all"
OFF = "every node powers off"
UNTOUCHED = "other disks are unchanged"

_ENGINE_STEPS = (JOINED, COMPLETION, MISSING, BACK)  # without an engine nothing watches who is there
_PEER_STEPS = (MISSING, BACK)

# Linux tries its timer for 40 ms before it does anything else. On a host that is too busy to give an emulated
# machine its share of these, it gives up; nothing of ours has run then, so the machine is started once more.
_STARVED = re.compile(r"Kernel panic - not syncing: IO-APIC \+ timer doesn't work")
_STARTS = 4
_EXIT_REASON = {"reboot": "guest-reset", "poweroff": "guest-shutdown"}
_BLOCK_QUIET, _BLOCK_LIMIT = 5.0, 60.0  # seconds: the YAML block that follows builder-failed


def _silent(line: str) -> None:
    """Says nothing."""


def cluster_test(request: ClusterTest, say: Callable[[str], None] = _silent, clock: Clock | None = None) -> Report:
    """Install, boot and try a whole cluster. The report is written to ``out``, each node's files to ``out``/NAME.

    Raises BuilderError if the test cannot be made at all (no QEMU, a node with DHCP, no firmware).
    """
    addresses = static_addresses(request)
    request.out.mkdir(parents=True, exist_ok=True)
    for name in ("report.json", "junit.xml", "qemu-lan.stderr"):
        (request.out / name).unlink(missing_ok=True)
    with contextlib.ExitStack() as labs:
        members = []
        for one in request.nodes:
            prefixed = _prefixed(say, one.node)
            own = replace(one, out=request.out / one.node, cpus=1 if request.together > 1 else one.cpus)
            bench = labs.enter_context(lab(own, prefixed, clock))
            members.append(Member(bench, addresses[one.node], labs.enter_context(contextlib.ExitStack())))
        test = _Test(request, members, clock or RealClock(), say)
        lan = test.lan()
        with contextlib.suppress(StepFailed):
            with test.power():
                test.make_disks()
                test.install()
                test.file_systems_are_clean()
            with connected(lan, request.out.absolute(), test.clock) as network, test.power():
                test.run(network)
        test.other_disks_are_unchanged()
        return test.report()


def joined(count: int, plan: str) -> re.Pattern[str]:
    """The line of a node that sees the whole cluster."""
    return re.compile(rf"builder-joined {count}/{count} {plan}")


def not_joined(count: int, plan: str, name: str) -> re.Pattern[str]:
    """The line of a node that misses the node ``name``."""
    return re.compile(rf"builder-not-joined \d+/{count} {plan}: (?:.*; )?{re.escape(name)}: ")


def missing_members(said: str) -> dict[str, str]:
    """Which nodes the doctor's JSON calls missing, and why. Raises ValueError if it is none."""
    members = json.loads(said)["members"]
    return {str(name): str(reason) for name, reason in members.items() if reason is not None}


def _prefixed(say: Callable[[str], None], node: str) -> Callable[[str], None]:
    return lambda line: say(f"{node}: {line.strip()}")


class _Test:
    """The steps, and what they leave for the report."""

    def __init__(
        self, request: ClusterTest, members: Sequence[Member], clock: Clock, say: Callable[[str], None]
    ) -> None:
        self.clock = clock
        self._request = request
        self._say = say
        self._members = {member.name: member for member in members}
        self._head = self._members[request.head]
        first = members[0].bench
        self._plan = str(first.manifest["plan"])
        self._limits = request.limits.scaled(first.limits.boot / members[0].bench.request.limits.boot)
        # Machines that share a core are silent for longer.
        share = max(1.0, len(members) / (os.cpu_count() or 1))
        self._stall = first.stall * share
        self._slower = share
        self._recorder = Recorder(self.steps(), clock, say)
        self._step = self._recorder.step
        self._checks: list[Step] = []
        self._timings: list[Timing] = []
        self._screens = ""

    def steps(self) -> tuple[str, ...]:
        alone = len(self._members) == 1
        every = (DISKS, INSTALL, CLEAN, READY, SSH, JOINED, HEALTHY, COMPLETION, CHECKS, FIREWALL, NO_WAY_OUT)
        faults = (MISSING, BACK, REBOOT, OFF, UNTOUCHED)
        left_out = (() if self._request.engine else _ENGINE_STEPS) + (_PEER_STEPS if alone else ())
        return tuple(step for step in (*every, *faults) if step not in left_out)

    def lan(self) -> Lan:
        """Raises BuilderError if the subnet has no room for the addresses that the test needs."""
        first = self._head.bench.request
        nodes = {member.name: member.address for member in self._members.values()}
        forwards = [Forward(address, 22) for address in nodes.values()]
        if self._request.engine is not None:
            forwards.append(Forward(nodes[self._request.engine.head], self._request.engine.port))
        return plan_lan(first.subnet, first.gateway, nodes, forwards, self._head.bench.scratch, first.taken)

    @contextlib.contextmanager
    def power(self) -> Iterator[None]:
        """On leaving no machine has power; after a failure what they show is kept first."""
        try:
            yield
        except StepFailed as failed:
            for member in self._members.values():
                if member.vm is not None:
                    self._screens += f"{member.name}:\n{member.vm.serial.screen(10)}\n"
                member.show_failure(failed)
            raise
        finally:
            for member in self._members.values():
                member.stop()

    def make_disks(self) -> None:
        with self._step(DISKS) as evidence:
            for member in self._members.values():
                member.bench.make_disks()
                member.before = member.bench.digests(target=False)
                evidence.extend(f"{member.name} {disk}: {digest}" for disk, digest in member.before.items())

    def install(self) -> None:
        waiting = list(self._members.values())
        with self._step(INSTALL) as evidence:
            while waiting:
                some, waiting = waiting[: self._request.together], waiting[self._request.together :]
                evidence.extend(self._install(some))

    def _install(self, members: Sequence[Member]) -> Iterator[str]:
        bench = members[0].bench
        patterns = {"builder-installed": console.INSTALLED, "builder-failed": console.FAILED}
        try:
            seen = self._power_on(
                members,
                Member.start_install,
                patterns,
                stall=bench.stall * len(members),
                limit=bench.limits.install * len(members),
                may_leave=True,
            )
            for member in members:
                yield f"{member.name}: {self._installed(member, seen[member.name])}"
        finally:
            for member in members:
                if member.vm is None:
                    continue
                times = install_timings(member.vm.began, member.vm.serial.lines, self.clock.now())
                self._timings += [Timing(f"{member.name} {one.phase}", one.seconds) for one in times]
        for member in members:
            member.stop()

    def _installed(self, member: Member, seen: Seen) -> str:
        vm = member.machine
        if seen.name == "builder-failed":
            vm.serial.settle(quiet=_BLOCK_QUIET, limit=_BLOCK_LIMIT)
            raise StepFailed(f"{member.name}: the installer failed: {seen.match.group(0)}", vm.serial.screen(60))
        node, plan = seen.match.groups()
        if (node, plan) != (member.name, self._plan):
            raise StepFailed(f"{member.name}: it installed node {node} of plan {plan}, not of {self._plan}")
        after = str(member.bench.manifest.get("after", "reboot"))
        reason = member.left(member.bench.limits.leave)
        if reason != _EXIT_REASON[after]:
            raise StepFailed(f"{member.name}: the spec says {after} after the install, QEMU saw {reason}")
        return f"{seen.line.text.strip()}; QEMU exited by itself: {reason}"

    def file_systems_are_clean(self) -> None:
        with self._step(CLEAN) as evidence:
            for member in self._members.values():
                try:
                    evidence.append(f"{member.name}: {disks.check_clean(member.bench.target_path)}")
                except StepFailed as failed:
                    raise StepFailed(f"{member.name}: {failed.reason}", failed.evidence) from failed

    def run(self, network: Network) -> None:
        """All that needs the nodes to be up."""
        members = tuple(self._members.values())
        with self._step(READY) as evidence:
            evidence.extend(self._boot(network, members, "boot"))
        with self._step(SSH) as evidence:
            for member in members:
                evidence.append(f"{member.name}: {member.ssh.greet(member.bench.limits.ssh * self._slower)}")
        if self._request.engine is not None:
            with self._step(JOINED) as evidence:
                evidence.extend(self._wait_joined(network, members))
        self._keep_timings(members)
        with self._step(HEALTHY) as evidence:
            for member in members:
                evidence.append(f"{member.name}: {self._wait_healthy(member)}")
        if self._request.engine is not None:
            with self._step(COMPLETION) as evidence:
                evidence.extend(self._complete(network, self._request.engine))
        with self._step(CHECKS) as evidence:
            evidence.extend(self._run_checks(members))
        with self._step(FIREWALL) as evidence:
            for member in members:
                evidence.append(f"{member.name}: {ports_are_shut(network, member, self._request, self.clock)}")
        with self._step(NO_WAY_OUT) as evidence:
            for member in members:
                evidence.append(f"{member.name}: {cannot_reach_out(network, member)}")
        if len(members) > 1 and self._request.engine is not None:
            self._cut_the_power(network)
        with self._step(REBOOT) as evidence:
            evidence.extend(self._reboot(network, members))
        with self._step(OFF) as evidence:
            for member in members:
                evidence.append(f"{member.name}: {self._power_off(member)}")

    def _boot(self, network: Network, members: Sequence[Member], phase: str) -> list[str]:
        patterns = {"builder-ready": console.READY, "builder-not-ready": console.NOT_READY}
        seen = self._power_on(
            members,
            lambda member: member.start(network, phase),
            patterns,
            stall=self._stall,
            limit=self._head.bench.limits.boot * self._slower,
            lost=network.ended,
        )
        for name, one in seen.items():
            screen = self._members[name].machine.serial.screen()
            if one.name == "builder-not-ready":
                raise StepFailed(f"{name}: the node is not ready: {one.match.group(2)}", screen)
            if one.match.group(1) != self._plan:
                raise StepFailed(f"{name}: it carries plan {one.match.group(1)}, the medium {self._plan}", screen)
        return [f"{name}: {one.line.text.strip()}" for name, one in seen.items()]

    def _power_on(
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
        """Start machines and wait for each one's line; see ``_STARVED`` for when one is started again."""
        machines = {member.name: start(member) for member in members}
        left = _STARTS
        while True:
            try:
                return wait_for_all(
                    machines, patterns, self.clock, stall=stall, limit=limit, lost=lost, may_leave=may_leave
                )
            except MachineFailed as failed:
                left -= 1
                if not left or not _STARVED.search(failed.reason):
                    raise
                self._say(f"{failed.machine}: this host was too busy for the kernel's timer test; once more")
                self._members[failed.machine].stop()
                machines[failed.machine] = start(self._members[failed.machine])

    def _wait_joined(self, network: Network, members: Sequence[Member], after: float = 0.0) -> list[str]:
        patterns = {"builder-joined": joined(len(self._members), self._plan)}
        return self._wait_said(network, members, patterns, self._limits.join, after)

    def _wait_said(
        self,
        network: Network,
        members: Sequence[Member],
        patterns: Mapping[str, re.Pattern[str]],
        limit: float,
        after: float,
    ) -> list[str]:
        """A node that waits for its peers says nothing, so silence is no stall here."""
        limit *= self._slower
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

    def _keep_timings(self, members: Sequence[Member]) -> None:
        boots = []
        for member in members:
            vm = member.machine
            shown = member.ssh.run(SHOW, member.bench.limits.ssh).stdout
            said = joined(len(self._members), self._plan)
            ready = next(line.at for line in vm.serial.lines if console.READY.search(line.text))
            at = next((line.at for line in vm.serial.lines if said.search(line.text)), None)
            boots.append(Boot(member.name, vm.began, tuple(vm.serial.lines), ready, at, unit_times(shown)))
        self._timings += cluster_timings(boots)

    def _doctor(self, member: Member) -> Completed:
        return member.ssh.run(self._request.doctor, member.bench.limits.ssh)

    def _wait_healthy(self, member: Member) -> str:
        limit = self._limits.healthy * self._slower
        deadline = self.clock.now() + limit
        while True:
            done = self._doctor(member)
            if done.returncode == 0 and not self._missing(done):
                return f"{self._request.doctor} exited 0 and misses nobody"
            if self.clock.now() > deadline:
                said = (done.stdout + done.stderr).strip()
                raise StepFailed(
                    f"{member.name}: {self._request.doctor} exited {done.returncode} for {limit:.0f} s", said
                )
            self.clock.sleep(PAUSE)

    def _complete(self, network: Network, engine: Engine) -> list[str]:
        base = f"http://127.0.0.1:{network.port(self._members[engine.head].address, engine.port)}"
        try:
            text = engine.complete(base)
            if not text.strip():
                raise StepFailed("the completion is empty")
            proof = engine.evidence({member.name: member.ssh for member in self._members.values()})
        except (OSError, ValueError) as error:
            raise StepFailed(f"no completion: {error}", network.ended() or "") from error
        return [f"completion: {text.strip()}", f"every node took part: {proof}"]

    def _run_checks(self, members: Sequence[Member]) -> list[str]:
        bad, told = [], []
        for member in members:
            request, bench = member.bench.request, member.bench
            own = {"name": member.name, "address": str(member.address), "plan": self._plan}
            facts = {"user": None, "models": [], "openings": [], **request.facts, **own}
            limit = bench.limits.checks * self._slower
            found = run_checks(request.checks, member.ssh.config, facts, member.out.absolute(), limit)
            self._checks += [replace(step, name=f"{member.name} {step.name}") for step in found]
            count = {name: sum(step.outcome == name for step in found) for name in ("passed", "failed")}
            bad += [f"{member.name} {step.name}" for step in found if step.outcome == "failed"]
            bad += [f"{member.name}: none could run"] if not count["passed"] else []
            told.append(f"{member.name}: {count['passed']} of {len(found)} passed")
        if bad:
            raise StepFailed(f"failed: {', '.join(bad)}", "\n".join(told))
        return told

    def _cut_the_power(self, network: Network) -> None:
        victim = next(member for member in reversed(self._members.values()) if member is not self._head)
        others = [member for member in self._members.values() if member is not victim]
        with self._step(MISSING) as evidence:
            cut = self.clock.now()
            victim.stop()
            evidence.append(f"{victim.name} has no power")
            patterns = {"builder-not-joined": not_joined(len(self._members), self._plan, victim.name)}
            evidence.extend(self._wait_said(network, others, patterns, self._limits.missing, cut))
            evidence.append(self._wait_named(victim.name))
        with self._step(BACK) as evidence:
            back = self.clock.now()
            evidence.extend(self._boot(network, [victim], "again"))
            evidence.extend(self._wait_joined(network, [*others, victim], back))
            for member in [*others, victim]:
                evidence.append(f"{member.name}: {self._wait_healthy(member)}")
            if self._request.engine is not None:
                evidence.extend(self._complete(network, self._request.engine))

    def _wait_named(self, name: str) -> str:
        """Until the head's doctor calls the node missing."""
        limit = self._limits.missing * self._slower
        began = self.clock.now()
        while True:
            done = self._doctor(self._head)
            took = self.clock.now() - began
            reason = self._missing(done).get(name)
            if done.returncode != 0 and reason is not None:
                return f"{self._head.name}'s doctor after {took:.0f} s more: {name}: {reason}"
            if took > limit:
                raise StepFailed(
                    f"the doctor on {self._head.name} did not name {name} in {limit:.0f} s", done.stdout
                )
            self.clock.sleep(PAUSE)

    def _missing(self, done: Completed) -> dict[str, str]:
        try:
            return missing_members(done.stdout)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            said = done.stdout + done.stderr
            raise StepFailed(f"{self._request.doctor} exited {done.returncode} without its JSON", said) from error

    def _reboot(self, network: Network, members: Sequence[Member]) -> list[str]:
        for member in members:
            member.ssh.once("systemctl reboot")  # its status says nothing: the connection goes down with the node
        told = []
        for member in members:
            reason = member.left(member.bench.limits.power_off * self._slower)
            if reason != _EXIT_REASON["reboot"]:
                raise StepFailed(f"{member.name}: systemctl reboot: QEMU saw {reason}, no reboot")
            told.append(f"{member.name}: systemctl reboot: {reason}")
            member.stop()
        told += self._boot(network, members, "reboot")
        if self._request.engine is not None:
            told += self._wait_joined(network, members)
            told += self._complete(network, self._request.engine)
        return told

    def _power_off(self, member: Member) -> str:
        member.ssh.once("systemctl poweroff")
        reason = member.left(member.bench.limits.power_off * self._slower)
        if reason != _EXIT_REASON["poweroff"]:
            raise StepFailed(f"{member.name}: systemctl poweroff: QEMU saw {reason}, no power-off")
        return f"systemctl poweroff: {reason}"

    def other_disks_are_unchanged(self) -> None:
        """Looked at whenever the disks were made, also after a failure: data loss is its own finding."""
        if not all(member.before for member in self._members.values()):
            return
        with contextlib.suppress(StepFailed), self._step(UNTOUCHED) as evidence:
            changed = []
            for member in self._members.values():
                after = member.bench.digests(target=False)
                changed += [f"{member.name} {disk}" for disk in after if after[disk] != member.before[disk]]
                evidence.extend(f"{member.name} {disk}: {digest}" for disk, digest in after.items())
            if changed:
                raise StepFailed(f"changed: {', '.join(changed)}")

    def report(self) -> Report:
        request, bench = self._request, self._head.bench
        files = {
            f"{member.name}: {label}": f"{member.name}/{name}"
            for member in self._members.values()
            for label, name in member.bench.files().items()
        }
        lan = (
            {"the virtual LAN's messages": "qemu-lan.stderr"} if (request.out / "qemu-lan.stderr").exists() else {}
        )
        report = Report(
            title=f"cluster test of {len(self._members)} nodes",
            cluster=str(bench.manifest.get("cluster", "")),
            node="+".join(self._members),
            plan=self._plan,
            host={
                **bench.host_facts(),
                "cluster": f"{len(self._members)} nodes on one virtual LAN, 1 CPU each; {request.together} at a "
                "time installed",
            },
            steps=self._recorder.steps(),
            checks=tuple(self._checks),
            timings=tuple(self._timings),
            files={**files, **lan},
            last_screen=self._screens,
            warnings=bench.warnings,
        )
        for member in self._members.values():
            if report.passed and not member.bench.request.keep_disks:
                remove_disks(member.bench)
        report.write(request.out)
        return report
