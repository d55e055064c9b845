"""The text that greets whoever logs in. Pure."""

from __future__ import annotations

from . import engines, node, watch


def text(cluster: dict, name: str, plan: str, members: watch.Members, notes: tuple[str, ...] = ()) -> str:
    """A few lines: cluster, node, who is in, where the API is, and what to do when something is missing.

    ``notes``: the engine's own.
    """
    lines = [f"cluster {cluster['cluster']}, node {name}"]
    lines[0] += f" ({node.address(cluster, name)}), plan {plan[:12]}"
    engine = engines.of(cluster)
    if not members:
        lines.append("no engine, so there is nothing to join")
    else:
        n, total = watch.count(members)
        lines.append(f"joined {n}/{total}")
        lines += [f"  {who}: {reason}" for who, reason in members.items() if reason is not None]
    if engine.url(cluster):
        lines.append(f"API: {engine.url(cluster)}")
    lines += notes
    lines.append("what is wrong, and what to do: sudo node-doctor")
    return "\n".join(lines) + "\n"


def for_issue(banner: str) -> str:
    """For agetty, to which a backslash begins an escape."""
    return banner.replace("\\", "\\\\") + "\n"
