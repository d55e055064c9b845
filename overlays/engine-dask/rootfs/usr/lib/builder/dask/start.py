"""Starts Dask's scheduler or worker as this node's part of the cluster; run inside Dask's own root.

The command lines are made here and not in the units, as a worker must tell the others its own address, and units
are the same on every node.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

FOLDER = Path("/etc/builder")
DASK = "/usr/local/bin/dask"


def scheduler(cluster, _name):
    """Bound to the node's address in the cluster; the dashboard to all, as the firewall says who may see it."""
    engine = cluster["engine"]
    where = ["--host", engine["scheduler"]["address"], "--port", str(engine["scheduler"]["port"])]
    return [DASK, "scheduler", *where, "--dashboard-address", f"0.0.0.0:{engine['dashboard']['port']}"]


def worker(cluster, name):
    """One process, and no nanny, since systemd starts it again; its own dashboard is for this machine alone."""
    engine = cluster["engine"]
    address = next(node["address"] for node in cluster["nodes"] if node["name"] == name)
    wanted = engine["worker"]
    argv = [DASK, "worker", f"tcp://{engine['scheduler']['address']}:{engine['scheduler']['port']}"]
    argv += ["--name", name, "--host", address, "--worker-port", str(wanted["port"]), "--no-nanny"]
    argv += ["--dashboard-address", "127.0.0.1:0", "--local-directory", "/var/lib/dask"]
    if wanted["threads"]:
        argv += ["--nthreads", str(wanted["threads"])]
    if engine.get("gpus"):
        argv += ["--resources", f"GPU={engine['gpus']}"]
    return argv


ROLES = {"scheduler": scheduler, "worker": worker}


def main(role):
    cluster = json.loads((FOLDER / "cluster.json").read_text())
    argv = ROLES[role](cluster, (FOLDER / "node").read_text().strip())
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1])
