"""The cluster test: every node from one medium, all on one virtual LAN, and a cluster that forms by itself.

Each node is installed on its own disk; all power on together; each says ``builder-ready`` and then
``builder-joined N/N``; one completion through the head that every node took part in; the overlays' checks on every
node; ports closed from outside the subnet; no way out. Then the faults: a firewall rule that is taken away by hand
is named; a node without power is named as missing and joins again when it has power; all reboot and join again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from builder.verify import clusterfaults, console, disks, verdicts
from builder.verify.checks import run_checks
from builder.verify.clock import Clock, RealClock
from builder.verify.clusterrequest import ClusterTest, static_addresses
from builder.verify.clustertimings import SHOW, Boot, cluster_timings, unit_times
from builder.verify.group import Group
from builder.verify.lab import lab, remove_disks
from builder.verify.lan import Network, connected
from builder.verify.member import Member
from builder.verify.perimeter import cannot_reach_out, ports_are_shut
from builder.verify.recorder import Recorder
from builder.verify.report import Report, Step, StepFailed, Timing
from builder.verify.timings import install_timings

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
FORGOTTEN = "a firewall rule taken away by hand is named"
MISSING = "a node without power is named as missing"
BACK = "it joins again without help"
REBOOT = "every node is back after a reboot of all"
OFF = "every node powers off"
UNTOUCHED = "other disks are unchanged"

_ENGINE_STEPS = (JOINED, COMPLETION, FORGOTTEN, MISSING, BACK)  # without an engine nothing watches who is there
_PEER_STEPS = (FORGOTTEN, MISSING, BACK)


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
        test = _Test(Group(request, members, clock or RealClock()), say)
        lan = test.group.lan()
        with contextlib.suppress(StepFailed):
            with test.power():
                test.make_disks()
                test.install()
                test.file_systems_are_clean()
            with connected(lan, request.out.absolute(), test.group.clock) as network, test.power():
                test.run(network)
        test.other_disks_are_unchanged()
        return test.report()


def _prefixed(say: Callable[[str], None], node: str) -> Callable[[str], None]:
    return lambda line: say(f"{node}: {line.strip()}")


class _Test:
    """The steps, and what they leave for the report."""

    def __init__(self, group: Group, say: Callable[[str], None]) -> None:
        self.group = group
        self._recorder = Recorder(self.steps(), group.clock, say)
        self._step = self._recorder.step
        self._checks: list[Step] = []
        self._timings: list[Timing] = []
        self._screens = ""

    def steps(self) -> tuple[str, ...]:
        every = (DISKS, INSTALL, CLEAN, READY, SSH, JOINED, HEALTHY, COMPLETION, CHECKS, FIREWALL, NO_WAY_OUT)
        faults = (FORGOTTEN, MISSING, BACK, REBOOT, OFF, UNTOUCHED)
        alone = len(self.group.members) == 1
        left_out = (() if self.group.request.engine else _ENGINE_STEPS) + (_PEER_STEPS if alone else ())
        return tuple(step for step in (*every, *faults) if step not in left_out)

    def _do(self, name: str, what: Callable[[], Iterable[str]]) -> None:
        """One step; the lines that ``what`` gives are its evidence, kept up to where it failed."""
        with self._step(name) as evidence:
            for line in what():
                evidence.append(line)

    def power(self) -> contextlib.AbstractContextManager[None]:
        return self.group.power(self._keep)

    def _keep(self, screen: str) -> None:
        self._screens += screen

    def make_disks(self) -> None:
        with self._step(DISKS) as evidence:
            for member in self.group.all:
                member.bench.make_disks()
                member.before = member.bench.digests(target=False)
                evidence.extend(f"{member.name} {disk}: {digest}" for disk, digest in member.before.items())

    def install(self) -> None:
        self._do(INSTALL, self._install_all)

    def _install_all(self) -> Iterator[str]:
        waiting, together = self.group.all, self.group.request.together
        while waiting:
            some, waiting = waiting[:together], waiting[together:]
            yield from self._install(some)

    def _install(self, members: Sequence[Member]) -> Iterator[str]:
        bench, group = members[0].bench, self.group
        try:
            seen = group.power_on(
                members,
                Member.start_install,
                verdicts.INSTALL_LINES,
                stall=bench.stall * len(members),
                limit=bench.limits.install * len(members),
                may_leave=True,
            )
            for member in members:
                serial = member.machine.serial
                with verdicts.of(member.name):
                    said = verdicts.installed(seen[member.name], serial, member.name, group.plan)
                yield self._named(member, said)
                after = str(member.bench.manifest.get("after", "reboot"))
                reason = member.left(member.bench.limits.leave)
                with verdicts.of(member.name):
                    yield verdicts.left(reason, after, serial, why="after the install QEMU exited by itself")
        finally:
            for member in members:
                if member.vm is None:
                    continue
                times = install_timings(member.vm.began, member.vm.serial.lines, group.clock.now())
                self._timings += [Timing(f"{member.name} {one.phase}", one.seconds) for one in times]
        for member in members:
            member.stop()

    def file_systems_are_clean(self) -> None:
        with self._step(CLEAN) as evidence:
            for member in self.group.all:
                with verdicts.of(member.name):
                    evidence.append(f"{member.name}: {disks.check_clean(member.bench.target_path)}")

    def run(self, network: Network) -> None:
        """All that needs the nodes to be up."""
        group, engine = self.group, self.group.request.engine
        self._do(READY, lambda: group.boot(network, group.all, "boot"))
        self._do(SSH, lambda: map(self._greet, group.all))
        if engine is not None:
            self._do(JOINED, lambda: group.wait_joined(network, group.all))
        self._keep_timings()
        self._do(HEALTHY, lambda: map(group.wait_healthy, group.all))
        if engine is not None:
            self._do(COMPLETION, lambda: group.complete(network, engine))
        self._do(CHECKS, self._run_checks)
        self._do(FIREWALL, lambda: (self._named(m, ports_are_shut(network, m, group)) for m in group.all))
        self._do(NO_WAY_OUT, lambda: (self._named(m, cannot_reach_out(network, m)) for m in group.all))
        if engine is not None and len(group.members) > 1:
            self._do(FORGOTTEN, lambda: clusterfaults.forget_a_rule(group, network, engine))
            self._do(MISSING, lambda: clusterfaults.cut_the_power(group, network))
            self._do(BACK, lambda: clusterfaults.give_power_again(group, network, engine))
        self._do(REBOOT, lambda: clusterfaults.reboot_all(group, network))
        self._do(OFF, self._power_off)

    def _greet(self, member: Member) -> str:
        return self._named(member, member.ssh.greet(member.bench.limits.ssh * self.group.slower))

    def _named(self, member: Member, told: str) -> str:
        return f"{member.name}: {told}"

    def _keep_timings(self) -> None:
        boots = []
        for member in self.group.all:
            vm = member.machine
            shown = member.ssh.run(SHOW, member.bench.limits.ssh).stdout
            ready = next(line.at for line in vm.serial.lines if console.READY.search(line.text))
            at = next((line.at for line in vm.serial.lines if self.group.joined.search(line.text)), None)
            boots.append(Boot(member.name, vm.began, tuple(vm.serial.lines), ready, at, unit_times(shown)))
        self._timings += cluster_timings(boots)

    def _run_checks(self) -> Sequence[str]:
        bad, told = [], []
        for member in self.group.all:
            request, bench = member.bench.request, member.bench
            own = {"name": member.name, "address": str(member.address), "plan": self.group.plan}
            facts = {"user": None, "models": [], "openings": [], **request.facts, **own}
            limit = bench.limits.checks * self.group.slower
            found = run_checks(request.checks, member.ssh.config, facts, member.out.absolute(), limit)
            self._checks += [replace(step, name=f"{member.name} {step.name}") for step in found]
            count = {name: sum(step.outcome == name for step in found) for name in ("passed", "failed")}
            bad += [f"{member.name} {step.name}" for step in found if step.outcome == "failed"]
            bad += [f"{member.name}: none could run"] if not count["passed"] else []
            told.append(f"{member.name}: {count['passed']} of {len(found)} passed")
        if bad:
            raise StepFailed(f"failed: {', '.join(bad)}", "\n".join(told))
        return told

    def _power_off(self) -> Iterator[str]:
        for member in self.group.all:
            member.ssh.once("systemctl poweroff")
        for member in self.group.all:
            yield self.group.left_by(member, "poweroff")

    def other_disks_are_unchanged(self) -> None:
        """Looked at whenever the disks were made, also after a failure: data loss is its own finding."""
        if not all(member.before for member in self.group.all):
            return
        with contextlib.suppress(StepFailed), self._step(UNTOUCHED) as evidence:
            changed = []
            for member in self.group.all:
                after = member.bench.digests(target=False)
                changed += [f"{member.name} {disk}" for disk in after if after[disk] != member.before[disk]]
                evidence.extend(f"{member.name} {disk}: {digest}" for disk, digest in after.items())
            if changed:
                raise StepFailed(f"changed: {', '.join(changed)}")

    def report(self) -> Report:
        request, bench = self.group.request, self.group.head.bench
        files = {
            f"{member.name}: {label}": f"{member.name}/{name}"
            for member in self.group.all
            for label, name in member.bench.files().items()
        }
        lan = (
            {"the virtual LAN's messages": "qemu-lan.stderr"} if (request.out / "qemu-lan.stderr").exists() else {}
        )
        report = Report(
            title=f"cluster test of {len(self.group.members)} nodes",
            cluster=str(bench.manifest.get("cluster", "")),
            node="+".join(self.group.members),
            plan=self.group.plan,
            host={
                **bench.host_facts(),
                "cluster": f"{len(self.group.members)} nodes on one virtual LAN, 1 CPU each; installed "
                f"{request.together} at a time",
            },
            steps=self._recorder.steps(),
            checks=tuple(self._checks),
            timings=tuple(self._timings),
            files={**files, **lan},
            last_screen=self._screens,
            warnings=bench.warnings,
        )
        for member in self.group.all:
            if report.passed and not member.bench.request.keep_disks:
                remove_disks(member.bench)
        report.write(request.out)
        return report
