"""``builder serve``: the recipe that serves a tree on one network, until it is told to stop."""

from __future__ import annotations

import grp
import json
import os
import pwd
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from builder.console import human
from builder.errors import BuilderError
from builder.files import link_or_copy, remove
from builder.netboot import configs, control, neighbours, place, supervise, tree
from builder.netboot.configs import Dhcp, Site
from builder.netboot.place import Port
from builder.netboot.store import Store, token
from builder.netboot.supervise import Server, Watch
from builder.run import run
from builder.spec.model import Cluster

HTTP_PORT, CONTROL_PORT = 8480, 8481
_SETTLE = 15.0  # seconds for the servers to open their ports

Say = Callable[[str], None]


def site_of(
    cluster: Cluster,
    out: Path,
    *,
    interface: str | None = None,
    dhcp: Dhcp = "proxy",
    http_port: int = HTTP_PORT,
    control_port: int = CONTROL_PORT,
) -> Site:
    """How a cluster's tree is served from this host. Raises BuilderError (SPEC, MEDIUM)."""
    found = tree.read((out / cluster.name / "pxe").absolute())
    if found.cluster != cluster.name:
        raise BuilderError(f"{found.folder} is of the cluster {found.cluster}", hint="make pxe CLUSTER=…")
    taken = [IPv4Address(str(node.address)) for node in cluster.nodes if node.address != "dhcp"]
    here = place.find(cluster.network.subnet, interface, taken)
    return Site(
        cluster=cluster,
        tree=found,
        state=state_of(cluster, out),
        interface=here.interface,
        address=here.address,
        dhcp=dhcp,
        http_port=http_port,
        control_port=control_port,
        owner=_owner(found.folder),
    )


def state_of(cluster: Cluster, out: Path) -> Path:
    """The folder of what is rendered, and of what has to be remembered."""
    return (out / cluster.name / "serve").absolute()


def printed(site: Site) -> str:
    """Every configuration file, for people who run their own servers."""
    return "\n".join(f"### {site.state / name}\n{text}" for name, text in configs.rendered(site).items())


def serve(site: Site, say: Say, until: threading.Event | None = None) -> None:
    """Serve until SIGINT or SIGTERM, or until ``until`` is set. Raises BuilderError if a server cannot run."""
    over = until or _signals()
    with ExitStack() as stack:
        stack.enter_context(tree.served(site.tree.folder))
        _require_fit(site, say)
        prepare(site)
        check(site)
        store = Store(site.state / "state.json", [node.name for node in site.cluster.nodes])
        word = token(site.state / "token")
        stack.enter_context(_listening(site, control.Control(site, store, word, say)))
        log = stack.enter_context(_log(site.state / "servers.log"))
        watch = stack.enter_context(supervise.running(_servers(site), say, log))
        _wait_open(site, watch)
        stack.enter_context(_told(site))
        say(f"serving {site.cluster.name}, plan {site.tree.plan[:12]}, at {site.address} on {site.interface}")
        if site.tree.live:
            say(f"Ubuntu's installer: a machine needs {human(site.tree.live.memory)} of memory to be installed")
        say(f"the page: {site.control}/   to install a node at its next boot: builder reinstall NODE")
        while not over.wait(0.2):
            if watch.broken:
                raise watch.broken
        say("stopping")


def prepare(site: Site) -> None:
    """Render everything, and give the boot files their second names in the servers' root."""
    site.state.mkdir(parents=True, exist_ok=True)
    remove(site.boot)
    for folder in (site.boot / "grub", site.state / "tmp"):
        folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(site.tree.boot.iterdir()):
        link_or_copy(path, site.boot / path.name)
    for name, text in configs.rendered(site).items():
        (site.state / name).write_text(text)


def check(site: Site) -> None:
    """Let the servers read what is meant for them. Raises BuilderError quoting them."""
    if site.dhcp != "none":
        argv: list[str | Path] = ["dnsmasq", "--test", f"--conf-file={site.state / 'dnsmasq.conf'}"]
        run(argv, step="checking dnsmasq.conf")
    run(["nginx", "-t", "-q", *_nginx(site)], step="checking nginx.conf")


def _nginx(site: Site) -> list[str | Path]:
    # Its own prefix keeps it off the host's logs; -e, off the host's error log before the file is read.
    return ["-p", site.state, "-e", "stderr", "-c", site.state / "nginx.conf"]


def _servers(site: Site) -> list[Server]:
    servers = [Server("nginx", ["nginx", *_nginx(site)])]
    if site.dhcp != "none":
        servers.append(Server("dnsmasq", ["dnsmasq", f"--conf-file={site.state / 'dnsmasq.conf'}"]))
    return servers


def _require_fit(site: Site, say: Say) -> None:
    """All that would go wrong, before anything is started."""
    ports = [
        Port(socket.SOCK_STREAM, site.http_port, "the payload", "--http-port"),
        Port(socket.SOCK_STREAM, site.control_port, "the control service", "--control-port"),
    ]
    if site.dhcp != "none":
        ports += [Port(socket.SOCK_DGRAM, 67, "DHCP"), Port(socket.SOCK_DGRAM, 69, "TFTP")]
        if site.dhcp == "proxy":
            ports.append(Port(socket.SOCK_DGRAM, 4011, "PXE"))
    place.require_free(site.address, ports)
    if site.dhcp != "none":
        try:
            offers = neighbours.ask(site.interface)
        except OSError as error:
            raise BuilderError(
                f"asking for other DHCP servers on {site.interface}: {error.strerror}", hint="this needs root"
            ) from error
        if warning := neighbours.require_alone(offers, site.dhcp, site.interface):
            say(f"warning: {warning}")


@contextmanager
def _listening(site: Site, service: control.Control) -> Iterator[None]:
    try:
        with control.listening(service):
            yield
    except OSError as error:
        raise BuilderError(f"the control service cannot listen at {site.control}: {error.strerror}") from error


@contextmanager
def _log(path: Path) -> Iterator[Say]:
    with path.open("a", buffering=1) as file:
        yield lambda line: print(time.strftime("%H:%M:%S"), line, file=file) if not file.closed else None


@contextmanager
def _told(site: Site) -> Iterator[None]:
    """Where `builder reinstall` and `builder watch` find this service, while it runs."""
    path = site.state / "control.json"
    path.write_text(json.dumps({"url": site.control}))
    _give_to_owner(site)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _wait_open(site: Site, watch: Watch) -> None:
    """Until the payload can be had. Raises BuilderError."""
    end = time.monotonic() + _SETTLE
    while True:
        if watch.broken:
            raise watch.broken
        try:
            socket.create_connection((str(site.address), site.http_port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise BuilderError(f"nginx does not answer at {site.web}: {error}") from error
            watch.over.wait(0.05)


def _give_to_owner(site: Site) -> None:
    """What root made in a user's folder is the user's: so `builder reinstall` and `make clean` need no sudo."""
    facts = site.tree.folder.stat()
    for path in (site.state, *site.state.rglob("*")):
        # Not the boot files: they are other names of the tree's, and of the cache's.
        if path.is_dir() or path.parent == site.state:
            os.chown(path, facts.st_uid, facts.st_gid, follow_symlinks=False)


def _owner(folder: Path) -> tuple[str, str]:
    """The servers run as whoever made the tree: the user's own folders are closed to others."""
    facts = folder.stat()
    return pwd.getpwuid(facts.st_uid).pw_name, grp.getgrgid(facts.st_gid).gr_name


def _signals() -> threading.Event:
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: over.set())
    return over
