"""What exo's own state says: who is there, who sees whom, and how far the model is. Pure.

The shapes are those of exo's ``/state`` (tests/data/exo holds recorded ones). Nodes have a new random id at every
start of exo, so a machine is known by its host name, and of two ids with the same name the one in the topology
counts.
"""

from __future__ import annotations

from typing import NamedTuple

READY = ("RunnerReady", "RunnerRunning")


class Seen(NamedTuple):
    """``ids``: host name → id of the nodes in the topology. ``edges``: (name, name) of who reaches whom."""

    ids: dict[str, str]
    edges: frozenset[tuple[str, str]]


def seen(state: dict) -> Seen:
    """The topology by host names; a node whose name has not come yet is left out."""
    named = state["nodeIdentities"]
    ids = {str(named[node]["friendlyName"]): node for node in state["topology"]["nodes"] if node in named}
    names = {node: name for name, node in ids.items()}
    edges = {
        (names[source], names[sink])
        for source, sinks in state["topology"]["connections"].items()
        for sink, links in sinks.items()
        if links and source in names and sink in names
    }
    return Seen(ids, frozenset(edges))


def absent(found: Seen, names: list[str]) -> dict[str, str | None]:
    """Each node → None if exo has it with edges to and from all others that it has, else the reason why not."""
    there = [name for name in names if name in found.ids]
    reasons: dict[str, str | None] = {}
    for name in names:
        if name not in found.ids:
            reasons[name] = "exo does not see it"
            continue
        others = [other for other in there if other != name]
        deaf = [other for other in others if (other, name) not in found.edges]
        mute = [other for other in others if (name, other) not in found.edges]
        if deaf:
            reasons[name] = f"{', '.join(deaf)} cannot reach exo's API on it"
        elif mute:
            reasons[name] = f"it cannot reach exo's API on {', '.join(mute)}"
        else:
            reasons[name] = None
    return reasons


def links(found: Seen, names: list[str]) -> str:
    """One line for people: who reaches whom, or, of more than a few, who does not."""
    wanted = [(one, other) for one in names for other in names if one != other]
    there = [f"{one}->{other}" for one, other in wanted if (one, other) in found.edges]
    missing = [f"{one}->{other}" for one, other in wanted if (one, other) not in found.edges]
    count = f"{len(there)} of {len(wanted)} edges"
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        return f"{count}, without {', '.join(missing[:4])}{more}"
    return f"{count}: {', '.join(there)}" if len(there) <= 6 else count


class Placed(NamedTuple):
    """An instance of the model. ``runners``: host name (or id) → status, without details; ``why``: of a failed
    one.
    """

    instance: str
    runners: dict[str, str]
    why: str = ""

    @property
    def ready(self) -> bool:
        return bool(self.runners) and all(status in READY for status in self.runners.values())


def placed(state: dict, model: str, found: Seen) -> list[Placed]:
    """Every instance of the model. ``/instance/await`` of exo would call them ready before a runner is."""
    names = {node: name for name, node in found.ids.items()}
    result = []
    for instance, tagged in state["instances"].items():
        (body,) = tagged.values()
        assigned = body["shardAssignments"]
        if assigned["modelId"] != model:
            continue
        runners, why = {}, ""
        for node, runner in assigned["nodeToRunner"].items():
            status = state["runners"].get(runner, {"no runner": {}})
            ((kind, details),) = status.items()
            runners[names.get(node, node)] = kind
            if kind == "RunnerFailed":
                why = str((details or {}).get("errorMessage") or "it does not say why")
        result.append(Placed(instance, dict(sorted(runners.items())), why))
    return result


def describe(one: Placed) -> str:
    """One line for people."""
    told = ", ".join(f"{name} {status.removeprefix('Runner').lower()}" for name, status in one.runners.items())
    return f"{told}: {one.why.strip().splitlines()[-1][:200]}" if one.why.strip() else told
