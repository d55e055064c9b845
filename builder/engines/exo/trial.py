"""How exo is tried: a completion, of a model that every node holds a part of. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

from builder.engines.trial import Look, Request, Trial, Verdict, chat, tokens_of

TOKENS = 16
READY = ("RunnerReady", "RunnerRunning")
# exo's state as one of its nodes has it: all of it, as parts of it are no larger in the making.
STATE = "/state"

# Inside the layer's root, offline and without a GPU.
_IMPORTS = "import exo.main, exo.worker.runner.llm_inference.runner, mlx_lm"
_MLX = "import mlx.core as mx; mx.set_default_device(mx.cpu); assert (mx.ones(3) + 1).sum().item() == 6"
_ENVIRONMENT = (
    *("/usr/bin/env", "HOME=/tmp", "XDG_CONFIG_HOME=/tmp/config", "XDG_DATA_HOME=/tmp/data"),
    *("XDG_CACHE_HOME=/tmp/cache", "EXO_OFFLINE=true", "EXO_RESOURCES_DIR=/usr/local/resources"),
    "EXO_DASHBOARD_DIR=/usr/local/dashboard/build",
)
_ANSWERS = """\
import subprocess, sys, time, urllib.request
exo = subprocess.Popen([sys.executable, "-c", "from exo.main import main; main()", "--no-worker"])
try:
    until = time.monotonic() + 120
    while True:
        try:
            print(urllib.request.urlopen("http://127.0.0.1:52415/node_id", timeout=5).read())
            break
        except OSError:
            if exo.poll() is not None or time.monotonic() > until:
                sys.exit("exo does not answer /node_id")
            time.sleep(0.5)
finally:
    exo.terminate()
    exo.wait(30)
"""
_PYTHON = "/usr/local/bin/python"
SMOKE = (
    (*_ENVIRONMENT, _PYTHON, "-c", _IMPORTS),
    (*_ENVIRONMENT, _PYTHON, "-c", _MLX),
    (*_ENVIRONMENT, _PYTHON, "-c", _ANSWERS),
)


def completion(node: str, port: int, model: str, text: str, *, tokens: int) -> Request:
    """One answer to ``text``, whole."""
    return chat(node, port, text, tokens=tokens, patience=300, model=model, stream=False, temperature=0)


def trial(master: str, nodes: Sequence[str], api: int, peers: int, model: str) -> Trial:
    """``api``, ``peers``: TCP ports of every node."""
    # curl is not on every node; Python is.
    url = f"http://127.0.0.1:{api}{STATE}"
    state = (
        f"python3 -c \"from urllib.request import urlopen; print(urlopen('{url}', timeout=30).read().decode())\""
    )
    return Trial(
        listens=dict.fromkeys(nodes, (api, peers)),
        request=completion(master, api, model, "Subject to the terms", tokens=TOKENS),
        looks=(Look(master, state),),
        judge=partial(_judge, tuple(nodes), model),
        speed=replace(completion(master, api, model, "Count to a hundred.", tokens=128), read=tokens_of),
    )


def _judge(nodes: Sequence[str], model: str, said: Sequence[str]) -> Verdict:
    """By the master's state each node's runner is ready and holds layers of the model, which together are all."""
    (text,) = said
    state = json.loads(text)
    names = names_of(state)
    held: dict[str, tuple[int, int]] = {}
    for runner, node, shard in shards(state, model):
        status = next(iter(state["runners"].get(runner, {})), "nothing")
        name = names.get(node, node)
        if status not in READY:
            return Verdict(False, f"the runner on {name} is {status}", text)
        held[name] = int(shard["startLayer"]), int(shard["endLayer"])
    lacking = [name for name in nodes if name not in held]
    if lacking:
        return Verdict(False, f"{', '.join(lacking)} holds no part of {model}", text)
    parts = sorted(held.values())
    layers = max(end for _, end in parts)
    whole = parts[0][0] == 0 and all(one[1] == two[0] for one, two in pairwise(parts))
    if not whole or any(start == end for start, end in parts):
        return Verdict(False, f"the parts are no whole model: {held}", text)
    told = (f"{name} holds layers {start} to {end - 1}" for name, (start, end) in sorted(held.items()))
    return Verdict(True, f"{'; '.join(told)} of {layers}: a token passes all of them")


def names_of(state: Mapping[str, Any]) -> dict[str, str]:
    """Node id → host name."""
    return {node: str(one["friendlyName"]) for node, one in state["nodeIdentities"].items()}


def shards(state: Mapping[str, Any], model: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Runner, node and shard of each part of a model that is placed."""
    found = []
    for tagged in state["instances"].values():
        (instance,) = tagged.values()
        assignments = instance["shardAssignments"]
        if assignments["modelId"] != model:
            continue
        for node, runner in assignments["nodeToRunner"].items():
            (shard,) = assignments["runnerToShard"][runner].values()
            found.append((runner, node, shard))
    return found
