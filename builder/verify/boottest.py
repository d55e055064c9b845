"""The boot test: install a node from its medium in a virtual machine, boot the node, check it.

Power-on with the medium; the installer says ``builder-installed``; QEMU exits by itself, since a machine that
is killed at that line has not yet written its disk; the file systems are clean; power-on without the medium;
the node says ``builder-ready`` with the plan's id; cloud-init is done; the overlays' checks pass over ssh;
the node powers off; the other disks hold what they held.
"""

from __future__ import annotations

from collections.abc import Callable

from builder.verify import console, disks, verdicts
from builder.verify.checks import run_checks
from builder.verify.clock import Clock
from builder.verify.lab import Lab, lab, remove_disks
from builder.verify.recorder import Recorder
from builder.verify.report import Report, Step, StepFailed, Timing
from builder.verify.request import BootTest
from builder.verify.ssh import Key, Ssh, config_text, make_key
from builder.verify.timings import boot_timings, install_timings
from builder.verify.vm import VM, running

DISKS = "disks are made"
INSTALL = "the medium installs the node"
LEAVES = "the installer leaves by itself"
CLEAN = "file systems are clean"
BOOT = "the node boots from its disk and is ready"
SSH = "ssh with the throw-away key"
CLOUD_INIT = "cloud-init is done"
CHECKS = "checks on the node"
OFF = "the node powers off"
UNTOUCHED = "other disks are unchanged"
REFUSES = "the installer refuses"
NOTHING_WRITTEN = "no disk was written"


def _silent(line: str) -> None:
    """Says nothing."""


def boot_test(request: BootTest, say: Callable[[str], None] = _silent, clock: Clock | None = None) -> Report:
    """Install and boot one node. ``say`` gets progress, a line at a time. The report is written to ``out``.

    Raises BuilderError if the test cannot be made at all (no QEMU, no such node, no firmware).
    """
    steps = (DISKS, INSTALL, LEAVES, CLEAN, BOOT, SSH, CLOUD_INIT, CHECKS, OFF, UNTOUCHED)
    with lab(request, say, clock) as bench:
        test = _Test(bench, Recorder(steps, bench.clock, say))
        try:
            test.make_disks()
            test.install()
            test.file_systems_are_clean()
            test.first_boot()
        except StepFailed:
            test.find_install_log()
        test.other_disks_are_unchanged(UNTOUCHED, target=False)
        return test.report(f"boot test of {request.node}")


def expect_failure(
    request: BootTest,
    phase: str,
    text: str,
    say: Callable[[str], None] = _silent,
    clock: Clock | None = None,
) -> Report:
    """Boot the medium where it has to refuse: ``builder-failed PHASE: …text…`` and no disk written.

    Raises BuilderError as :func:`boot_test`.
    """
    with lab(request, say, clock) as bench:
        test = _Test(bench, Recorder((DISKS, REFUSES, NOTHING_WRITTEN), bench.clock, say))
        try:
            test.make_disks()
            test.refuses(phase, text)
        except StepFailed:
            test.find_install_log()
        test.other_disks_are_unchanged(NOTHING_WRITTEN, target=True)
        return test.report(f"refusal test of {request.node}")


