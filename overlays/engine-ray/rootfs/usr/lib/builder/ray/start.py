"""Starts Ray as this node's part of the cluster, head or worker; run inside Ray's own root.

The command line is made here and not in the unit, as a node must tell the others its own address, and units are
the same on every node. It is what `ray` would be called with by hand.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import sys
import time
from pathlib import Path

FOLDER = Path("/etc/builder")
STATE = Path("/var/lib/ray")
RAY = "/usr/local/bin/ray"
KEEP = 2  # sessions whose logs are kept
PATIENCE = 600  # seconds until the raylet must have registered
LIBRARIES = "/usr/lib/x86_64-linux-gnu"  # where the driver's are mounted
SIOCGIFADDR = 0x8915


def address_of(cluster, name):
    return next(node["address"] for node in cluster["nodes"] if node["name"] == name)


def argv(cluster, name):
    """The whole command line. Pure. Every port is given, as the firewall opens no others."""
    engine = cluster["engine"]
    command = [RAY, "start", "--block", "--disable-usage-stats", "--temp-dir", str(STATE)]
    if name == engine["head"]:
        command += ["--head", "--port", str(engine["port"])]
        command += ["--dashboard-host", "0.0.0.0", "--dashboard-port", str(engine["dashboard"]["port"])]
    else:
        command += ["--address", f"{engine['address']}:{engine['port']}"]
    command += ["--node-ip-address", address_of(cluster, name)]
    for what, port in engine["ports"].items():
        if what != "ray_client_server" or name == engine["head"]:
            command += [f"--{what.replace('_', '-')}-port", str(port)]
    workers = engine["workers"]
    command += ["--min-worker-port", str(workers["first"]), "--max-worker-port", str(workers["last"])]
    if engine.get("gpus"):
        command += ["--num-gpus", str(engine["gpus"])]
    return command


def environment(cluster, name, card):
    """What vLLM's workers, which are Ray's, find on this node. Pure. ``card``: its network card in the cluster.

    Left to themselves they ask for the way to the internet, NCCL takes the first card that it sees, and Triton
    looks for the driver's library in ldconfig's list, which Ray's root does not have.
    """
    if not cluster["engine"]["vllm"]:
        return {}
    cards = {"NCCL_SOCKET_IFNAME": f"={card}", "GLOO_SOCKET_IFNAME": card} if card else {}
    return {"VLLM_HOST_IP": address_of(cluster, name), "TRITON_LIBCUDA_PATH": LIBRARIES, **cards}


def card_of(address):
    """The name of the network card that has ``address``, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asked, SIOCGIFADDR, struct.pack("256s", name.encode()))
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None


def tidy(state=STATE):
    """Remove all but the newest sessions: each start leaves one, with its logs."""
    sessions = sorted(path for path in state.glob("session_2*") if path.is_dir() and not path.is_symlink())
    for path in sessions[: max(len(sessions) - KEEP + 1, 0)]:
        shutil.rmtree(path, ignore_errors=True)


def bear_with_slow_nodes(services, agent_port):
    """Lift two limits that Ray (2.60) has no setting for, and that a slow or busy node does not keep.

    The raylet ends itself if it has not read its agent's port from a file after 15 s, although the port was given:
    `ray start` does not pass it on. And `ray start` gives a raylet up that has not registered after 30 s.
    A Ray without these functions starts as it comes.
    """
    begin, look = getattr(services, "start_ray_process", None), getattr(services, "get_node", None)
    if begin is None or look is None:
        return
    raylets = []

    def start_ray_process(command, kind, *args, **kwargs):
        if kind != "raylet":
            return begin(command, kind, *args, **kwargs)
        started = begin([*command, f"--dashboard_agent_listen_port={agent_port}"], kind, *args, **kwargs)
        raylets.append(started.process)
        return started

    def get_node(*args, **kwargs):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return look(*args, **kwargs)
            except RuntimeError:
                if any(raylet.poll() is not None for raylet in raylets):
                    sys.exit("the raylet has ended: raylet.err and raylet.out among the session's logs say why")
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)

    services.start_ray_process, services.get_node = start_ray_process, get_node


def main():
    cluster = json.loads((FOLDER / "cluster.json").read_text())
    name = (FOLDER / "node").read_text().strip()
    sys.argv = argv(cluster, name)
    os.environ.update(environment(cluster, name, card_of(address_of(cluster, name))))
    tidy()
    print(" ".join(sys.argv), file=sys.stderr, flush=True)

    from ray._private import services
    from ray.scripts import scripts

    bear_with_slow_nodes(services, cluster["engine"]["ports"]["dashboard_agent_listen"])
    scripts.main()


if __name__ == "__main__":
    main()
