"""Runs a task on every node of the cluster, and prints address → name of the host that it ran on, as JSON."""

import json
import socket
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

SECONDS = 240


def hostname():
    return socket.gethostname()  # itself it is no function of Python, which Ray wants


def main():
    engine = json.loads(Path("/etc/builder/cluster.json").read_text())["engine"]
    ray.init(address=f"{engine['address']}:{engine['port']}", log_to_driver=False)
    # Neither processors nor memory are asked for: it is a question, and a busy node must answer it too.
    task = ray.remote(num_cpus=0)(hostname)
    tasks = {
        node["NodeManagerAddress"]: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in ray.nodes()
        if node["Alive"]
    }
    print(json.dumps(dict(zip(tasks, ray.get(list(tasks.values()), timeout=SECONDS), strict=True))))


if __name__ == "__main__":
    main()
