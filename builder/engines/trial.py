"""How an engine is tried out once all nodes have joined: data and pure functions only.

One request goes to the engine from outside of the nodes, as a client would send it. Then commands are run on
nodes, and what they print has to prove that every node took part. An engine whose work is no request (a task for
all nodes, say) asks for its dashboard, and does its task among the commands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """HTTP to TCP ``port`` of ``node``: GET ``path``, or POST ``body`` as JSON to it.

    ``read`` makes text of the reply's body. It raises ValueError, LookupError or TypeError for a reply that is
    not what was asked for. ``patience``: seconds without a byte before it is given up.
    """

    node: str
    port: int
    path: str
    read: Callable[[bytes], str]
    body: Mapping[str, Any] | None = None
    patience: float = 120


@dataclass(frozen=True)
class Look:
    """A command line for the shell of root on ``node``. It must exit 0."""

    node: str
    command: str


@dataclass(frozen=True)
class Verdict:
    """``said``: the proof in words, or why there is none; then ``shown`` is what it was looked for in."""

    proven: bool
    said: str
    shown: str = ""


@dataclass(frozen=True)
class Trial:
    """``listens``: node → its TCP ports that the others need. ``judge`` takes what the looks printed, in order.

    ``speed``: a longer request, of which ``read`` tells how many tokens were made for it, as a number.
    """

    listens: Mapping[str, tuple[int, ...]]
    request: Request
    looks: tuple[Look, ...]
    judge: Callable[[Sequence[str]], Verdict]
    speed: Request | None = None
