"""Starts Ray as this node's part of the cluster, head or worker; run inside Ray's own root.

The command line is made here and not in the unit, as a node must tell the others its own address, and units are
the same on every node.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

FOLDER = Path("/etc/builder")
STATE = Path("/var/lib/ray")
RAY = "/usr/local/bin/ray"
KEEP = 2  # sessions whose logs are kept


def argv(cluster, name):
    """The whole command line. Pure. Every port is given, as the firewall opens no others."""
    engine = cluster["engine"]
    address = next(node["address"] for node in cluster["nodes"] if node["name"] == name)
    command = [RAY, "start", "--block", "--disable-usage-stats", "--temp-dir", str(STATE)]
    if name == engine["head"]:
        command += ["--head", "--port", str(engine["port"])]
        command += ["--dashboard-host", "0.0.0.0", "--dashboard-port", str(engine["dashboard"]["port"])]
    else:
        command += ["--address", f"{engine['address']}:{engine['port']}"]
    command += ["--node-ip-address", address]
    for what, port in engine["ports"].items():
        if what != "ray_client_server" or name == engine["head"]:
            command += [f"--{what.replace('_', '-')}-port", str(port)]
    workers = engine["workers"]
    command += ["--min-worker-port", str(workers["first"]), "--max-worker-port", str(workers["last"])]
    if engine.get("gpus"):
        command += ["--num-gpus", str(engine["gpus"])]
    return command


def tidy(state=STATE):
    """Remove all but the newest sessions: each start leaves one, with its logs."""
    sessions = sorted(path for path in state.glob("session_2*") if path.is_dir() and not path.is_symlink())
    for path in sessions[: max(len(sessions) - KEEP + 1, 0)]:
        shutil.rmtree(path, ignore_errors=True)


def main():
    cluster = json.loads((FOLDER / "cluster.json").read_text())
    command = argv(cluster, (FOLDER / "node").read_text().strip())
    tidy()
    print(" ".join(command), file=sys.stderr, flush=True)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
