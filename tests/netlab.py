"""A network of its own on this machine: a namespace with a bridge, for real servers and virtual machines."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from builder import host
from builder.run import Completed, run, start
from builder.verify.machine import Tap

BUILDER = Path(sys.executable).with_name("builder")
ADDRESS = "10.77.0.1"
_OPEN = 60.0  # seconds for `builder serve` to begin, on a busy machine


def require() -> None:
    """Skips the test where namespaces cannot be made, or a server is missing."""
    missing = [found.tool.probe for found in host.inspect(host.SERVE) if found.problem]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: builder doctor --serve --install")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")


@dataclass
class Net:
    """The namespace; ``bridge`` has the address :data:`ADDRESS`."""

    name: str
    bridge: str = "br0"
    taps: list[str] = field(default_factory=list)

    def argv(self, *argv: str | Path) -> list[str | Path]:
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str | Path, check: bool = True) -> Completed:
        return run(self.argv(*argv), step=f"{argv[0]} in the namespace", check=check)

    def builder(self, *argv: str | Path, check: bool = True) -> Completed:
        return self.run(BUILDER, *argv, check=check)

    def tap(self) -> Tap:
        """A new port of the bridge, for a machine."""
        name = f"tap{len(self.taps)}"
        self.taps.append(name)
        ip = ("ip", "-n", self.name)
        for argv in (
            ("tuntap", "add", "dev", name, "mode", "tap"),
            ("link", "set", name, "master", self.bridge),
            ("link", "set", name, "up"),
        ):
            run([*ip, *argv], step="plugging in a machine")
        return Tap(name, self.name)


@contextlib.contextmanager
def network(address: str = f"{ADDRESS}/24") -> Iterator[Net]:
    """Make the namespace; it goes at the end, with all that is in it."""
    net = Net(f"builder-{secrets.token_hex(3)}")
    ip = ("ip", "-n", net.name)
    run(["ip", "netns", "add", net.name], step="making a network namespace")
    try:
        for argv in (
            ("link", "set", "lo", "up"),
            ("link", "add", net.bridge, "type", "bridge", "forward_delay", "0", "stp_state", "0"),
            ("address", "add", address, "dev", net.bridge),
            # A bridge without a port has no carrier, and dnsmasq would not answer at once.
            ("link", "add", "port0", "type", "veth", "peer", "name", "port1"),
            ("link", "set", "port0", "master", net.bridge),
            ("link", "set", "port0", "up"),
            ("link", "set", "port1", "up"),
            ("link", "set", net.bridge, "up"),
        ):
            run([*ip, *argv], step="making the network")
        yield net
    finally:
        run(["ip", "netns", "del", net.name], step="taking the namespace away")


@contextlib.contextmanager
def neighbour(net: Net, address: str) -> Iterator[Net]:
    """Another machine on the network: a namespace whose ``eth0`` is cabled to the bridge."""
    other = Net(f"{net.name}-{address.rpartition('.')[2]}", bridge="eth0")
    cable = f"cable{address.rpartition('.')[2]}"
    run(["ip", "netns", "add", other.name], step="making a neighbour")
    try:
        for namespace, argv in (
            (net, ("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", other.name)),
            (net, ("link", "set", cable, "master", net.bridge)),
            (net, ("link", "set", cable, "up")),
            (other, ("link", "set", "lo", "up")),
            (other, ("link", "set", "eth0", "up")),
            (other, ("address", "add", f"{address}/24", "dev", "eth0")),
        ):
            run(["ip", "-n", namespace.name, *argv], step="plugging in a neighbour")
        yield other
    finally:
        run(["ip", "netns", "del", other.name], step="taking a neighbour away")


@contextlib.contextmanager
def dhcp(net: Net, folder: Path) -> Iterator[None]:
    """A network's own DHCP server, which knows nothing of booting: what a router at home has."""
    with neighbour(net, "10.77.0.3") as router:
        argv = ["dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--log-facility=-"]
        argv += ["--interface=eth0", "--bind-interfaces", f"--dhcp-leasefile={folder}/router-leases"]
        argv += ["--dhcp-range=10.77.0.100,10.77.0.150,255.255.255.0"]
        with (
            (folder / "router.log").open("wb") as log,
            start(router.argv(*argv), step="the router", stderr=log.fileno()) as process,
        ):
            yield
            process.terminate()


class Server:
    """A running `builder serve`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def said(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """As the kernel does when memory ends: nothing is tidied up."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serve(net: Net, spec: Path, out: Path, *options: str, log: Path) -> Iterator[Server]:
    """Run `builder serve` until the block ends; it has to end well by itself then, unless it was killed."""
    argv: Sequence[str | Path] = net.argv(BUILDER, "serve", spec, "--out", out, *options)
    with log.open("ab") as file:
        began = file.tell()
        with start(argv, step="builder serve", stdout=file.fileno(), stderr=file.fileno()) as process:
            server = Server(process, log)
            end = time.monotonic() + _OPEN
            while b"the page:" not in log.read_bytes()[began:]:
                assert process.poll() is None, server.said()
                assert time.monotonic() < end, server.said()
                time.sleep(0.05)
            yield server
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0, server.said()


def state(net: Net, spec: Path, out: Path) -> dict[str, Any]:
    """What `builder watch --json` says."""

    found: dict[str, Any] = json.loads(net.builder("watch", spec, "--out", out, "--json").stdout)
    return found


def row(net: Net, spec: Path, out: Path, node: str) -> dict[str, Any]:
    return next(one for one in state(net, spec, out)["rows"] if one["name"] == node)
