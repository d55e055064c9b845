"""Commands about media: build them, and look into one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder import build, console, inspect, lock
from builder import plan as planning
from builder.cache import Cache
from builder.cli.root import AS_JSON, CLUSTER, OUT, main, with_cache
from builder.errors import BuilderError, Exit
from builder.inspect import against, show
from builder.media import isoimage
from builder.spec.load import load


@main.command()
@CLUSTER
@OUT
@AS_JSON
@with_cache
def iso(cluster: Path, out: Path, as_json: bool, cache: Cache) -> None:
    """Build the install medium: one ISO for every node, for a USB stick or an optical drive.

    \b
    Example:  builder iso examples/quickstart.yaml
    """
    made = build.build_iso(cluster, out, cache)
    if as_json:
        data = {"path": str(made.path), "sha256": made.sha256, "size": made.size, "plan": made.plan_id}
        click.echo(json.dumps(data, indent=2))
        return
    click.echo(f"{made.path}  ({console.human(made.size)}, plan {made.plan_id[:16]})")
    click.echo(f"sha256  {made.sha256}")
    click.echo(f"next    make boot-test CLUSTER={cluster}    installs it in a virtual machine and proves it")
    click.echo(f"        sudo dd if={made.path} of=/dev/YOUR-STICK bs=4M oflag=sync status=progress")


@main.command()
@CLUSTER
@OUT
@AS_JSON
@with_cache
def pxe(cluster: Path, out: Path, as_json: bool, cache: Cache) -> None:
    """Build the network-boot tree: what nodes boot and install from over the network; `builder serve` serves it.

    \b
    Example:  builder pxe examples/quickstart.yaml
    """
    made = build.build_pxe(cluster, out, cache)
    if as_json:
        data = {"path": str(made.folder), "plan": made.plan, "manifest": made.manifest}
        click.echo(json.dumps(data | ({"memory": made.live.memory} if made.live else {}), indent=2))
        return
    click.echo(f"{made.folder}  (plan {made.plan[:16]}, manifest {made.manifest[:16]})")
    if made.live:
        click.echo(
            f"memory  {console.human(made.live.memory)} for each machine: it holds the ISO while it installs"
        )
    click.echo(f"next    sudo .venv/bin/builder serve {cluster}    serves it to the cluster's network")


@main.command("inspect")
@click.argument("medium", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@AS_JSON
@click.option(
    "--against",
    "cluster",
    metavar="CLUSTER",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Say whether it is what this spec would build now, and what differs.",
)
def inspect_command(medium: Path, as_json: bool, cluster: Path | None) -> None:
    """Say what an ISO, or a stick made from one, does to a machine. Exit code 5 if it is damaged, or differs.

    \b
    Reads any ISO of Ubuntu, and those of builder; boots nothing, changes nothing, needs no root for a file.
    Examples:  builder inspect out/quickstart/quickstart.iso --against examples/quickstart.yaml
               builder inspect ubuntu-24.04.3-live-server-amd64.iso
               sudo builder inspect /dev/YOUR-STICK
    """
    content = inspect.gather(isoimage.read(medium))
    found = inspect.inspect(content)
    now = against.wanted(_locked_plan(cluster)) if cluster else None
    differs = against.differences(inspect.carried(content), now) if now else ()
    if as_json:
        verdict = {"against": {"spec": str(cluster), "differences": differs}} if cluster else {}
        click.echo(json.dumps({**found.as_data(), **verdict}, indent=2))
    else:
        click.echo(show.table(found))
        if cluster:
            click.echo(against.table(str(cluster), differs))
    if found.problems:
        raise BuilderError(f"{medium} is damaged, or can never work", hint=found.problems[0], code=Exit.MEDIUM)
    if differs:
        hint = f"builder iso {cluster} makes the one that it describes"
        raise BuilderError(f"{medium} is not what {cluster} would build now", hint=hint, code=Exit.MEDIUM)


def _locked_plan(cluster: Path) -> planning.Plan:
    """The plan of a spec that has its lock. Raises BuilderError (SPEC) if it has none, or another spec's."""
    model = load(cluster)
    path = lock.path_for(cluster)
    if not path.exists():
        raise BuilderError(f"{cluster} has no lock yet", hint=f"builder lock {cluster}", code=Exit.SPEC)
    pins = lock.load(path)
    lock.require_belongs(pins, model, path)
    return planning.make(model, pins)
