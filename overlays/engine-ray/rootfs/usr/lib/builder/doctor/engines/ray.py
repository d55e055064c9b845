"""Ray: a head, and the other nodes as its workers.

The head's own list says who is in. It gives a node up only after some missed answers, so a node whose builder-join
does not answer is not counted either.
"""

from __future__ import annotations

import json

from .. import node
from ..model import Door

NAME = "ray"
UNIT = "ray.service"
SECONDS = 20  # the dashboard is nine processes of Python, which a busy head lets wait
ALIVE = "/api/v0/nodes?limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"


def units(cluster, name):
    return tuple(cluster["engine"]["units"]["head" if name == cluster["engine"]["head"] else "worker"])


def doors(cluster, name):
    engine = cluster["engine"]
    found = (
        Door(int(engine["ports"]["node_manager"]), UNIT, "Ray node manager"),
        Door(int(engine["ports"]["object_manager"]), UNIT, "Ray object manager"),
    )
    if name != engine["head"]:
        return found
    head = (Door(int(engine["port"]), UNIT, "Ray head"), Door(_dashboard(cluster), UNIT, "Ray dashboard"))
    vllm = engine["vllm"]
    serves = (Door(int(vllm["port"]), "ray-vllm.service", "vLLM API"),) if vllm else ()
    return (*head, *found, *serves)


def url(cluster):
    return f"http://{node.address(cluster, cluster['engine']['head'])}:{_dashboard(cluster)}"


def members(cluster, look):
    """By the head's list; the others pass on what the head says."""
    head = cluster["engine"]["head"]
    names = [entry["name"] for entry in cluster["nodes"]]
    if look.me != head:
        answer = look.ask(head)
        if answer is None:
            return dict.fromkeys(names, f"not known: {look.why[head]}")
        return {name: answer["members"].get(name, "the head does not know it yet") for name in names}
    look.ask_all([name for name in names if name != head])
    try:
        listed = alive(cluster, look)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return dict.fromkeys(names, f"Ray's dashboard on {head} does not answer ({error})")
    return {name: _complaint(cluster, look, name, listed) for name in names}


def mend(_cluster, _look):
    """Nothing: a node that loses its head ends, and systemd starts it until that is back."""
    return ()


def alive(cluster, look):
    """The addresses of the nodes that the head counts. Raises OSError, ValueError, LookupError or TypeError."""
    reply = look.get(cluster["engine"]["head"], _dashboard(cluster), ALIVE, timeout=SECONDS)
    if reply.status != 200:
        raise OSError(f"status {reply.status}")
    found = json.loads(reply.body)["data"]["result"]["result"]
    return {entry["node_ip"] for entry in found if entry["state"] == "ALIVE"}


def _dashboard(cluster):
    return int(cluster["engine"]["dashboard"]["port"])


def _complaint(cluster, look, name, listed):
    if name != look.me and look.ask(name) is None:
        return look.why[name]
    if look.address(name) in listed:
        return None
    port = int(cluster["engine"]["ports"]["node_manager"])
    there = look.listening(port) if name == look.me else port in look.ask(name)["listening"]
    if there:
        return "Ray runs there, and the head does not count it"
    return f"{UNIT} is not running there: nothing listens on port {port}"
