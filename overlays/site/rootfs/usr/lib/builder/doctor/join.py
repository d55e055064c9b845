"""builder-join: watches who is in the cluster, says so, and tells the other nodes of this one."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from . import banner, consoles, engines, net, node, serve, watch
from . import members as membership
from .commands import run
from .look import Look
from .multicast import Ear

FORMING, JOINED = 2.0, 5.0  # seconds from one look to the next
MEND_AGAIN = 60.0  # seconds before the same unit is restarted once more
BANNERS = ("run/issue.d/builder.issue", "run/motd.d/builder")


def main(root: Path = Path("/")) -> int:
    """Runs for ever. Exit 0 at once without an engine; 1 if a file that every node has is missing."""
    try:
        cluster, me, plan = node.cluster(root), node.name(root), node.manifest(root)["plan"]
        engine = engines.of(cluster)
        node.address(cluster, me)
    except node.UnknownError as error:
        print(f"cannot watch the cluster: {error}", file=sys.stderr, flush=True)
        return 1
    if engine.NAME == "none":
        print("this cluster has no engine: nothing to join", flush=True)
        show(root, banner.text(cluster, me, plan, {}))
        tell_systemd("READY=1\nSTATUS=no engine: nothing to join")
        return 0
    signal.signal(signal.SIGTERM, _leave)
    watcher = Watcher(root, cluster, me, plan)
    where = node.address(cluster, me), node.join_port(cluster)
    try:
        serve.start(*where, watcher.document)
    except OSError as error:
        print(f"cannot listen at {where[0]}:{where[1]}: {error.strerror}", file=sys.stderr, flush=True)
        return 1
    tell_systemd("READY=1")
    try:
        while True:
            watcher.look()
            time.sleep(JOINED if watcher.state.complete else FORMING)
    finally:
        for path in BANNERS:  # what nobody keeps up to date must not stay
            (root / path).unlink(missing_ok=True)


class Watcher:
    """The state between two looks, and the effects of a look."""

    def __init__(self, root: Path, cluster: dict, me: str, plan: str) -> None:
        self.root, self.cluster, self.me, self.plan = root, cluster, me, plan
        self.engine = engines.of(cluster)
        self.state = watch.State(console_at=time.monotonic())
        used = engines.multicast(cluster)
        self._ear = Ear(used["group"], used["port"], me, node.address(cluster, me)) if used else None
        self._notes: tuple[str, ...] = ()
        self._mending: tuple[str, ...] = ()
        self._mended_at = watch.NEVER

    def document(self) -> dict:
        """What the other nodes are told; sockets and clock are read now, members are those of the last look."""
        table = net.table(self.root)
        ports = {door.port for door in self.engine.doors(self.cluster, self.me)}
        addresses = {entry["address"] for entry in self.cluster["nodes"]}
        return {
            "node": self.me,
            "cluster": self.cluster["cluster"],
            "plan": self.plan,
            "engine": engines.version(self.cluster),
            "time": time.time(),
            "listening": sorted(ports & table.listening),
            "serving": sorted(
                {own for own, there, _far in table.connections if own in ports and there in addresses}
            ),
            "connections": sorted(c for c in table.connections if c[1] in addresses),
            "members": self.state.members or {},
            "heard": self._ear.heard() if self._ear else None,
        }

    def look(self) -> None:
        """One look, and whatever is to be said of it."""
        if self._ear:
            self._ear.turn()
        look = Look(self.cluster, self.me, self.root)
        members = membership.seen(self.cluster, look, self.plan)
        self.state, say = watch.step(self.state, time.monotonic(), members, self.plan)
        told = self.state.members or {}
        notes = engines.notes(self.cluster, self.root)
        if say.changed or notes != self._notes:  # first, so that whoever reads the line finds the banner to agree
            self._notes = notes
            show(self.root, banner.text(self.cluster, self.me, self.plan, told, notes))
        for line in say.journal:
            print(line, flush=True)
        for line in say.console:
            consoles.announce(line, self.root)
        status = "joined {}/{}".format(*watch.count(told))
        tell_systemd(f"WATCHDOG=1\nSTATUS={'; '.join(filter(None, (status, watch.missing(told))))}")
        if any(members.values()):
            self._mend(look)

    def _mend(self, look: Look) -> None:
        """Restart what its peers cannot reach again by themselves, if two looks in a row say so."""
        units = tuple(self.engine.mend(self.cluster, look))
        agreed = tuple(unit for unit in units if unit in self._mending)
        self._mending = units
        if agreed and time.monotonic() - self._mended_at >= MEND_AGAIN:
            self._mended_at = time.monotonic()
            print(f"restarting {', '.join(agreed)}: its peers changed under it", flush=True)
            done = run("systemctl", "--no-block", "restart", *agreed)
            if done.rc != 0:
                print(f"restarting failed: {done.err.strip()}", file=sys.stderr, flush=True)


def show(root: Path, text: str) -> None:
    """Put the banner where login prompts and ssh take it from. A full /run must not end the watch."""
    for path, content in zip(BANNERS, (banner.for_issue(text), text), strict=True):
        target = root / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part")
            part.write_text(content)
            part.replace(target)
        except OSError as error:
            print(f"{target}: {error.strerror}", file=sys.stderr, flush=True)


def tell_systemd(message: str) -> None:
    """sd_notify(3); does nothing when systemd did not start us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.sendto(message.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)
        except OSError as error:
            print(f"systemd does not listen: {error}", file=sys.stderr, flush=True)


def _leave(_signal: int, _frame: object) -> None:
    sys.exit(0)
