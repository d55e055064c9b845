"""The ``builder`` command."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from builder import __version__, against, build, console, engines, gpu, host, inspect, lock, preflight
from builder import plan as planning
from builder.cache import Cache, default_root
from builder.chat import chat
from builder.errors import BuilderError, Exit, SpecError
from builder.files import complete_or_absent, remove
from builder.media import isoimage
from builder.netboot import serve as serving
from builder.netboot.client import Client
from builder.netboot.view import table as view_table
from builder.spec.load import load
from builder.spec.schema import schema as json_schema
from builder.spec.secrets import make as make_secrets
from builder.spec.starter import starter
from builder.spec.warnings import warnings as spec_warnings
from builder.status import status as ask_status
from builder.status import table as status_table
from builder.verify.boottest import boot_test
from builder.verify.clusterspec import cluster_test_of
from builder.verify.clustertest import cluster_test
from builder.verify.firmware import FirmwareKind
from builder.verify.machine import MediumKind
from builder.verify.realnodes import verify as verify_nodes
from builder.verify.spec import boot_test_of

Command = Callable[..., Any]


class Main(click.Group):
    """The root command: an expected failure is one message and a hint, never a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except BuilderError as error:
            click.secho(f"error: {error.message}", fg="red", err=True)
            if error.hint:
                click.echo(f"hint: {error.hint}", err=True)
            sys.exit(error.code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            console.say("\ninterrupted; finished layers are kept, and the next build goes on from them")
            sys.exit(Exit.INTERRUPTED)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="builder")
def main() -> None:
    """Turn one cluster spec into install media whose nodes join on first boot.

    \b
    builder init cluster.yaml         write a commented starter
    builder validate cluster.yaml     every mistake at once, with its line
    builder plan cluster.yaml         what would be built
    builder iso cluster.yaml          build the install medium
    builder boot-test cluster.yaml    install it in a virtual machine and prove it
    builder pxe cluster.yaml          build what nodes install from over the network
    """


CLUSTER = click.argument("cluster", type=click.Path(dir_okay=False, path_type=Path))
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
OUT = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out"),
    show_default=True,
    envvar="BUILDER_OUT",
    help="Where artifacts and reports go.",
)


def with_cache(command: Command) -> Command:
    """Give a command the option --cache, and the cache."""

    @click.option(
        "--cache",
        "cache_root",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="BUILDER_CACHE",
        help="Where downloads and finished layers are kept.  [default: the user's cache folder]",
    )
    @wraps(command)
    def wrapped(*args: Any, cache_root: Path | None, **kwargs: Any) -> Any:
        return command(*args, cache=Cache((cache_root or default_root()).absolute()), **kwargs)

    return wrapped


@main.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default=Path("cluster.yaml"))
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
def init(path: Path, force: bool) -> None:
    """Write a commented starter spec, and its JSON Schema for editors beside it.

    \b
    Example:  builder init lab.yaml
    """
    if path.exists() and not force:
        raise BuilderError(f"{path} is already there", hint="--force overwrites it", code=Exit.SPEC)
    schema_path = path.with_name("cluster.schema.json")
    for target, text in (
        (schema_path, json.dumps(json_schema(), indent=2) + "\n"),
        (path, starter(path.stem, schema_path.name)),
    ):
        with complete_or_absent(target, step=f"writing {target}") as part:
            part.write_text(text)
    console.say(f"wrote {path} and {schema_path}; next: edit it, then  builder validate {path}")


