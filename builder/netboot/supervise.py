"""Keeps servers running: starts them, says what they say when they end, starts them again, and stops them.

A server may have processes of its own, as nginx has. It gets a session, so that all of them end when the first
does: a worker that is left over would keep the port. And it ends when we do, however that came (setpriv(1)).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from builder.errors import BuilderError
from builder.run import failure, start

QUICK = 10.0  # seconds; a server that ends sooner did not start
QUICK_ENDS = 3  # of these in a row, and it is given up
PAUSE = 1.0
_LINES = 15


@dataclass
class Server:
    """One server that stays in the foreground."""

    name: str
    argv: Sequence[str | Path]
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES))


class Watch:
    """Watches over several servers in threads. ``say`` gets what happens, ``log`` every line that they say."""

    def __init__(self, say: Callable[[str], None], log: Callable[[str], None]) -> None:
        self.broken: BuilderError | None = None
        self.over = threading.Event()
        self._say = say
        self._log = log
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def pid(self, name: str) -> int | None:
        """Of a server, while it runs."""
        with self._lock:
            process = self._running.get(name)
            return process.pid if process else None

    def keep(self, server: Server) -> None:
        """Run a server until :meth:`stop`. If it ends at once again and again, ``broken`` says why."""
        quick = 0
        while not self.over.is_set():
            began = time.monotonic()
            try:
                status = self._once(server)
            except BuilderError as error:
                self._give_up(error)
                return
            if self.over.is_set():
                return
            quick = quick + 1 if time.monotonic() - began < QUICK else 0
            if quick >= QUICK_ENDS:
                said = "\n".join(server.said)
                self._give_up(failure(server.argv, f"running {server.name}", status, said, ""))
                return
            self._say(f"{server.name} ended with {status}; starting it again")
            self.over.wait(PAUSE)

    def stop(self) -> None:
        """End all, and let none start again."""
        self.over.set()
        with self._lock:
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()

    def _once(self, server: Server) -> int:
        argv = ["setsid", "setpriv", "--pdeathsig", "TERM", *server.argv]
        step = f"starting {server.name}"
        with start(argv, step=step, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            with self._lock:
                self._running[server.name] = process
                if self.over.is_set():
                    process.terminate()
            assert process.stdout is not None
            reader = threading.Thread(target=self._read, args=(server, process.stdout))
            reader.start()
            process.wait()
            with self._lock:
                del self._running[server.name]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            reader.join()
        return process.returncode

    def _read(self, server: Server, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode(errors="replace").rstrip("\n")
            server.said.append(line)
            self._log(f"{server.name}: {line}")

    def _give_up(self, error: BuilderError) -> None:
        self.broken = error
        self.over.set()


@contextlib.contextmanager
def running(servers: Sequence[Server], say: Callable[[str], None], log: Callable[[str], None]) -> Iterator[Watch]:
    """Run all of them until the block ends."""
    watch = Watch(say, log)
    threads = [threading.Thread(target=watch.keep, args=(server,), name=server.name) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield watch
    finally:
        watch.stop()
        for thread in threads:
            thread.join()
