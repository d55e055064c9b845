"""Dask: a scheduler on the head, a worker on every node.

The scheduler's own list says who is in. It learns of a node without power only by a time-out, so a node whose
builder-join does not answer is not counted either.
"""

from __future__ import annotations

import json

from .. import node
from ..model import Door

NAME = "dask"


def units(cluster, name):
    return tuple(cluster["engine"]["units"]["head" if name == cluster["engine"]["head"] else "worker"])


def doors(cluster, name):
    engine = cluster["engine"]
    found = (Door(int(engine["worker"]["port"]), "dask-worker.service", "Dask worker"),)
    if name != engine["head"]:
        return found
    scheduler = Door(int(engine["scheduler"]["port"]), "dask-scheduler.service", "Dask scheduler")
    dashboard = Door(int(engine["dashboard"]["port"]), "dask-scheduler.service", "Dask dashboard")
    return (scheduler, dashboard, *found)


def url(cluster):
    engine = cluster["engine"]
    return f"http://{node.address(cluster, engine['head'])}:{engine['dashboard']['port']}/status"


def members(cluster, look):
    """By the head, which asks its scheduler; the others pass on what it says."""
    head = cluster["engine"]["head"]
    names = [entry["name"] for entry in cluster["nodes"]]
    if look.me != head:
        answer = look.ask(head)
        if answer is None:
            return dict.fromkeys(names, f"not known: {look.why[head]}")
        return {name: answer["members"].get(name, "the head does not know it yet") for name in names}
    look.ask_all([name for name in names if name != head])
    try:
        listed = running(cluster, look)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return dict.fromkeys(names, f"the scheduler on {head} does not answer ({error})")
    return {name: _complaint(cluster, look, name, listed) for name in names}


def mend(_cluster, _look):
    """Nothing: a worker that loses its scheduler ends, and systemd starts it until it is back."""
    return ()


def running(cluster, look):
    """The names of the workers that the scheduler counts. Raises OSError, or what another answer makes."""
    engine = cluster["engine"]
    reply = look.get(engine["head"], int(engine["dashboard"]["port"]), "/json/identity.json")
    if reply.status != 200:
        raise OSError(f"status {reply.status}")
    return {
        worker["name"] for worker in json.loads(reply.body)["workers"].values() if worker["status"] == "running"
    }


def _complaint(cluster, look, name, listed):
    if name != look.me and look.ask(name) is None:
        return look.why[name]
    if name in listed:
        return None
    port = int(cluster["engine"]["worker"]["port"])
    there = look.listening(port) if name == look.me else port in look.ask(name)["listening"]
    if there:
        return "its worker runs, and the scheduler does not count it"
    return f"dask-worker.service is not running there: nothing listens on port {port}"
