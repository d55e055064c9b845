"""Commands about a spec: write one, check it, pin it, show what it comes to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from builder import build, console, engines, gpu, lock, preflight
from builder import plan as planning
from builder.cache import Cache
from builder.cli.root import AS_JSON, CLUSTER, main, with_cache
from builder.errors import BuilderError, Exit, SpecError
from builder.files import complete_or_absent
from builder.spec.load import load
from builder.spec.schema import schema as json_schema
from builder.spec.secrets import make as make_secrets
from builder.spec.starter import starter
from builder.spec.warnings import warnings as spec_warnings


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
        path = lock.path_for(cluster)
        fits = preflight.require(str(cluster), model, lock.load(path)).warnings if path.exists() else ()
    except SpecError as error:
        if not as_json:
            raise
        found = [{"line": m.line, "path": m.path, "message": m.message, "hint": m.hint} for m in error.mistakes]
        click.echo(json.dumps({"valid": False, "mistakes": found}, indent=2))
        sys.exit(Exit.SPEC)
    warnings = (*spec_warnings(model), *fits)
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


@main.command("secrets")
@CLUSTER
def secrets_command(cluster: Path) -> None:
    """Make the secrets that a spec names and that are not there yet. None is shown, and none is made twice.

    \b
    Example:  builder secrets cluster.yaml
    """
    for path in make_secrets(cluster):
        click.echo(f"made {path}: keep it, every later build of this cluster needs the same")
