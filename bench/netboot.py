"""The servers of the network install: a fleet that reports, and the payload's throughput."""

from __future__ import annotations

import getpass
import grp
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench.figure import Figure, seconds
from builder.installer.beacon import EVERY, Beacon
from builder.netboot import configs, control, supervise
from builder.netboot.control import Control
from builder.netboot.store import Store
from builder.run import run
from builder.spec.load import loads
from tests import sites

FLEET = 500
ROUNDS = 10
BIG = 2 << 30  # bytes
PORT, HAND_PORT = 18480, 18490


def fleet(folder: Path) -> Iterator[Figure]:
    """500 nodes report their progress ten times each, from many connections at once, while a browser looks."""
    nodes = "".join(f"  - {{name: n{i}, match: {{serial: S{i}}}}}\n" for i in range(FLEET))
    cluster = loads(f"name: fleet\nnetwork: {{subnet: 10.0.0.0/16}}\nnodes:\n{nodes}", source="bench", base=folder)
    site = sites.site_of(cluster, folder, address="127.0.0.1", control_port=0)
    names = [node.name for node in cluster.nodes]
    service = Control(site, Store(folder / "state.json", names), "token", lambda _line: None)
    with control.listening(service) as (address, port):
        service.order(names)
        words = {name: node.order for name, node in service.store.state.nodes.items()}
        beacons = [Beacon(f"http://{address}:{port}", words[name]) for name in names]

        def tell(job: int) -> float:
            beacon, turn = beacons[job % FLEET], job // FLEET
            beacon.progress("unpack", turn + 1, ROUNDS)
            return seconds(lambda: beacon._post({**beacon._news}))

        looking = threading.Event()

        def look() -> None:
            while not looking.wait(2):
                service.state()

        watcher = threading.Thread(target=look)
        watcher.start()
        with ThreadPoolExecutor(64) as pool:
            began = time.monotonic()
            each = sorted(pool.map(tell, range(FLEET * ROUNDS)))
            took = time.monotonic() - began
        looking.set()
        watcher.join()
        done = sum(node.done == ROUNDS for node in service.store.state.nodes.values())
        assert done == FLEET, done
    due = ROUNDS * EVERY
    yield Figure(
        f"{FLEET * ROUNDS} reports of {FLEET} nodes", took, "what they take to send them", due, "that", due
    )
    worst = each[len(each) * 99 // 100]
    yield Figure("answer to one of them, 99 of 100", worst, "the installer waits", 10.0, "1 s", 1.0)


@contextmanager
def _nginx(folder: Path, text: str, port: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(text)
    argv: list[str | Path] = ["nginx", "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
    with supervise.running([supervise.Server("nginx", argv)], print, lambda _line: None):
        url, patient = f"http://127.0.0.1:{port}/", ("--retry", "50", "--retry-connrefused", "--retry-delay", "1")
        run(["curl", "-s", "-o", "/dev/null", *patient, url], step="waiting for nginx", check=False)
        yield


def throughput(folder: Path) -> Iterator[Figure]:
    """A large file from nginx as we configure it, against the shortest configuration that serves it."""
    text = "name: t\nnetwork: {subnet: 10.0.0.0/24}\nnodes:\n  - {name: n, match: {serial: S}}\n"
    cluster = loads(text, source="bench", base=folder)
    owner = (getpass.getuser(), grp.getgrgid(os.getgid()).gr_name)
    site = sites.site_of(cluster, folder, address="127.0.0.1", http_port=PORT, owner=owner)
    tree = sites.make_tree(site.tree.folder, "t", {})
    (tree.payload / "layers").mkdir(parents=True)
    big = tree.payload / "layers/big"
    with big.open("wb") as file:
        file.write(os.urandom(1 << 20) * (BIG >> 20))
    by_hand = (
        f"daemon off;\nuser {owner[0]} {owner[1]};\npid {folder}/hand/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{HAND_PORT}; root {tree.folder}; }} }}\n"
    )
    ours = configs.rendered(site)["nginx.conf"].replace("allow 10.0.0.0/24;", "allow 127.0.0.0/8;")

    def get(port: int) -> float:
        argv = ["curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{port}/builder/layers/big"]
        return min(seconds(lambda: run(argv, step="reading")) for _ in range(3))

    with _nginx(site.state, ours, PORT), _nginx(folder / "hand", by_hand, HAND_PORT):
        get(HAND_PORT)  # into the page cache
        reference, took = get(HAND_PORT), get(PORT)
    what = f"2 GiB from nginx, {BIG / took / 1e9:.1f} GB/s"
    yield Figure(what, took, "nginx by hand", reference, "1.1 times", 1.1 * reference)
