"""One node of a cluster test: its bench, and its machine while that has power."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from builder.verify import console
from builder.verify.lab import Lab
from builder.verify.lan import Network
from builder.verify.machine import Machine
from builder.verify.report import StepFailed
from builder.verify.ssh import Key, Ssh, config_text, make_key
from builder.verify.vm import VM, running


class Member:
    """See the module. ``power`` is closed by whoever made it."""

    def __init__(self, bench: Lab, address: IPv4Address, power: contextlib.ExitStack) -> None:
        self.bench = bench
        self.address = address
        self.name = bench.request.node
        self.vm: VM | None = None
        self.before: dict[str, str] = {}
        self.key: Key | None = None
        self._ssh: Ssh | None = None
        self._power = power

    @property
    def out(self) -> Path:
        return self.bench.out

    @property
    def machine(self) -> VM:
        if self.vm is None:
            raise StepFailed(f"{self.name} has no power")
        return self.vm

    @property
    def ssh(self) -> Ssh:
        if self._ssh is None:
            raise StepFailed(f"{self.name} was not booted")
        return self._ssh

    def ended(self) -> str | None:
        return f"{self.name} has no power" if self.vm is None else self.vm.ended()

    def start_install(self) -> VM:
        return self._start(self.bench.install_machine(), "install")

    def start(self, network: Network, phase: str) -> VM:
        """Power on, cabled into the LAN."""
        self.key = self.key or make_key(self.bench.scratch)
        if self._ssh is None:
            config = self.bench.scratch / "ssh_config"
            patience = max(1, min(30, int(self.bench.limits.ssh)))
            port = network.port(self.address, 22)
            config.write_text(config_text(port, self.key.private, self.bench.scratch, patience))
            self._ssh = Ssh(config, self.bench.clock, lambda: self.ended() or network.ended())
        cable = network.lan.cable(self.name)
        return self._start(replace(self.bench.boot_machine((self.key.credential,), phase, cable), cpus=1), phase)

    def _start(self, machine: Machine, phase: str) -> VM:
        context = running(machine, self.out, phase, clock=self.bench.clock, on_line=self._progress)
        self.vm = self._power.enter_context(context)
        return self.vm

    def stop(self) -> None:
        """Take its power away; it gets no word of it. After its QEMU has exited by itself: tidy up."""
        if self._ssh is not None:
            self._ssh.close()
        self._power.close()
        self.vm = None

    def show_failure(self, failed: StepFailed) -> None:
        """Keep what there is to see of a machine that still runs: its screen as PNG, its journal."""
        if self.vm is None:
            return
        if self._ssh is not None and self.vm.ended() is None:
            done = self._ssh.once("systemctl --failed --no-pager; journalctl -b --no-pager -n 3000")
            if done.returncode == 0:
                (self.out / "journal.log").write_text(done.stdout)
        with contextlib.suppress(StepFailed), self._power.pop_all():
            raise failed  # running() takes the screenshot and stops the machine
        self.vm = None

    def _progress(self, line: str) -> None:
        if console.worth_saying(line):
            self.bench.say(line)

    def left(self, limit: float) -> str | None:
        """How its QEMU left by itself. Raises StepFailed with the node's name if it did not."""
        try:
            return self.machine.wait_exit(limit)
        except StepFailed as failed:
            raise StepFailed(f"{self.name}: {failed.reason}", failed.evidence) from failed
