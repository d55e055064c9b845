"""What to say when, while the cluster forms and afterwards: a pure step from state to state."""

from __future__ import annotations

from typing import NamedTuple

JOURNAL_EVERY = 30.0  # seconds between two reports in the journal while somebody is missing
CONSOLE_EVERY = 60.0
PATIENCE = 2  # looks in a row that must miss a node which was in, before it counts as gone
NEVER = float("-inf")

Members = dict[str, "str | None"]


class State(NamedTuple):
    """``members``: as last told. ``misses``: node → looks in a row without it, for those that were in."""

    members: Members | None = None
    complete: bool = False
    misses: dict[str, int] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    journal_at: float = NEVER
    console_at: float = NEVER


class Say(NamedTuple):
    """``changed``: somebody came or went, so the banner is stale."""

    journal: tuple[str, ...]
    console: tuple[str, ...]
    changed: bool


def count(members: Members) -> tuple[int, int]:
    """How many are in, of how many."""
    return sum(reason is None for reason in members.values()), len(members)


def missing(members: Members) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in members.items() if reason is not None)


def headline(members: Members, plan: str) -> str:
    """The one line for people and for the boot test."""
    n, total = count(members)
    if n == total:
        return f"builder-joined {n}/{total} {plan}"
    return f"builder-not-joined {n}/{total} {plan}: {missing(members)}"


def step(state: State, now: float, seen: Members, plan: str) -> tuple[State, Say]:
    """One look later. ``now``: seconds of a clock that only goes forward.

    While somebody is missing: the journal at each change of who and every 30 s, the consoles once a minute.
    Complete, and every loss after that: both at once.
    """
    members, misses = _patiently(state, seen)
    n, total = count(members)
    complete = n == total
    before = state.members
    changed = before is None or _who(before) != _who(members)
    headlined = headline(members, plan)
    journal, console = [], []
    if complete and not state.complete:
        journal.append(headlined)
        console.append(headlined)
    elif not complete:
        lost = state.complete
        if lost or changed or now - state.journal_at >= JOURNAL_EVERY:
            journal.append(headlined)
        if lost or now - state.console_at >= CONSOLE_EVERY:
            console.append(headlined)
    return (
        State(
            members,
            complete,
            misses,
            now if journal else state.journal_at,
            now if console else state.console_at,
        ),
        Say(tuple(journal), tuple(console), changed or before != members),
    )


def _who(members: Members) -> set[str]:
    return {name for name, reason in members.items() if reason is None}


def _patiently(state: State, seen: Members) -> tuple[Members, dict[str, int]]:
    """``seen``, but a node that was in and is missed for the first time still counts as in."""
    misses, members = {}, {}
    for name, reason in seen.items():
        was_in = state.members is not None and state.members.get(name, "") is None
        missed = state.misses.get(name, 0) + 1 if reason is not None and was_in else 0
        if missed and missed < PATIENCE:
            misses[name], members[name] = missed, None
        else:
            members[name] = reason
    return members, misses
