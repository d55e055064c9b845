"""What to do next for the cluster's model: a pure step from exo's state.

exo forgets every placement when its master changes, and deletes one whose node left or whose runner failed five
times; nothing of exo places it again.
"""

from __future__ import annotations

from typing import NamedTuple

from doctor.engines import exostate

ASK_AGAIN = 30.0  # seconds after a placement that nothing came of
STUCK = 180.0  # seconds in which no runner came any further; exo itself waits for ever
ROOM = ("nodeMemory", "nodeNetwork")  # what exo itself needs to know of a node before it can place anything on it


class Goal(NamedTuple):
    """``nodes``: the host names of the cluster. ``least``: on how many the model is to be."""

    model: str
    sharding: str
    nodes: tuple[str, ...]
    least: int


class Step(NamedTuple):
    """``said``: for people. ``place``: the body for ``/place_instance``; ``remove``: an instance to delete."""

    said: str
    ready: bool = False
    place: dict | None = None
    remove: str | None = None


def step(state: dict, goal: Goal, since_asked: float, since_news: float = 0.0) -> Step:
    """``since_asked``: seconds since the last placement was asked for; ``since_news``: since this said anything
    new.
    """
    found = exostate.seen(state)
    instances = exostate.placed(state, goal.model, found)
    ready = [one for one in instances if one.ready]
    useless = [one for one in instances if (ready and one not in ready) or len(one.runners) < goal.least]
    if useless:
        return Step("taking away a placement that is not what is wanted", remove=useless[0].instance)
    gone = [name for one in instances for name in one.runners if name not in _there(found, goal)]
    if gone:
        return Step(f"{', '.join(gone)} is gone: exo will take the placement away")
    if ready:
        names = ", ".join(ready[0].runners)
        return Step(f"ready on {names}", ready=True)
    if instances and since_news > STUCK:
        return Step(f"stuck ({exostate.describe(instances[0])}): trying again", remove=instances[0].instance)
    if instances:
        return Step(f"loading: {exostate.describe(instances[0])}")
    why = _not_yet(state, goal, found)
    if why:
        return Step(f"waiting: {why}")
    if since_asked < ASK_AGAIN:
        return Step("asked exo to place it")
    body = {
        "model_id": goal.model,
        "sharding": goal.sharding,
        "instance_meta": "MlxRing",
        "min_nodes": goal.least,
    }
    return Step(f"placing it on at least {goal.least} nodes", place=body)


def _there(found: exostate.Seen, goal: Goal) -> list[str]:
    return [name for name, reason in exostate.absent(found, list(goal.nodes)).items() if reason is None]


def _not_yet(state: dict, goal: Goal, found: exostate.Seen) -> str:
    """What is still missing for a placement; empty when nothing is."""
    reasons = exostate.absent(found, list(goal.nodes))
    there = [name for name, reason in reasons.items() if reason is None]
    if len(there) < goal.least:
        missing = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)
        return f"{len(there)} of {goal.least} nodes ({missing})"
    unknown = [name for name in there if any(found.ids[name] not in state[part] for part in ROOM)]
    if unknown:
        return f"exo does not know the memory of {', '.join(unknown)} yet"
    lacking = {name: _download(state, found.ids[name], goal.model) for name in there}
    bad = [f"{name}: {said}" for name, said in lacking.items() if said]
    return f"the model is not complete on {'; '.join(bad)}" if len(there) - len(bad) < goal.least else ""


def _download(state: dict, node: str, model: str) -> str:
    """Why a node does not count the model as complete; empty if it does."""
    for tagged in state["downloads"].get(node, ()):
        ((kind, body),) = tagged.items()
        (shard,) = body["shardMetadata"].values()
        if shard["modelCard"]["modelId"] != model:
            continue
        if kind == "DownloadCompleted":
            return ""
        return str(body.get("errorMessage") or kind)
    return "exo has not looked at it yet"
