"""One running virtual machine: its process, its serial log and its monitor.

It is ended through its monitor or its own process, never by name.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from builder.run import start
from builder.verify.clock import Clock
from builder.verify.machine import Machine, qemu_argv
from builder.verify.network import forwarded
from builder.verify.qmp import Qmp, QmpError
from builder.verify.report import StepFailed
from builder.verify.serial import SerialLog

STOP_WAIT = 10.0  # seconds for QEMU to leave after "quit"
CONNECT_WAIT = 30.0  # seconds for QEMU to open its monitor; it does so before the guest runs
STDERR_LINES = 12
# Linux tries its timer for 40 ms before anything else. On a host that is too busy to give an emulated machine
# its share of these, it gives up; nothing of ours has run then, so the machine is reset, this many times.
STARVED = re.compile(r"Kernel panic - not syncing: IO-APIC \+ timer doesn't work")
RESETS = 3


class VM:
    """What a recipe does with a running machine."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        machine: Machine,
        stderr: Path,
        screenshot: Path | None,
        clock: Clock,
        on_line: Callable[[str], None],
    ) -> None:
        self.began = clock.now()
        self.serial = SerialLog(machine.serial.path, clock, self.ended, self._heard)
        self.qmp: Qmp | None = None
        self._process = process
        self._machine = machine
        self._stderr = stderr
        self._screenshot = screenshot
        self._clock = clock
        self._on_line = on_line
        self._resets = RESETS  # that are left
        self._reset = False

    def _heard(self, line: str) -> None:
        self._on_line(line)
        if self.qmp is None:
            return
        with contextlib.suppress(QmpError):
            if self._reset:  # the first line since
                self._reset = False
                self.qmp.no_reboot()
            if self._resets and STARVED.search(line):
                self._on_line("builder: this host was too busy for the kernel's timer test; once more")
                self._resets -= 1
                self._reset = True
                self.qmp.reset()

    def ended(self) -> str | None:
        """None while QEMU runs; then its exit status and what it said on stderr."""
        status = self._process.poll()
        if status is None:
            return None
        said = self.said()
        return f"QEMU exited {status}" + (f" ({said})" if said else "")

    def said(self) -> str:
        """The end of QEMU's stderr, on one line."""
        with contextlib.suppress(FileNotFoundError):
            lines = self._stderr.read_text(errors="replace").strip().splitlines()
            return "; ".join(lines[-STDERR_LINES:])
        return ""

    def connect(self) -> None:
        """Open the monitor. Raises StepFailed if QEMU exits or never opens it."""
        deadline = self._clock.now() + CONNECT_WAIT
        while self.qmp is None:
            try:
                self.qmp = Qmp(self._machine.qmp)
            except (OSError, QmpError) as error:
                ended = self.ended()
                if ended is not None:
                    return  # a guest may be done this soon; whoever waits for its output finds out
                if self._clock.now() > deadline:
                    raise StepFailed(f"QEMU did not open its monitor: {error}") from error
                self._clock.sleep(0.05)

    def port(self, inside: int) -> int:
        """The host's TCP port for the node's port ``inside``. Raises StepFailed if it is not forwarded."""
        ended = self.ended()
        if ended is not None:
            raise StepFailed(ended)
        with contextlib.suppress(QmpError):
            ports = forwarded(self.qmp.usernet()) if self.qmp is not None else {}
            if inside in ports:
                return ports[inside]
        raise StepFailed(f"QEMU forwards no port to the node's port {inside}", self.said())

    def wait_exit(self, limit: float) -> str | None:
        """Wait until QEMU exits by itself: the reason of its SHUTDOWN event (guest-reset, guest-shutdown).

        Raises StepFailed if it still runs after ``limit`` seconds or exits with an error.
        """
        deadline = self._clock.now() + limit
        while self._process.poll() is None:
            self.serial.read()
            if self._clock.now() > deadline:
                raise StepFailed(f"QEMU still runs {limit:.0f} s later", self.serial.screen())
            self._clock.sleep(0.1)
        self.serial.read()
        if self._process.returncode != 0:
            raise StepFailed(self.ended() or "", self.serial.screen())
        return self.qmp.shutdown_reason() if self.qmp is not None else None

    def power_off(self) -> None:
        """Press the power button, if QEMU still runs."""
        with contextlib.suppress(QmpError):
            if self.qmp is not None and self.ended() is None:
                self.qmp.powerdown()

    def stop(self) -> None:
        """End QEMU now, by its monitor or else by its process."""
        if self._process.poll() is None and self.qmp is not None:
            with contextlib.suppress(QmpError):
                self.qmp.quit()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(STOP_WAIT)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self.qmp is not None:
            self.qmp.close()
        self.serial.read()

    def state_of_failure(self, failed: StepFailed) -> StepFailed:
        """The same failure with the screen and the run state added, as far as QEMU still gives them."""
        if self.qmp is None or self.ended() is not None:
            return failed
        reason = failed.reason
        with contextlib.suppress(QmpError):
            status = self.qmp.status()
            if status == "io-error":
                reason += "; QEMU paused the machine at a write error: is this host's disk full?"
            elif status != "running":
                reason += f"; the virtual machine is {status}"
            if self._screenshot is not None:
                self.qmp.screendump(self._screenshot)
        return StepFailed(reason, failed.evidence)


@contextlib.contextmanager
def running(
    machine: Machine,
    folder: Path,
    label: str,
    *,
    clock: Clock,
    on_line: Callable[[str], None] = lambda line: None,
    screenshots: bool = True,
) -> Iterator[VM]:
    """Start ``machine``; on leaving it is stopped, whatever happened.

    Files in ``folder``: qemu-LABEL.stderr, and screen-LABEL.png if the block failed with StepFailed.
    Raises BuilderError if QEMU is missing.
    """
    argv = qemu_argv(machine)
    stderr = folder / f"qemu-{label}.stderr"
    machine.serial.path.unlink(missing_ok=True)
    screenshot = folder / f"screen-{label}.png" if screenshots else None
    with (
        stderr.open("wb") as errors,
        start(argv, step=f"starting the virtual machine {machine.name}", stderr=errors.fileno()) as process,
    ):
        vm = VM(process, machine, stderr, screenshot, clock, on_line)
        try:
            vm.connect()
            yield vm
        except StepFailed as failed:
            raise vm.state_of_failure(failed) from failed
        finally:
            vm.stop()
