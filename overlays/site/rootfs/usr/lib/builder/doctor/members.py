"""Who is in the cluster: the engine's own word, and the spec's about nodes of another plan."""

from __future__ import annotations

from . import engines, node
from .look import Look
from .watch import Members


def seen(cluster: dict, look: Look, plan: str) -> Members:
    """Each node → None if it is in, else the reason why not. ``plan``: this node's."""
    members = engines.of(cluster).members(cluster, look)
    if not members or not node.refuses_mixed_plans(cluster):
        return members
    others = [name for name in members if name != look.me]
    look.ask_all(others)
    answers = {name: look.ask(name) for name in others}
    plans = {name: str(answer["plan"]) for name, answer in answers.items() if answer}
    return of_one_plan(members, plans, look.me, plan)


def of_one_plan(members: Members, plans: dict[str, str], me: str, plan: str) -> Members:
    """The members without those that are known to be of another plan than the node ``me``. Pure.

    Each node holds the others to its own plan, so two halves of a cluster refuse each other, and no node has to
    know which plan is the new one. The reason names both nodes, because a node may pass it on.
    """
    differ = {name: theirs for name, theirs in plans.items() if theirs != plan}
    return {
        name: f"has plan {differ[name][:12]}, and {me} has {plan[:12]}" if name in differ else reason
        for name, reason in members.items()
    }
