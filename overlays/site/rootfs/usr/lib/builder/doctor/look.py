"""What an engine's probe may look at: this node's sockets, and the other nodes' answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from . import net, node


class Look:
    """One look around; answers are kept, so make a new one for the next look. Effects only in its methods."""

    def __init__(self, cluster: dict, me: str, root: Path = Path("/"), timeout: float = 3.0) -> None:
        self.cluster = cluster
        self.me = me
        self.timeout = timeout
        self.table = net.table(root)
        self.why: dict[str, str] = {}
        self.ahead: dict[str, float] = {}
        self._answers: dict[str, dict | None] = {}

    def address(self, name: str) -> str:
        return node.address(self.cluster, name)

    def ask(self, name: str) -> dict | None:
        """What another node's builder-join says; None if it does not answer, and ``why`` then says why."""
        if name not in self._answers:
            self._answers[name] = self._ask(name)
        return self._answers[name]

    def ask_all(self, names: Iterable[str]) -> None:
        """Ask many at once, so that dead ones cost one time-out together."""
        threads = [threading.Thread(target=self.ask, args=(name,), daemon=True) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def get(self, name: str, port: int, path: str, timeout: float | None = None) -> net.Reply:
        """An HTTP GET at a node. Raises OSError."""
        address = "127.0.0.1" if name == self.me else self.address(name)
        return net.http(address, port, path, timeout=timeout or self.timeout)

    def listening(self, port: int) -> bool:
        """Whether something on this node listens on ``port``."""
        return port in self.table.listening

    def connected(self, name: str, port: int) -> bool:
        """Whether this node has a connection to another node's ``port``, of which that node knows too.

        When it lost its power and came back, our kernel keeps the old connection until somebody sends on it.
        """
        address, us = self.address(name), self.address(self.me)
        mine = {own for own, there, far in self.table.connections if (there, far) == (address, port)}
        answer = self.ask(name)
        if answer is None:
            return bool(mine)
        theirs = {int(far) for own, there, far in answer["connections"] if (int(own), there) == (port, us)}
        return bool(mine & theirs)

    def orphans(self, name: str, port: int) -> tuple[int, ...]:
        """Connections from another node to our ``port`` which that node knows nothing of: it was switched off.

        They are told by their port over there. Empty if it does not answer, as then nobody knows.
        """
        answer = self.ask(name)
        if answer is None:
            return ()
        known = {(int(own), there, int(far)) for own, there, far in answer["connections"]}
        us, them = self.address(self.me), self.address(name)
        mine = (far for own, there, far in self.table.connections if (own, there) == (port, them))
        return tuple(sorted(far for far in mine if (far, us, port) not in known))

    def _ask(self, name: str) -> dict | None:
        port = node.join_port(self.cluster)
        before = time.time()
        try:
            reply = net.http(self.address(name), port, "/", timeout=self.timeout)
            answer = json.loads(reply.body)
            # Half the way there and back is the best guess at when it looked at its clock.
            self.ahead[name] = float(answer["time"]) - (before + time.time()) / 2
            if answer["node"] != name:
                self.why[name] = f"{self.address(name)} says that it is {answer['node']}"
                return None
            return dict(answer)
        except OSError as error:
            self.why[name] = f"no answer from {self.address(name)}:{port} ({error.strerror or error})"
        except (ValueError, KeyError, TypeError):
            self.why[name] = f"{self.address(name)}:{port} is not a builder-join"
        return None