class _Test:
    """The steps, and what they leave for the report."""

    def __init__(self, bench: Lab, recorder: Recorder) -> None:
        self._lab = bench
        self._step = recorder.step
        self._steps = recorder.steps
        self._before: dict[str, str] = {}
        self._checks: tuple[Step, ...] = ()
        self._timings: tuple[Timing, ...] = ()
        self._screen = ""
        self._install_log = ""

    @property
    def _plan(self) -> str:
        return str(self._lab.manifest["plan"])

    def make_disks(self) -> None:
        with self._step(DISKS) as evidence:
            self._lab.make_disks()
            self._before = self._lab.digests(target=True)
            evidence.extend(f"{name}: {digest}" for name, digest in self._before.items())

    def install(self) -> None:
        bench = self._lab
        machine = bench.install_machine()
        with running(machine, bench.out, "install", clock=bench.clock, on_line=self._progress) as vm:
            try:
                with self._step(INSTALL) as evidence:
                    evidence.append(self._wait_installed(vm))
                with self._step(LEAVES) as evidence:
                    evidence.append(self._left(vm))
            finally:
                self._screen = vm.serial.screen()
                self._timings += install_timings(vm.began, vm.serial.lines, bench.clock.now())

    def _wait_installed(self, vm: VM) -> str:
        bench = self._lab
        seen = vm.serial.wait_for(verdicts.INSTALL_LINES, stall=bench.stall, limit=bench.limits.install)
        return verdicts.installed(seen, vm.serial, bench.request.node, self._plan)

    def _left(self, vm: VM) -> str:
        after = str(self._lab.manifest.get("after", "reboot"))
        reason = vm.wait_exit(self._lab.limits.leave)
        return verdicts.left(reason, after, vm.serial, why="after the install QEMU exited by itself")

    def file_systems_are_clean(self) -> None:
        with self._step(CLEAN) as evidence:
            evidence.append(disks.check_clean(self._lab.target_path))

    def first_boot(self) -> None:
        bench = self._lab
        key = make_key(bench.scratch)
        machine = bench.boot_machine((key.credential,))
        with running(machine, bench.out, "boot", clock=bench.clock, on_line=self._progress) as vm:
            ssh = self._ssh(vm, key)
            try:
                with self._step(BOOT) as evidence:
                    evidence.append(self._wait_ready(vm))
                with self._step(SSH) as evidence:
                    evidence.append(ssh.greet(bench.limits.ssh))
                    firmware = ssh.firmware(bench.limits.ssh)
                    if firmware != bench.boot_firmware:
                        raise StepFailed(f"it was started by {firmware}, not by {bench.boot_firmware}")
                with self._step(CLOUD_INIT) as evidence:
                    evidence.append(ssh.wait_cloud_init(bench.limits.cloud_init))
                with self._step(CHECKS) as evidence:
                    evidence.append(self._run_checks(ssh))
                with self._step(OFF) as evidence:
                    evidence.append(self._power_off(vm, ssh))
            except StepFailed:
                self._fetch_journal(vm, ssh)
                raise
            finally:
                ssh.close()
                self._screen = vm.serial.screen()
                self._timings += boot_timings(vm.began, vm.serial.lines, bench.clock.now())

    def _ssh(self, vm: VM, key: Key) -> Ssh:
        config = self._lab.scratch / "ssh_config"
        patience = max(1, min(30, int(self._lab.limits.ssh)))
        config.write_text(config_text(vm.port(22), key.private, self._lab.scratch, patience))
        return Ssh(config, self._lab.clock, vm.ended)

    def _wait_ready(self, vm: VM) -> str:
        seen = vm.serial.wait_for(verdicts.READY_LINES, stall=self._lab.stall, limit=self._lab.limits.boot)
        return verdicts.ready(seen, vm.serial, self._plan)

    def _run_checks(self, ssh: Ssh) -> str:
        bench, request = self._lab, self._lab.request
        own = {"name": request.node, "address": str(bench.network.node), "plan": self._plan}
        facts = {"user": None, "models": [], "openings": [], **request.facts, **own}
        out = bench.out.absolute()
        self._checks = run_checks(request.checks, ssh.config, facts, out, bench.limits.checks)
        count = {name: sum(check.outcome == name for check in self._checks) for name in ("passed", "failed")}
        if count["failed"] or not count["passed"]:
            bad = ", ".join(check.name for check in self._checks if check.outcome == "failed")
            raise StepFailed(
                f"{count['failed']} of {len(self._checks)} failed: {bad}" if bad else "none could run"
            )
        return f"{count['passed']} of {len(self._checks)} passed"

    def _power_off(self, vm: VM, ssh: Ssh) -> str:
        ssh.once("systemctl poweroff")  # its status says nothing: the connection goes down with the node
        how = "systemctl poweroff"
        try:
            reason = vm.wait_exit(self._lab.limits.power_off)
        except StepFailed:
            if vm.ended() is not None:
                raise
            how = "the ACPI power button, as systemctl poweroff did nothing"
            vm.power_off()
            reason = vm.wait_exit(self._lab.limits.power_off)
        return verdicts.left(reason, "poweroff", vm.serial, why=how)

    def refuses(self, phase: str, text: str) -> None:
        bench = self._lab
        machine = bench.install_machine()
        with running(machine, bench.out, "install", clock=bench.clock, on_line=self._progress) as vm:
            try:
                with self._step(REFUSES) as evidence:
                    lines = verdicts.INSTALL_LINES
                    seen = vm.serial.wait_for(lines, stall=bench.stall, limit=bench.limits.install)
                    evidence.append(verdicts.refusal(vm.serial))
                    if seen.name == "builder-installed":
                        raise StepFailed("it installed, where it had to refuse")
                    if seen.match.group(1) != phase or text not in seen.match.group(2):
                        raise StepFailed(
                            f"it said: {seen.match.group(0)}; wanted: builder-failed {phase}: …{text}…"
                        )
            finally:
                self._screen = vm.serial.screen()
                self._timings += install_timings(vm.began, vm.serial.lines, bench.clock.now())

    def other_disks_are_unchanged(self, name: str, *, target: bool) -> None:
        """Looked at whenever the disks were made, also after a failure: data loss is its own finding."""
        if not self._before:
            return
        try:
            with self._step(name) as evidence:
                after = self._lab.digests(target=target)
                changed = [disk for disk, digest in after.items() if self._before[disk] != digest]
                if changed:
                    raise StepFailed(f"changed: {', '.join(changed)}")
                evidence.extend(f"{disk}: {digest}" for disk, digest in after.items())
        except StepFailed:
            return  # recorded

    def find_install_log(self) -> None:
        """Take the install log off the disk if it is there by now, else say where the phases are."""
        bench = self._lab
        inside = bench.request.install_log
        if bench.target_path.exists() and disks.read_file(bench.target_path, inside, bench.out / "install.log"):
            self._install_log = f"{bench.out / 'install.log'} (from {inside} on the node's disk)"
        else:
            self._install_log = (
                f"{inside} is not on the disk yet; {bench.out / 'serial-install.log'} holds the phases"
            )

    def report(self, title: str) -> Report:
        bench = self._lab
        report = Report(
            title=title,
            cluster=str(bench.manifest.get("cluster", "")),
            node=bench.request.node,
            plan=self._plan,
            host=bench.host_facts(),
            steps=self._steps(),
            checks=self._checks,
            timings=self._timings,
            files=bench.files(),
            last_screen=self._screen,
            install_log=self._install_log,
            warnings=bench.warnings,
        )
        if report.passed and not bench.request.keep_disks:
            remove_disks(bench)
        report.write(bench.out)
        return report

    def _progress(self, line: str) -> None:
        if console.worth_saying(line):
            self._lab.say(f"  {line.strip()}")

    def _fetch_journal(self, vm: VM, ssh: Ssh) -> None:
        """What a failed node's journal says, if it still answers; a help, never part of the outcome."""
        if vm.ended() is None:
            done = ssh.once("systemctl --failed --no-pager; journalctl -b --no-pager -n 3000")
            if done.returncode == 0:
                (self._lab.out / "journal.log").write_text(done.stdout)
