"""What dnsmasq, nginx, GRUB and iPXE are told, as text. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Literal

from builder import render
from builder.errors import BuilderError, Exit
from builder.media import grubconfig
from builder.netboot.tree import Tree
from builder.spec.model import Cluster

Dhcp = Literal["proxy", "full", "none"]
Loader = Literal["ipxe", "grub"]
_TRIES = 24  # of the boot loader, 5 seconds between two
LABEL = "BUILDER-ESP"  # of the ESP that both installers make
POOL = 128  # addresses that are given to machines we do not know
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class Site:
    """Where and how a tree is served.

    ``state``: the folder for what is rendered and what happened; ``owner``: user and group of the servers.
    """

    cluster: Cluster
    tree: Tree
    state: Path
    interface: str
    address: IPv4Address
    dhcp: Dhcp
    http_port: int
    control_port: int
    owner: tuple[str, str]

    @property
    def web(self) -> str:
        """The static files."""
        return f"http://{self.address}:{self.http_port}"

    @property
    def control(self) -> str:
        return f"http://{self.address}:{self.control_port}"

    @property
    def boot(self) -> Path:
        """The root of TFTP and HTTP."""
        return self.state / "boot"


def rendered(site: Site) -> dict[str, str]:
    """Every file that is made for a site, by its path below ``state``. Raises BuilderError (SPEC)."""
    context = _context(site)
    files = {
        "nginx.conf": render.text("templates/netboot/nginx.conf.j2", context),
        "boot/grub/grub.cfg": render.text("templates/netboot/grub.cfg.j2", context),
        "boot/boot.ipxe": render.text("templates/netboot/boot.ipxe.j2", context),
    }
    if site.dhcp != "none":
        files["dnsmasq.conf"] = render.text("templates/netboot/dnsmasq.conf.j2", context)
    return files


def _context(site: Site) -> dict[str, Any]:
    subnet = site.cluster.network.subnet
    fixed = [node for node in site.cluster.nodes if node.address != "dhcp"]
    taken = {site.address, *site.cluster.network.dns, *(IPv4Address(str(node.address)) for node in fixed)}
    if site.cluster.network.gateway:
        taken.add(site.cluster.network.gateway)
    return {
        "cluster": site.cluster.name,
        "state": site.state,
        "boot": site.boot,
        "tree": site.tree.folder,
        "interface": site.interface,
        "address": site.address,
        "subnet": subnet,
        "netmask": subnet.netmask,
        "dhcp": site.dhcp,
        "pool": pool(subnet, taken) if site.dhcp == "full" else None,
        "gateway": site.cluster.network.gateway,
        "hosts": [
            {"mac": node.match.mac, "address": node.address, "name": node.name} for node in fixed if node.match.mac
        ],
        "web": site.web,
        "control": site.control,
        "http_port": site.http_port,
        "control_port": site.control_port,
        "user": site.owner[0],
        "group": site.owner[1],
        "serial": site.tree.serial,
    }


@dataclass(frozen=True)
class Pool:
    first: IPv4Address
    last: IPv4Address


def pool(subnet: IPv4Network, taken: Collection[IPv4Address]) -> Pool:
    """The longest run of free addresses, cut to :data:`POOL`, from the top. Raises BuilderError (SPEC) if there is
    none."""
    bottom, top = int(subnet.network_address) + 1, int(subnet.broadcast_address) - 1
    marks = sorted({bottom - 1, top + 1, *(int(address) for address in taken if address in subnet)})
    runs = [(low + 1, high - 1) for low, high in itertools.pairwise(marks) if high - low > 1]
    if not runs:
        raise BuilderError(
            f"{subnet} has no free address for machines that boot from the network",
            hint="give the cluster a larger subnet, or serve beside a DHCP server: --dhcp proxy",
            code=Exit.SPEC,
        )
    first, last = max(runs, key=lambda run: (min(run[1] - run[0], POOL), run[1]))
    return Pool(IPv4Address(max(first, last - POOL + 1)), IPv4Address(last))


def mac(text: str) -> str:
    """A MAC address as we write it, or an empty string for anything else: it came from the network."""
    found = text.strip().lower().replace("-", ":")
    return found if _MAC.fullmatch(found) else ""


def kernel_arguments(site: Site, order: str, card: str) -> tuple[str, ...]:
    """What the installer's kernel is told; ``card`` is the MAC that the machine booted from."""
    tree = site.tree
    network = ("ip=dhcp", f"BOOTIF=01-{card.replace(':', '-')}")
    payload = f"builder.payload={site.web}/builder"
    ours = (f"builder.server={site.control}", f"builder.order={order}")
    if tree.live is None:
        words = ("boot=builder", "builder.mode=install", *network, payload, f"builder.manifest={tree.manifest}")
        return (*words, *ours, *tree.arguments.split())
    return (
        *network,
        f"iso-url={site.web}/{tree.live.iso}",
        *grubconfig.arguments(tree.manifest, tree.arguments, seed=f"{site.control}/v1/seed/{order}/"),
        payload,
        *ours,
        f"builder.memory={-(-tree.live.memory >> 20)}",
        "panic=60",  # casper opens a shell if the ISO does not come; so it starts again, and asks again
    )


def install_script(site: Site, loader: Loader, node: str, order: str, card: str) -> str:
    """What a boot loader does for a node that is to be installed."""
    words = kernel_arguments(site, order, card)
    if loader == "ipxe":
        return "\n".join(
            (
                "#!ipxe",
                f"echo Installing {node} of {site.cluster.name}",
                "set try:int32 0",
                ":again",
                f"kernel {site.web}/vmlinuz {' '.join(words)} initrd=initramfs.img || goto wait",
                f"initrd --name initramfs.img {site.web}/initramfs.img || goto wait",
                "boot || goto wait",
                ":wait",
                "imgfree",
                "inc try",
                "sleep 5",
                f"iseq ${{try}} {_TRIES} || goto again",
                "echo It does not start; booting the next device. With Secure Boot, boot by the firmware itself.",
                "exit 1",
                "",
            )
        )
    place = f"(http,{site.address}:{site.http_port})"
    return "\n".join(
        (
            f'echo "Installing {node} of {site.cluster.name}"',
            f"linux {place}/vmlinuz {' '.join(map(grubconfig.escaped, words))}",
            f"initrd {place}/initramfs.img",
            "boot",
            "",
        )
    )


def local_script(loader: Loader, why: str) -> str:
    """What a boot loader does for every other machine: its disk, which is the firmware's next choice."""
    lines: Mapping[Loader, tuple[str, ...]] = {
        "ipxe": ("#!ipxe", f"echo {why}: booting the next device", "exit 1", ""),
        # A loader for BIOS cannot hand back, and UEFI firmware may take one that does for one that has done its
        # work, and show its setup (OVMF does). So GRUB starts the disk itself, by UEFI the one that we installed.
        "grub": (
            f'echo "{why}: booting the next device"',
            'if [ "$grub_platform" = efi ]; then',
            f"  search --no-floppy --label --set=disk {LABEL}",
            '  if [ -n "$disk" ]; then',
            "    set root=$disk",
            "    for loader in /EFI/debian/shimx64.efi /EFI/ubuntu/shimx64.efi /EFI/BOOT/BOOTX64.EFI; do",
            "      if [ -f $loader ]; then",
            "        chainloader $loader",
            "        boot",
            "      fi",
            "    done",
            "  fi",
            "  exit 1",
            "fi",
            "set root=(hd0)",
            "chainloader +1",
            "boot",
            "",
        ),
    }
    return "\n".join(lines[loader])
