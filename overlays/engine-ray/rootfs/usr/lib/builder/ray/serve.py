"""Starts vLLM's server on the head, as a driver of the cluster's Ray; run inside Ray's own root."""

from __future__ import annotations

import json
import os
from pathlib import Path

CLUSTER = Path("/etc/builder/cluster.json")
MODELS = "/srv/models"


def argv(engine):
    """The whole command line. Pure. Tensors are split over the GPUs of a node, layers over the nodes."""
    wanted = engine["vllm"]
    command = ["/usr/local/bin/vllm", "serve", f"{MODELS}/{wanted['model']}"]
    command += ["--served-model-name", wanted["model"], "--host", "0.0.0.0", "--port", str(wanted["port"])]
    command += ["--distributed-executor-backend", "ray"]
    command += ["--tensor-parallel-size", str(wanted["gpus"]), "--pipeline-parallel-size", str(wanted["nodes"])]
    if wanted["context"]:
        command += ["--max-model-len", str(wanted["context"])]
    return command


def environment(engine):
    """Pure. It finds the cluster's Ray, binds to the cluster's network, and asks nobody on the internet."""
    return {
        "RAY_ADDRESS": f"{engine['address']}:{engine['port']}",
        "VLLM_HOST_IP": engine["address"],
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


def main():
    engine = json.loads(CLUSTER.read_text())["engine"]
    command = argv(engine)
    os.execve(command[0], command, {**os.environ, **environment(engine)})


if __name__ == "__main__":
    main()