@main.command()
def schema() -> None:
    """Print the JSON Schema of a cluster spec.

    \b
    Example:  builder schema > cluster.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
@CLUSTER
@AS_JSON
def validate(cluster: Path, as_json: bool) -> None:
    """Check a spec: all mistakes at once, each with its line, path and mend. Exit code 2 if there is one.

    \b
    Example:  builder validate examples/quickstart.yaml
    """
    try:
        model = load(cluster)
        planning.make(model, None)
    except SpecError as error:
        if not as_json:
            raise
        found = [{"line": m.line, "path": m.path, "message": m.message, "hint": m.hint} for m in error.mistakes]
        click.echo(json.dumps({"valid": False, "mistakes": found}, indent=2))
        sys.exit(Exit.SPEC)
    warnings = spec_warnings(model)
    path = lock.path_for(cluster)
    if path.exists():
        fits = preflight.check(model, lock.load(path))
        if fits.mistakes:
            raise SpecError(str(cluster), fits.mistakes)
        warnings = (*warnings, *fits.warnings)
    if as_json:
        click.echo(json.dumps({"valid": True, "warnings": list(warnings)}, indent=2))
        return
    for warning in warnings:
        console.warn(warning)
    click.echo(f"{cluster}: {len(model.nodes)} nodes, no mistakes")
    for line in engines.of(model).advice(model):
        click.echo(line)


@main.command()
@CLUSTER
@AS_JSON
@click.option(
    "--file", "wanted", metavar="NODE:PATH", help="Print one rendered file, e.g. node1:/etc/nftables.conf."
)
def plan(cluster: Path, as_json: bool, wanted: str | None) -> None:
    """Show what would be built, without building: no network, no root, no process.

    \b
    Examples:  builder plan examples/quickstart.yaml
               builder plan examples/quickstart.yaml --file node1:/etc/nftables.conf
    """
    model = load(cluster)
    path = lock.path_for(cluster)
    pins = lock.load(path) if path.exists() else None
    if pins is not None:
        lock.require_belongs(pins, model, path)
    todo = planning.make(model, pins)
    if wanted:
        click.echo(_one_file(todo, wanted), nl=False)
    elif as_json:
        click.echo(json.dumps({"id": todo.id, **todo.summary()}, indent=2))
    else:
        click.echo(_plan_table(todo))


def _one_file(todo: planning.Plan, wanted: str) -> bytes:
    node, _, path = wanted.partition(":")
    if node not in todo.seeds:
        raise BuilderError(f"no node {node!r}", hint=f"nodes: {', '.join(todo.seeds)}", code=Exit.SPEC)
    files = todo.files(node)
    if path not in files:
        raise BuilderError(f"no rendered file {path!r}", hint="files: " + " ".join(sorted(files)), code=Exit.SPEC)
    return files[path]


def _plan_table(todo: planning.Plan) -> str:
    target, models = todo.target, todo.models
    lines = [
        f"cluster   {todo.cluster.name}: {len(todo.cluster.nodes)} nodes, {target.name} {target.codename}",
        f"plan      {todo.id or 'not locked yet: packages are decided by  builder lock, or by the first build'}",
        "layers",
    ]
    lines += [f"  {layer.name:8} {layer.file:24} {layer.digest[:16]}" for layer in todo.layers]
    if todo.lock:
        size = console.human(sum(package.size for package in todo.lock.packages))
        lines += ["inputs", f"  {len(todo.lock.packages)} packages, {size}"]
        lines += [f"  model {model.name}, {console.human(model.size)}, {model.sha256[:16]}" for model in models]
    if gpus := gpu.stack_of(todo.cluster):
        cuda = f", {gpus.cuda} for engines" if gpus.cuda else ""
        lines.append(f"gpu       {gpus.count} x {gpus.model}: driver {gpus.driver}, {gpus.modules} modules{cuda}")
    lines.append("nodes")
    for node in todo.cluster.nodes:
        match = " ".join(f"{key}={value}" for key, value in node.match.model_dump(exclude_none=True).items())
        lines.append(f"  {node.name:16} {node.address!s:16} {match}")
    if todo.lock:
        lines += ["room", *(f"  {row}" for row in preflight.check(todo.cluster, todo.lock).rows)]
    lines += ["media", f"  {todo.cluster.name}.iso, label {todo.cluster.volume}"]
    return "\n".join(lines)


@main.command("lock")
@CLUSTER
@click.option("--update", is_flag=True, help="Take the versions of today, whatever the lock says.")
@with_cache
def lock_command(cluster: Path, update: bool, cache: Cache) -> None:
    """Pin package versions and file digests in <CLUSTER>.lock. A build uses it, or makes one.

    \b
    Example:  builder lock cluster.yaml --update
    """
    model = load(cluster)
    with cache.locked():
        pins = build.locked(model, cluster, cache, update=update)
    click.echo(f"{lock.path_for(cluster)}: {len(pins.packages)} packages, {len(pins.models)} model files")


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
        click.echo(json.dumps({"path": str(made.folder), "plan": made.plan, "manifest": made.manifest}, indent=2))
        return
    click.echo(f"{made.folder}  (plan {made.plan[:16]}, manifest {made.manifest[:16]})")
    click.echo(f"next    sudo .venv/bin/builder serve {cluster}    serves it to the cluster's network")


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
        click.echo(inspect.table(found))
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


@main.command("secrets")
@CLUSTER
def secrets_command(cluster: Path) -> None:
    """Make the secrets that a spec names and that are not there yet. None is shown, and none is made twice.

    \b
    Example:  builder secrets cluster.yaml
    """
    for path in make_secrets(cluster):
        click.echo(f"made {path}: keep it, every later build of this cluster needs the same")


@main.command()
@AS_JSON
@click.option("--install", is_flag=True, help="Install what is missing with apt (as root, or by sudo).")
@click.option("--serve", is_flag=True, help="Look for what `builder serve` needs, too.")
def doctor(as_json: bool, install: bool, serve: bool) -> None:
    """Check this machine: which tools are there, why they are needed, which package brings them.

    \b
    Example:  builder doctor --install
    """
    tools = (*host.BUILD, *host.VERIFY, *(host.SERVE if serve else ()))
    findings = host.inspect(tools)
    if install:
        if host.install(findings, console.say) != 0:
            raise BuilderError("apt could not install the tools", hint="its own message is above", code=Exit.TOOL)
        findings = host.inspect(tools)
    if as_json:
        rows = [
            {"tool": f.tool.probe, "package": f.tool.package, "why": f.tool.why, "problem": f.problem or None}
            for f in findings
        ]
        click.echo(json.dumps(rows, indent=2))
    else:
        for f in findings:
            mark = click.style("missing" if f.problem == "missing" else "old", fg="red") if f.problem else "ok"
            click.echo(f"{mark:8} {f.tool.probe:50} {f.tool.why}")
    bad = sorted({f.tool.package for f in findings if f.problem})
    if bad:
        raise BuilderError(
            f"not fit yet: {', '.join(f'{f.tool.probe} {f.problem}' for f in findings if f.problem)}",
            hint=f"builder doctor --install, or: apt-get install {' '.join(bad)}",
            code=Exit.TOOL,
        )


@main.command()
@OUT
@with_cache
@click.option("--keep-cache", is_flag=True, help="Remove artifacts and reports only.")
def clean(out: Path, cache: Cache, keep_cache: bool) -> None:
    """Remove artifacts, reports and the cache."""
    for folder in (out,) if keep_cache else (out, cache.root):
        if folder.exists():
            console.say(f"removing {folder}")
            remove(folder)
