"""`builder serve` with the real dnsmasq and nginx, in a network namespace: what it answers, what it refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.netboot import supervise
from builder.run import Completed, run, start
from tests import netlab, sites
from tests.netlab import ADDRESS, Net
from tests.netlab import Server as Serving

pytestmark = pytest.mark.tools
ROOT = Path(__file__).parents[2]
WEB, CONTROL = f"http://{ADDRESS}:8480", f"http://{ADDRESS}:8481"
BIG = os.urandom(1 << 20) * 8


@dataclass
class Lab:
    net: Net
    spec: Path
    out: Path
    log: Path

    @property
    def tree(self) -> Path:
        return self.out / "quickstart/pxe"

    @property
    def serve_folder(self) -> Path:
        return self.out / "quickstart/serve"

    def curl(self, *words: str) -> str:
        return self.net.run("curl", "--silent", "--max-time", "20", *words).stdout

    def status(self, *words: str) -> str:
        argv = ("curl", "--silent", "--max-time", "20", "--path-as-is", "--output", "/dev/null")
        return self.net.run(*argv, "--write-out", "%{http_code}", *words, check=False).stdout

    def serve(self, *options: str) -> Completed:
        """Begin to serve where it has to refuse."""
        return refusing(self.net, self.spec, self.out, *options)


def refusing(net: Net, spec: Path, out: Path, *options: str) -> Completed:
    """`builder serve` where it has to end by itself."""
    return net.run("timeout", "30", netlab.BUILDER, "serve", spec, "--out", out, *options, check=False)


@contextmanager
def made(top: Path) -> Iterator[Lab]:
    netlab.require()
    folder = top / "a folder"  # whoever has a space in a path can serve, too
    folder.mkdir()
    shutil.copytree(ROOT / "examples", folder / "examples")
    payload = {"layers/node.squashfs": BIG, "seeds/node1/user-data": b"secret"}
    sites.make_tree(folder / "out/quickstart/pxe", "quickstart", payload)
    with netlab.network() as net:
        yield Lab(net, folder / "examples/quickstart.yaml", folder / "out", folder / "serve.log")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Lab]:
    """For a test that starts its servers itself, or damages something."""
    with made(tmp_path) as lab:
        yield lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with made(tmp_path_factory.mktemp("serve")) as lab:
        yield lab


@pytest.fixture(scope="module")
def server(lab: Lab) -> Iterator[Serving]:
    with netlab.serve(lab.net, lab.spec, lab.out, "--dhcp", "full", log=lab.log) as found:
        yield found


def until(what: str, found: Callable[[], bool], limit: float = 20) -> None:
    """Wait for a condition."""
    end = time.monotonic() + limit
    while not found():
        assert time.monotonic() < end, what
        time.sleep(0.05)


# ---- another machine on the same network

ASK = """
import os, select, socket, struct, sys
from builder.netboot import neighbours
arch, vendor, ipxe = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3] == "ipxe"
ident, card = os.urandom(4), bytes.fromhex("525400770001")
packet = neighbours.discover(ident, card)[:-1]
packet = packet.replace(bytes((93, 2, 0, 7)), bytes((93, 2)) + struct.pack("!H", arch))
packet = packet.replace(bytes((60, 32)) + b"PXEClient:Arch:00007:UNDI:003016", bytes((60, len(vendor))) + vendor)
if ipxe:
    packet += bytes((175, 1, 0))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
sock.bind(("", 68))
for _ in range(5):
    sock.sendto(packet + b"\\xff", ("255.255.255.255", 67))
    if select.select([sock], [], [], 2)[0] and (offer := neighbours.parse(sock.recv(4096), ident)):
        print(offer.address, offer.boot)
        break
