"""Runs a task on every worker, each on its own, and prints worker → name of the host that it ran on, as JSON."""

import json
import socket
from pathlib import Path

from distributed import Client

SECONDS = 120


def main():
    wanted = json.loads(Path("/etc/builder/cluster.json").read_text())["engine"]["scheduler"]
    with Client(f"tcp://{wanted['address']}:{wanted['port']}", timeout=SECONDS) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        tasks = {
            worker["name"]: client.submit(socket.gethostname, workers=[address], pure=False)
            for address, worker in workers.items()
        }
        print(json.dumps({name: task.result(timeout=SECONDS) for name, task in tasks.items()}))


if __name__ == "__main__":
    main()
