"""Tells the server how far the install is, and asks it whether this order to install still holds.

What the console shows goes to the server as well: the phase, the bytes, the last line. A thread sends it, so that
a slow server slows no install, and goes on every few seconds when nothing changes: then the server knows a machine
that works in silence from one that is gone. Two questions wait for their answer: may the first write be made, and
is it known that the install is complete.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from urllib.parse import urlsplit

from . import commands
from .listener import Nobody
from .model import InstallError
from .web import back_off

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

EVERY = 3.0  # seconds between two reports
TIMEOUT = 10.0
PATIENCE = 600.0  # seconds that a question gets until it is answered
GOODBYE = 90.0  # seconds for the last report, after which the node starts all the same: its disk holds the proof
LINE = 300  # characters


class Beacon(Nobody):
    """``order`` is the server's order to install, which the boot loader handed over."""

    def __init__(
        self,
        server: str,
        order: str,
        log: commands.Log = commands.quiet,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        url = urlsplit(server)
        if url.scheme != "http" or not url.hostname:
            raise InstallError(f"builder.server={server}: only http:// addresses are understood")
        self.order = order
        self._host, self._port = url.hostname, url.port or 80
        self._log = log
        self._sleep = sleep
        self._news: dict[str, Any] = {"phase": "start", "line": ""}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="beacon", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more by itself; what is under way is waited for."""
        self._over.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(TIMEOUT + 5)

    def phase(self, phase: str, line: str) -> None:
        with self._lock:
            if phase != self._news["phase"]:
                self._news = {"phase": phase}
            self._news["line"] = line[:LINE]
        self._changed.set()

    def progress(self, phase: str, done: int, total: int) -> None:
        with self._lock:
            if phase != self._news["phase"]:
                self._news = {"phase": phase, "line": ""}
            self._news.update(done=done, total=total)

    def ask_to_write(self, node: str, disk: str) -> None:
        """Raises InstallError unless the server says that this order to install still holds."""
        answer = self._ask({"phase": "ask", "node": node, "line": f"about to write {disk}"}, PATIENCE)
        if answer is None:
            raise InstallError("the server that ordered this install does not answer, so nothing is written")
        if answer.get("go") is not True:
            raise InstallError(
                f"the server takes back its order to install: {answer.get('why', 'no reason given')}"
            )

    def hand_over(self, phase: str, line: str) -> None:
        self.stop()
        self._ask({"phase": phase, "line": line[:LINE]}, 3 * TIMEOUT)

    def installed(self, node: str, line: str) -> bool:
        """Whether the server knows by now that the install is complete."""
        self.stop()
        return self._ask({"phase": "installed", "node": node, "line": line[:LINE]}, GOODBYE) is not None

    def failed(self, phase: str, reason: str, touched: str) -> None:
        self.stop()
        news = {"phase": "failed", "failed": phase, "line": reason[:LINE], "touched": touched}
        self._ask(news, 3 * TIMEOUT)

    def _ask(self, news: dict[str, Any], patience: float) -> dict[str, Any] | None:
        """The server's answer; None if there is none in ``patience`` seconds."""
        tries, waited = 0, 0.0
        while True:
            try:
                return self._post(news)
            except (OSError, http.client.HTTPException, ValueError) as error:
                tries += 1
                pause = back_off(tries)
                waited += pause + 1
                self._log(f"reporting {news['phase']}: {error}")
                if waited > patience:
                    return None
                self._sleep(pause)

    def _run(self) -> None:
        while not self._over.is_set():
            self._changed.clear()
            with self._lock:
                news = dict(self._news)
            try:
                self._post(news)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._log(f"reporting {news['phase']}: {error}")
            began = time.monotonic()
            self._changed.wait(EVERY)  # at once when a phase begins, but never more than one a second
            self._over.wait(max(0.0, 1 - (time.monotonic() - began)))

    def _post(self, news: dict[str, Any]) -> dict[str, Any]:
        """Raises OSError, HTTPException or ValueError if there is no answer that can be understood."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
        try:
            body = json.dumps({**news, "order": self.order}).encode()
            connection.request("POST", "/v1/report", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            data = reply.read(1 << 16)
            if reply.status >= 500:
                raise OSError(f"the server answered {reply.status}")
            answer = json.loads(data)
            if not isinstance(answer, dict):
                raise ValueError("the server's answer is not understood")
            return answer
        finally:
            connection.close()
