"""Who is in the cluster: the engine's own word, and what no two nodes of a cluster may differ in."""

from __future__ import annotations

from . import engines, node
from .look import Look
from .watch import Members


def seen(cluster: dict, look: Look, plan: str) -> Members:
    """Each node → None if it is in, else the reason why not. ``plan``: this node's.

    Nodes of another plan are left out if the spec says so, those with another version of the engine always.
    """
    members = engines.of(cluster).members(cluster, look)
    version, one_plan = engines.version(cluster), node.refuses_mixed_plans(cluster)
    if not members or not (version or one_plan):
        return members
    others = [name for name in members if name != look.me]
    look.ask_all(others)
    answers = {name: answer for name in others if (answer := look.ask(name))}
    if one_plan:
        plans = {name: str(answer["plan"])[:12] for name, answer in answers.items()}
        members = agreeing(members, "plan ", plans, look.me, plan[:12])
    if version:
        theirs = {name: str(answer["engine"]) for name, answer in answers.items() if answer.get("engine")}
        members = agreeing(members, "", theirs, look.me, version)
    return members


def agreeing(members: Members, what: str, theirs: dict[str, str], me: str, mine: str) -> Members:
    """The members without those that are known to have another ``what`` than the node ``me``. Pure.

    Each node holds the others to its own, so two halves of a cluster refuse each other, and no node has to know
    which is the new one. The reason names both nodes, because a node may pass it on.
    """
    differ = {name: has for name, has in theirs.items() if has != mine}
    return {
        name: f"has {what}{differ[name]}, and {me} has {mine}" if name in differ else reason
        for name, reason in members.items()
    }
