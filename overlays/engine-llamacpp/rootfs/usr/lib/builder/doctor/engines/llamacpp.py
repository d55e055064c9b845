"""llama.cpp: one head with llama-server, RPC workers on the other nodes.

Measured with 8.0.0: ``/health`` stays 200 after a worker has died, so it says nothing about the workers. What does
is the one connection that the head holds to each of them from loading the model on; it is established, or the
worker takes no part. And a worker serves one client at a time with room for two more in its queue, where
connections stay, even closed ones: so nobody connects to a worker merely to see whether it is there.
"""

from __future__ import annotations

from .. import node
from ..model import Door

NAME = "llamacpp"


def units(cluster, name):
    return tuple(cluster["engine"]["units"]["head" if name == cluster["engine"]["head"] else "worker"])


def doors(cluster, name):
    engine = cluster["engine"]
    (unit, *_) = units(cluster, name)
    if name == engine["head"]:
        return (Door(int(engine["api"]["port"]), unit, "llama.cpp API"),)
    return (Door(int(engine["rpc"]["port"]), unit, "llama.cpp RPC", serial=True),)


def url(cluster):
    engine = cluster["engine"]
    return f"http://{node.address(cluster, engine['head'])}:{engine['api']['port']}/v1"


def members(cluster, look):
    head = cluster["engine"]["head"]
    workers = [entry["name"] for entry in cluster["nodes"] if entry["name"] != head]
    if look.me == head:
        look.ask_all(workers)
        return {head: _health(cluster, look), **{name: _worker(cluster, look, name) for name in workers}}
    # The head is the one that knows; a worker adds what it knows of itself.
    answer = look.ask(head)
    seen = answer["members"] if answer else None
    found = {head: _health(cluster, look)}
    for name in workers:
        if seen is None:
            found[name] = f"not known: {look.why[head]}"
        else:
            found[name] = seen.get(name, "the head does not know it: its cluster.json differs")
    if not look.listening(int(cluster["engine"]["rpc"]["port"])):
        found[look.me] = _not_running(cluster, look.me)
    return found


def mend(cluster, look):
    """Two ends that wait for ever, both because RPC connections have no keep-alive.

    llama-server never calls a worker again that it lost, and finds out only at the next request. A worker whose
    head lost its power reads on from a connection that has no other end, and keeps the head's new one waiting.
    """
    head = cluster["engine"]["head"]
    port = int(cluster["engine"]["rpc"]["port"])
    if look.me != head:
        return units(cluster, look.me) if look.orphans(head, port) else ()
    if _health(cluster, look) is not None:
        return ()
    workers = [entry["name"] for entry in cluster["nodes"] if entry["name"] != head]
    back = [name for name in workers if not look.connected(name, port) and _offers(look, name, port)]
    return units(cluster, head) if back else ()


def _health(cluster, look):
    engine = cluster["engine"]
    where = f"llama-server at {look.address(engine['head'])}:{engine['api']['port']}"
    try:
        reply = look.get(engine["head"], int(engine["api"]["port"]), "/health")
    except OSError as error:
        return f"no answer from {where} ({error.strerror or error})"
    if reply.status == 503:
        return f"{where} is loading the model"
    return None if reply.status == 200 else f"{where} says status {reply.status}"


def _worker(cluster, look, name):
    port = int(cluster["engine"]["rpc"]["port"])
    answer = look.ask(name)
    if answer is None:
        return look.why[name]
    if not _offers(look, name, port):
        return _not_running(cluster, name)
    if not look.connected(name, port):
        return f"llama-server holds no connection to {look.address(name)}:{port}"
    return None


def _offers(look, name, port):
    answer = look.ask(name)
    return answer is not None and port in answer["listening"]


def _not_running(cluster, name):
    port = cluster["engine"]["rpc"]["port"]
    return f"{units(cluster, name)[0]} is not running there: nothing listens on port {port}"
