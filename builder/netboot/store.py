"""The state of a cluster's orders on the disk: there whole or as it was before, and only one may change it."""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from builder.errors import BuilderError
from builder.netboot import orders
from builder.netboot.orders import State

LAZY = 5.0  # seconds that progress may wait to be written; it is for people
_T = TypeVar("_T")


class Store:
    """``path``: the state's file. Every change goes through :meth:`change`, one at a time."""

    def __init__(self, path: Path, names: list[str], clock: Callable[[], float] = time.time) -> None:
        """Raises BuilderError if the file is damaged: nobody may guess who is to be wiped."""
        self.path = path
        self._names = names
        self._clock = clock
        self._lock = threading.Lock()
        self._written = 0.0
        self._dirty = False
        self._state = self._load()

    @property
    def state(self) -> State:
        """As it is now; a value, so it may be looked at without haste."""
        return self._state

    def now(self) -> float:
        return self._clock()

    def change(self, make: Callable[[State, float], tuple[State, _T, bool]]) -> _T:
        """Apply a change: ``make`` gets state and time, and returns state, answer, and whether the state must be
        on the disk before the answer goes out. Raises OSError if it cannot be written; then nothing has changed.
        """
        with self._lock:
            now = self._clock()
            state, answer, lasting = make(self._state, now)
            if lasting or (state is not self._state and now - self._written > LAZY):
                self._save(state)
                self._written, self._dirty = now, False
            elif state is not self._state:
                self._dirty = True
            self._state = state
            return answer

    def flush(self) -> None:
        """Write what is not written yet."""
        with self._lock:
            if self._dirty:
                self._save(self._state)
                self._dirty = False

    def _load(self) -> State:
        try:
            return orders.from_data(json.loads(self.path.read_bytes()), self._names)
        except FileNotFoundError:
            return State({name: orders.Node() for name in self._names})
        except (ValueError, KeyError, TypeError) as error:
            raise BuilderError(
                f"{self.path} is damaged, so nobody knows which nodes are to be installed: {error!r}",
                hint="remove it: then none is, until you say `builder reinstall`",
            ) from error

    def _save(self, state: State) -> None:
        part = self.path.with_name(f"{self.path.name}.part")
        with part.open("w") as file:
            json.dump(orders.to_data(state), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def token(path: Path) -> str:
    """The word that a call which changes something needs; made once, for its owner's eyes only."""
    if not path.exists():
        part = path.with_name(f"{path.name}.part")
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        part.replace(path)
    return path.read_text().strip()
