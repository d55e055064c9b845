"""How an engine is tried out once all nodes have joined: data and pure functions only.

One request goes to the engine from outside of the nodes, as a client would send it. Then commands are run on
nodes, and what they print has to prove that every node took part. An engine whose work is no request (a task for
all nodes, say) asks for its dashboard, and does its task among the commands.
"""

from __future__ import annotations

import json
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


def chat(node: str, port: int, text: str, *, tokens: int = 512, patience: float = 600, **more: Any) -> Request:
    """One whole answer to a text, by the API of OpenAI that every model server here has; ``more`` of its body."""
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": tokens, **more}
    return Request(node, port, "/v1/chat/completions", answer_of, body, patience)


def answer_of(reply: bytes) -> str:
    """The text of a chat's reply; of a model that came no further than thinking, its thoughts."""
    message = json.loads(reply)["choices"][0]["message"]
    return str(message.get("content") or message.get("reasoning_content") or "")


def tokens_of(reply: bytes) -> str:
    """How many tokens were made for a reply."""
    return str(json.loads(reply)["usage"]["completion_tokens"])


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