"""


@pytest.fixture(scope="module")
def machine(lab: Lab) -> Iterator[Net]:
    with netlab.neighbour(lab.net, "10.77.0.2") as found:
        yield found


@pytest.mark.parametrize(
    ("arch", "vendor", "kind", "boot"),
    [
        ("0", "PXEClient:Arch:00000:UNDI:002001", "rom", "grub.pxe"),
        ("7", "PXEClient:Arch:00007:UNDI:003016", "rom", "shimx64.efi"),
        ("16", "HTTPClient:Arch:00016:UNDI:003001", "rom", f"{WEB}/shimx64.efi"),
        ("0", "PXEClient:Arch:00000:UNDI:002001", "ipxe", f"{WEB}/boot.ipxe"),
        ("7", "PXEClient:Arch:00007:UNDI:003016", "ipxe", f"{WEB}/boot.ipxe"),
    ],
)
def test_every_firmware_is_told_what_to_boot(
    server: Serving, machine: Net, arch: str, vendor: str, kind: str, boot: str
) -> None:
    """And the node gets the address that the spec gives it."""
    assert machine.run(sys.executable, "-c", ASK, arch, vendor, kind).stdout.split() == ["10.77.0.11", boot]


def test_another_server_on_the_network_is_not_joined(
    lab: Lab, server: Serving, machine: Net, tmp_path: Path
) -> None:
    shutil.copytree(lab.tree, tmp_path / "other/quickstart/pxe")
    for dhcp in ("full", "proxy"):
        done = refusing(machine, lab.spec, tmp_path / "other", "--dhcp", dhcp)
        assert done.returncode == 4, done.stderr
        assert f"another PXE server answers on eth0: {ADDRESS} offers shimx64.efi" in done.stderr
        assert "hint: stop it" in done.stderr


def test_boot_files_come_by_tftp_and_the_payload_by_http_with_ranges(lab: Lab, server: Serving) -> None:
    for name in ("grub.pxe", "shimx64.efi", "grubx64.efi"):
        assert lab.curl(f"tftp://{ADDRESS}/{name}") == name
    for base in (f"tftp://{ADDRESS}", WEB):
        assert f'source "(http,{ADDRESS}:8481)/v1/boot/grub?' in lab.curl(f"{base}/grub/grub.cfg")
    assert lab.curl("--range", "3-5", f"{WEB}/vmlinuz") == "inu"
    got = lab.out / "got"
    lab.curl("--output", str(got), f"{WEB}/builder/layers/node.squashfs")
    assert got.read_bytes() == BIG
    # Nothing in the servers' root is a copy.
    for name in ("vmlinuz", "initramfs.img"):
        assert (lab.serve_folder / "boot" / name).samefile(lab.tree / "boot" / name)


def test_nothing_outside_the_tree_is_served(lab: Lab, server: Serving) -> None:
    (lab.tree / "builder/link").symlink_to("/etc/passwd")
    for path in (
        "/../state.json",
        "/builder/../tree.json",
        "/builder/../../serve/token",
        "/%2e%2e/token",
        "/builder/link",
        "/token",
        "/",
        "/builder/",
    ):
        assert lab.status(WEB + path) in ("400", "403", "404"), path
    assert lab.status("-X", "POST", f"{WEB}/builder/manifest.json") in ("403", "405")
    assert lab.status("-X", "PUT", "--data", "x", f"{WEB}/builder/x") in ("403", "405")
    for path in ("../token", "../../pxe/tree.json", "/etc/passwd"):
        assert lab.net.run("curl", "-s", f"tftp://{ADDRESS}/{path}", check=False).returncode != 0


def test_who_is_not_in_the_cluster_s_network_gets_no_seed(lab: Lab, server: Serving) -> None:
    run(["ip", "-n", lab.net.name, "address", "add", "10.99.0.1/24", "dev", "br0"], step="ip")
    assert lab.status("--interface", "10.99.0.1", f"{WEB}/builder/seeds/node1/user-data") == "403"
    assert lab.curl(f"{WEB}/builder/seeds/node1/user-data") == "secret"
    for port in (8480, 8481):  # and no other address of this host serves anything
        for address in ("10.99.0.1", "127.0.0.1"):
            assert lab.net.run("curl", "-s", f"http://{address}:{port}/", check=False).returncode == 7


def test_nodes_are_ordered_watched_and_remembered_over_a_crash(own: Lab) -> None:
    common = (own.spec, "--out", own.out)
    with netlab.serve(own.net, own.spec, own.out, "--dhcp", "full", log=own.log) as server:
        assert "node1" in own.net.builder("reinstall", own.spec, "node1", "--out", own.out).stdout
        assert netlab.row(own.net, own.spec, own.out, "node1")["health"] == "waiting"
        server.kill()
    done = own.net.builder("watch", *common, "--once", check=False)
    assert done.returncode == 4 and "hint: is it running?" in done.stderr
    with netlab.serve(own.net, own.spec, own.out, "--dhcp", "full", log=own.log):
        assert "builder.order=" in own.curl(f"{CONTROL}/v1/boot/ipxe?mac=52:54:00:77:00:01")
        table = own.net.builder("watch", *common, "--once").stdout
        assert "node1 working   loading" in table and "node2 idle" in table
        own.net.builder("reinstall", own.spec, "--all", "--take-back", "--out", own.out)
        assert "builder.order=" not in own.curl(f"{CONTROL}/v1/boot/ipxe?mac=52:54:00:77:00:01")
    done = own.net.builder("watch", *common, "--once", check=False)
    assert done.returncode == 4 and "no server serves this cluster" in done.stderr


def test_a_server_that_dies_is_started_again(lab: Lab, server: Serving) -> None:
    before = int((lab.serve_folder / "nginx.pid").read_text())
    os.kill(before, signal.SIGKILL)
    until("nginx is back", lambda: "nginx ended with -9; starting it again" in server.said())
    until("it serves", lambda: lab.status(f"{WEB}/vmlinuz") == "200")


def test_a_server_that_cannot_run_is_given_up_with_what_it_said(tmp_path: Path) -> None:
    said: list[str] = []
    broken = supervise.Server("broken", ["sh", "-c", "echo no such certificate; exit 3"])
    with supervise.running([broken], said.append, lambda _line: None) as watch:
        until("it is given up", lambda: watch.broken is not None)
    assert watch.broken is not None
    assert "running broken failed" in watch.broken.message and "no such certificate" in watch.broken.message
    assert said == ["broken ended with 3; starting it again"] * 2


def test_all_of_it_ends_together(own: Lab) -> None:
    with netlab.serve(own.net, own.spec, own.out, "--dhcp", "full", log=own.log):
        pids = [int((own.serve_folder / f"{name}.pid").read_text()) for name in ("nginx", "dnsmasq")]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not (own.serve_folder / "control.json").exists()


def refused(done: Completed, code: int, message: str, hint: str) -> None:
    assert done.returncode == code, done.stderr
    assert message in done.stderr and hint in done.stderr
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("error:") for line in done.stderr.splitlines()) == 1


def test_what_is_wrong_is_said_once_with_a_hint(own: Lab) -> None:
    with listening(own.net, 8480):
        refused(
            own.serve("--dhcp", "full"),
            4,
            f"tcp port 8480 at {ADDRESS}, for the payload, is in use",
            "--http-port",
        )
    refused(own.serve("--interface", "lo"), 2, "lo has no address in the cluster's network", "ip address add")
    refused(own.serve("--interface", "eth9"), 2, "this host has no interface eth9", "it has br0")
    run(["ip", "-n", own.net.name, "address", "add", "10.77.0.2/24", "dev", "port0"], step="ip")
    refused(own.serve(), 2, "this host is in 10.77.0.0/24 more than once", "--interface")
    refused(own.serve("--interface", "nosuch"), 2, "no interface nosuch", "br0")
    run(["ip", "-n", own.net.name, "address", "del", "10.77.0.2/24", "dev", "port0"], step="ip")

    def without(*rights: str) -> Completed:
        caps = ",".join(f"-{right}" for right in rights)
        argv = ("setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}", netlab.BUILDER, "serve", own.spec)
        return own.net.run(*argv, "--out", own.out, "--dhcp", "full", check=False)

    refused(without("net_bind_service"), 4, f"udp port 67 at {ADDRESS}, for DHCP, may not be used", "sudo")
    for closed in (own.tree.with_name("pxe.lock"), own.tree / "tree.json"):
        closed.chmod(0)
        refused(without("dac_override", "dac_read_search"), 4, f"{closed} is closed to this user", "sudo")
        closed.chmod(0o644)
    (own.tree / "builder/layers/node.squashfs").write_bytes(b"short")
    refused(own.serve(), 5, "builder/layers/node.squashfs has 5 bytes, not 8388608", "make pxe")
    (own.tree / "builder/layers/node.squashfs").unlink()
    refused(own.serve(), 5, "builder/layers/node.squashfs is missing", "make pxe")
    (own.tree / "tree.json").write_text("{")
    refused(own.serve(), 5, "the network-boot tree is damaged", "make pxe")
    (own.tree / "tree.json").unlink()
    refused(own.serve(), 5, "there is no network-boot tree", "make pxe")


@contextmanager
def listening(net: Net, port: int) -> Iterator[None]:
    """Somebody else's server."""
    code = f"import socket,time; s=socket.create_server(('{ADDRESS}',{port})); print(flush=True); time.sleep(99)"
    with start(net.argv(sys.executable, "-c", code), step="listening", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.kill()


def test_a_tree_that_is_served_is_not_changed_nor_served_twice(lab: Lab, server: Serving) -> None:
    refused(lab.serve("--dhcp", "full"), 4, "is being made, or served already", "one at a time")


def test_the_configuration_is_printed_for_other_servers(own: Lab) -> None:
    text = own.net.builder("serve", own.spec, "--out", own.out, "--print-config").stdout
    for wanted in ("dhcp-range=10.77.0.0,proxy", f"listen {ADDRESS}:8480;", "smbios", "#!ipxe", "dnsmasq.conf"):
        assert wanted in text
    assert not own.serve_folder.exists()
    (own.out / "p.conf").write_text(text.partition("dnsmasq.conf\n")[2].partition("### ")[0])
    own.net.run("dnsmasq", "--test", f"--conf-file={own.out / 'p.conf'}")
