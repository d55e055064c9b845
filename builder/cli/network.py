"""Commands about installing over the network."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import click

from builder import console
from builder.cli.root import AS_JSON, CLUSTER, OUT, main
from builder.errors import BuilderError, Exit
from builder.netboot import serve as serving
from builder.netboot.client import Client
from builder.netboot.view import table as view_table
from builder.spec.load import load

SERVE_OPTIONS = (
    click.option("--interface", help="The network interface to serve at.  [default: the one in the subnet]"),
    click.option(
        "--dhcp",
        type=click.Choice(["proxy", "full", "none"]),
        default="proxy",
        show_default=True,
        help="proxy: beside the network's DHCP server; full: be it, on an isolated network; none: neither.",
    ),
    click.option("--http-port", type=click.IntRange(1, 65535), default=serving.HTTP_PORT, show_default=True),
    click.option("--control-port", type=click.IntRange(1, 65535), default=serving.CONTROL_PORT, show_default=True),
)


@main.command()
@CLUSTER
@OUT
@click.option("--print-config", is_flag=True, help="Print what dnsmasq, nginx, GRUB and iPXE would get, and end.")
def serve(cluster: Path, out: Path, print_config: bool, **options: Any) -> None:
    """Serve the network-boot tree until you press Ctrl-C. Needs root, for the ports of DHCP and TFTP.

    \b
    A node that boots from the network is sent to its disk, until you say `builder reinstall NODE`.
    Examples:  sudo .venv/bin/builder serve cluster.yaml
               sudo .venv/bin/builder serve cluster.yaml --dhcp full --interface enp5s0
               builder serve cluster.yaml --print-config
    """
    site = serving.site_of(load(cluster), out, **options)
    if print_config:
        click.echo(serving.printed(site), nl=False)
    else:
        serving.serve(site, console.say)


for _option in reversed(SERVE_OPTIONS):
    _option(serve)


@main.command()
@CLUSTER
@click.argument("nodes", nargs=-1)
@OUT
@click.option("--all", "every", is_flag=True, help="All nodes of the spec.")
@click.option("--take-back", is_flag=True, help="The other way round: let them boot their disks.")
def reinstall(cluster: Path, nodes: tuple[str, ...], out: Path, every: bool, take_back: bool) -> None:
    """Have nodes install themselves, once, when they next boot from the network. `builder serve` has to run.

    \b
    This wipes their disks, but for a models partition that `storage.models.keep` keeps.
    Examples:  builder reinstall cluster.yaml node2
               builder reinstall cluster.yaml --all
               builder reinstall cluster.yaml node2 --take-back
    """
    model = load(cluster)
    known = [node.name for node in model.nodes]
    if every == bool(nodes):
        raise BuilderError("name the nodes, or say --all", hint=f"nodes: {', '.join(known)}", code=Exit.SPEC)
    if wrong := [name for name in nodes if name not in known]:
        raise BuilderError(f"no node {wrong[0]!r}", hint=f"nodes: {', '.join(known)}", code=Exit.SPEC)
    names = known if every else list(dict.fromkeys(nodes))
    client = Client(serving.state_of(model, out))
    if take_back:
        client.take_back(names)
        click.echo(f"boot their disks: {', '.join(names)}")
    else:
        client.order(names)
        click.echo(f"install themselves at their next boot from the network: {', '.join(names)}")
        click.echo(f"next    start them, and  builder watch {cluster}")


@main.command()
@CLUSTER
@OUT
@click.option("--once", is_flag=True, help="Print the table once, and end.")
@AS_JSON
def watch(cluster: Path, out: Path, once: bool, as_json: bool) -> None:
    """Watch the nodes install themselves: a live table, failures first. Ends with Ctrl-C.

    \b
    Example:  builder watch cluster.yaml
    """
    client = Client(serving.state_of(load(cluster), out))
    if as_json:
        click.echo(json.dumps(client.state(), indent=2))
        return
    while True:
        width = shutil.get_terminal_size((120, 24)).columns
        text = view_table(client.state(), width if sys.stdout.isatty() else 10_000)
        if once:
            click.echo(text)
            return
        if sys.stdout.isatty():
            click.clear()
        click.echo(text)
        time.sleep(2)
