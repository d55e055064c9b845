"""A minimal client of the QEMU Machine Protocol: JSON, one object a line, over a Unix socket.

Reference: QEMU's docs/interop/qmp-spec.rst and "QEMU QMP Reference Manual". One command at a time.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

TIMEOUT = 20.0  # seconds that a reply may take; a screendump under TCG takes well below one


class QmpError(Exception):
    """QEMU refused a command, closed the connection or did not answer."""


class Qmp:
    """A connection whose greeting was read and whose capabilities are agreed; ``events`` collects."""

    def __init__(self, path: Path) -> None:
        """Raises OSError (nobody listens yet) or QmpError."""
        self.events: list[dict[str, Any]] = []
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(str(path))
            if "QMP" not in self._receive():
                raise QmpError("the socket does not speak QMP")
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        """Run a command and return its value. Raises QmpError."""
        request = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while True:
                message = self._receive()
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    raise QmpError(f"{command}: {message['error'].get('desc', message['error'])}")
        except OSError as error:
            raise QmpError(f"{command}: {error}") from error

    def screendump(self, path: Path) -> None:
        """Write the guest's screen to ``path`` as PNG. Raises QmpError."""
        self.execute("screendump", filename=str(path), format="png")

    def status(self) -> str:
        """The run state: running, paused, io-error, … Raises QmpError."""
        return str(self.execute("query-status")["status"])

    def reset(self) -> None:
        """Press the reset button, also of a machine that may not reboot; :meth:`no_reboot` has to follow.

        QEMU looks at what a reboot means once more when it carries the reset out. Raises QmpError.
        """
        self.execute("set-action", reboot="reset")
        self.execute("system_reset")

    def no_reboot(self) -> None:
        """Leave when the guest reboots, as with ``-no-reboot``. Raises QmpError."""
        self.execute("set-action", reboot="shutdown")

    def powerdown(self) -> None:
        """Press the ACPI power button. Raises QmpError."""
        self.execute("system_powerdown")

    def quit(self) -> None:
        """Make QEMU exit at once. Raises QmpError if it does not take the command."""
        self.execute("quit")

    def usernet(self) -> str:
        """The monitor's ``info usernet``: the forwarded ports and connections. Raises QmpError."""
        return str(self.execute("human-monitor-command", command_line="info usernet"))

    def shutdown_reason(self) -> str | None:
        """For a QEMU that has exited: why, as its SHUTDOWN event says (guest-reset, guest-shutdown, …)."""
        try:
            while True:
                self._receive()
        except (OSError, QmpError):
            pass
        reasons = [event["data"].get("reason") for event in self.events if event["event"] == "SHUTDOWN"]
        return reasons[-1] if reasons else None

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> dict[str, Any]:
        """The next message that is not an event. Raises OSError and QmpError."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                data = self._socket.recv(65536)
                if not data:
                    raise QmpError("QEMU closed the connection")
                self._buffer += data
                continue
            self._buffer = rest
            message: dict[str, Any] = json.loads(line)
            if "event" not in message:
                return message
            self.events.append(message)
