"""exo: every node runs the same, and one of them is the master that the model is placed by.

A node is in when exo has it in its topology, with an edge to and from each other node, and, where the spec has a
model, when that is placed and every runner of it is ready. Every node's own exo knows all of that.
"""

from __future__ import annotations

import json
from pathlib import Path

from .. import node
from ..model import Door
from . import exostate

NAME = "exo"
STATUS = "run/exo-place/status.json"


def units(cluster, name):
    placing = ("exo-place.service",) if name == cluster["engine"]["master"] else ()
    return (*cluster["engine"]["units"], *placing)


def doors(cluster, _name):
    engine = cluster["engine"]
    found = [Door(int(engine["api"]["port"]), "exo.service", "exo API")]
    if (
        engine["transport"] == "libp2p"
    ):  # zenoh's is open to link-local addresses alone, which we do not knock from
        found.append(Door(int(engine["peers"]["port"]), "exo.service", "exo peers"))
    return tuple(found)


def url(cluster):
    engine = cluster["engine"]
    return f"http://{node.address(cluster, engine['master'])}:{engine['api']['port']}"


def members(cluster, look):
    names = [entry["name"] for entry in cluster["nodes"]]
    try:
        state = _state(cluster, look)
        found = exostate.seen(state)
        if (
            look.me not in found.ids
        ):  # after each election exo begins with nothing, and finds the others before itself
            return dict.fromkeys(names, f"exo on {look.me} starts over: it does not list itself yet")
        reasons = exostate.absent(found, names)
        model = cluster["engine"]["model"]
        if model and not any(reasons.values()):
            reasons = _serving(exostate.placed(state, model, found), reasons, cluster)
    except OSError as error:
        return {
            **dict.fromkeys(names, f"not known: {look.me} has no exo to ask"),
            look.me: _silent(cluster, error),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return dict.fromkeys(names, f"exo's state on {look.me} is not what it should be ({error!r})")
    return reasons


def mend(_cluster, _look):
    """Nothing: exo dials its peers again every 5 s, and exo-place places the model again."""
    return ()


def notes(cluster, root):
    """What the banner says beside who is in."""
    model = cluster["engine"]["model"]
    if not model:
        return ("no model in the spec: place one on the dashboard",)
    try:
        status = json.loads((Path(root) / STATUS).read_text())
        said, edges = status["said"], status["edges"]
    except (OSError, ValueError, KeyError):
        return (f"model {model}",)
    return (f"model {model}: {said}", *([edges] if edges else []))


def _serving(instances, reasons, cluster):
    """All nodes or none: what one of them cannot do, they cannot do together."""
    if any(one.ready and len(one.runners) >= cluster["engine"]["min_nodes"] for one in instances):
        return reasons
    if not instances:
        return dict.fromkeys(reasons, "the model is not placed yet; see exo-place.service on the master")
    return dict.fromkeys(reasons, f"the model is not ready yet ({exostate.describe(instances[0])})")


def _state(cluster, look):
    """All of it: of a part exo makes the whole first."""
    reply = look.get(look.me, int(cluster["engine"]["api"]["port"]), "/state")
    if reply.status != 200:
        raise ValueError(f"/state: status {reply.status}")
    return json.loads(reply.body)


def _silent(cluster, error):
    port = cluster["engine"]["api"]["port"]
    return f"exo does not answer at port {port} ({error.strerror or error}); it takes a while to start"
