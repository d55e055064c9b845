"""What the doctor prints. Pure."""

from __future__ import annotations

from typing import Any

from . import node, watch
from .model import Facts, NotRun, Ok, Problem, Result


def as_data(facts: Facts, results: dict[str, Result], ready: bool | None) -> dict[str, Any]:
    """For ``--json``, which `builder status` reads on the admin's machine."""
    return {
        "cluster": facts.cluster["cluster"],
        "node": facts.node,
        "address": node.address(facts.cluster, facts.node),
        "plan": facts.plan,
        "ready": ready,
        "joined": list(watch.count(facts.members)) if facts.members else None,
        "members": facts.members or {},
        "url": facts.url,
        "notes": list(facts.notes),
        "checks": [_check(name, result) for name, result in results.items()],
    }


def _check(name: str, result: Result) -> dict[str, str]:
    if isinstance(result, Problem):
        return {"name": name, "state": "problem", **result._asdict()}
    if isinstance(result, Ok):
        return {"name": name, "state": "ok", "what": result.what}
    return {"name": name, "state": "not run", "why": result.reason}


def as_text(facts: Facts, results: dict[str, Result]) -> str:
    """One line a check, problems first, each with what to do."""
    width = max(map(len, results))
    lines = [f"{facts.cluster['cluster']}/{facts.node}, plan {facts.plan[:12]}"]
    for name, result in results.items():
        if isinstance(result, Problem):
            lines.append(f"PROBLEM  {name:{width}}  {result.what}: {result.why}. Do: {result.do}")
    for name, result in results.items():
        if isinstance(result, Ok):
            lines.append(f"ok       {name:{width}}  {result.what}")
    for name, result in results.items():
        if isinstance(result, NotRun):
            lines.append(f"not run  {name:{width}}  {result.reason}")
    return "\n".join(lines) + "\n"


def exit_code(results: dict[str, Result]) -> int:
    """1 if there is any problem, not being joined included."""
    return 1 if any(isinstance(result, Problem) for result in results.values()) else 0
