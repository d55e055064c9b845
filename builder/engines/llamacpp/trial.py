"""How llama.cpp is tried: a completion by the head's API, of which every worker must have computed a part."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial

from builder.engines.trial import Look, Request, Trial, Verdict, tokens_of

TOKENS = 16
# The tiny model's hidden state is 256 numbers of 2 bytes; a worker sends at least one a token, a real model more.
_BYTES_A_TOKEN = 512


def trial(head: str, port: int, workers: Mapping[str, str], rpc_port: int) -> Trial:
    """``workers``: node → address. ``port``, ``rpc_port``: TCP, of the API and of the RPC servers."""
    looks = [Look(head, "journalctl --unit llamacpp-server --output cat --no-pager")]
    looks += [Look(name, f"ss -tinH state established '( sport = :{rpc_port} )'") for name in workers]
    return Trial(
        listens={head: (port,), **dict.fromkeys(workers, (rpc_port,))},
        request=Request(
            node=head,
            port=port,
            path="/v1/completions",
            body={"prompt": "Subject to the terms", "max_tokens": TOKENS, "temperature": 0},
            read=_text,
        ),
        looks=tuple(looks),
        judge=partial(_judge, {name: f"{address}:{rpc_port}" for name, address in workers.items()}),
        speed=Request(
            node=head,
            port=port,
            path="/v1/completions",
            body={"prompt": "Count to a hundred.", "max_tokens": 128, "temperature": 0},
            read=tokens_of,
            patience=600,
        ),
    )


def _text(reply: bytes) -> str:
    return str(json.loads(reply)["choices"][0]["text"])


def _judge(doors: Mapping[str, str], said: Sequence[str]) -> Verdict:
    """By the head's log each worker holds a part of the model, and by its own kernel it sent results."""
    log, *counters = said
    found = []
    for (name, door), counted in zip(doors.items(), counters, strict=True):
        held = re.findall(rf"\[{re.escape(door)}\] model buffer size = +(\S+ \S+)", log)
        if not held:
            return Verdict(False, f"the head gave {name} no part of the model", log)
        sent = max((int(number) for number in re.findall(r"bytes_sent:(\d+)", counted)), default=0)
        if sent < TOKENS * _BYTES_A_TOKEN:
            return Verdict(False, f"{name} sent {sent} bytes, too few for {TOKENS} tokens", counted)
        found.append(f"{name} holds {held[-1]} of the model and sent {sent} bytes")
    return Verdict(True, "; ".join(found) or "there is one node only")
