"""Commands about nodes: virtual ones under test, and real ones."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder import build, console, lock
from builder import plan as planning
from builder.cache import Cache
from builder.chat import chat
from builder.cli.root import AS_JSON, CLUSTER, OUT, main, with_cache
from builder.errors import BuilderError, Exit
from builder.spec.load import load
from builder.status import status as ask_status
from builder.status import table as status_table
from builder.verify.boottest import boot_test
from builder.verify.clusterspec import cluster_test_of
from builder.verify.clustertest import cluster_test
from builder.verify.firmware import FirmwareKind
from builder.verify.machine import MediumKind
from builder.verify.realnodes import verify as verify_nodes
from builder.verify.spec import boot_test_of


@main.command("boot-test")
@CLUSTER
@OUT
@AS_JSON
@with_cache
@click.option(
    "--iso",
    "medium_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The medium to boot.  [default: build it, or take what is built]",
)
@click.option("--node", "name", help="Which node to be.  [default: the first]")
@click.option(
    "--nodes", "count", type=click.IntRange(min=2), help="Test all of the spec's nodes together; how many."
)
@click.option("--firmware", type=click.Choice(["bios", "uefi", "secure-boot"]), default="uefi", show_default=True)
@click.option(
    "--medium",
    type=click.Choice(["cdrom", "ide-cdrom", "usb", "disk"]),
    default="cdrom",
    show_default=True,
    help="How the machine sees the medium.",
)
def boot_test_command(
    cluster: Path,
    out: Path,
    as_json: bool,
    cache: Cache,
    medium_path: Path | None,
    name: str | None,
    count: int | None,
    firmware: FirmwareKind,
    medium: MediumKind,
) -> None:
    """Install a node in a virtual machine from its medium, boot it from its disk, and check it over ssh.

    \b
    Writes report.json, junit.xml and the serial logs to <out>/<cluster>/boot-test/<node>-<firmware>/.
    Examples:  builder boot-test examples/quickstart.yaml
               builder boot-test cluster.yaml --node node2 --firmware bios --medium usb
               builder boot-test examples/llamacpp-pair.yaml --nodes 2
    """
    model = load(cluster)
    names = [node.name for node in model.nodes]
    if name is not None and name not in names:
        raise BuilderError(f"no node {name!r}", hint=f"nodes: {', '.join(names)}", code=Exit.SPEC)
    if count is not None and count != len(names):
        hint = "a cluster is joined when all of them are there; test a spec with as many nodes as you mean"
        raise BuilderError(f"{model.name} has {len(names)} nodes, not {count}", hint=hint, code=Exit.SPEC)
    iso_path = medium_path or build.build_iso(cluster, out, cache).path
    pins = lock.load(lock.path_for(cluster))
    if count is not None:
        folder = out / model.name / "boot-test" / f"all-{firmware}"
        report = cluster_test(cluster_test_of(model, pins, iso_path, folder, firmware=firmware), console.say)
    else:
        node = model.node(name or names[0])
        folder = out / model.name / "boot-test" / f"{node.name}-{firmware}"
        request = boot_test_of(model, pins, node, iso_path, folder, firmware=firmware, medium=medium)
        report = boot_test(request, console.say)
    click.echo((folder / "report.json").read_text() if as_json else report.summary())
    if not report.passed:
        raise BuilderError(f"the boot test failed; logs are in {folder}", code=Exit.BOOT)


@main.command()
@CLUSTER
@AS_JSON
def status(cluster: Path, as_json: bool) -> None:
    """Ask every node by ssh how it is: ready, joined, of this plan, its first problem. Exit code 6 if not well.

    \b
    Example:  builder status cluster.yaml
    """
    model = load(cluster)
    path = lock.path_for(cluster)
    rows = ask_status(model, planning.make(model, lock.load(path)).id if path.exists() else None)
    click.echo(json.dumps([row.as_data() for row in rows], indent=2) if as_json else status_table(rows))
    if not all(row.good for row in rows):
        raise BuilderError("not every node is well", hint="node-doctor on a node says what to do", code=Exit.BOOT)


@main.command("verify")
@CLUSTER
@OUT
@AS_JSON
@click.option("--host", "on_hosts", is_flag=True, required=True, help="On the real nodes, over ssh.")
def verify_command(cluster: Path, out: Path, as_json: bool, on_hosts: bool) -> None:
    """Go through the checklist of a cluster that runs: driver, GPU, membership, an answer, tokens per second.

    \b
    Writes report.json and junit.xml to <out>/<cluster>/verify/; exit code 6 if a point fails. Changes nothing.
    Example:  builder verify cluster.yaml --host
    """
    model = load(cluster)
    path = lock.path_for(cluster)
    report = verify_nodes(model, planning.make(model, lock.load(path)).id if path.exists() else None, console.say)
    folder = out / model.name / "verify"
    report.write(folder)
    click.echo(report.to_json() if as_json else report.summary())
    if not report.passed:
        raise BuilderError(f"not every point is fulfilled; the report is in {folder}", code=Exit.BOOT)


@main.command("chat")
@CLUSTER
@click.argument("text")
def chat_command(cluster: Path, text: str) -> None:
    """Ask the cluster for one answer, through its engine's API, from this machine.

    \b
    Example:  builder chat cluster.yaml "hello"
    """
    click.echo(chat(load(cluster), text))
