"""Commands about the machine that builds."""

from __future__ import annotations

import json
from pathlib import Path

import click

from builder import console, host
from builder.cache import Cache
from builder.cli.root import AS_JSON, OUT, main, with_cache
from builder.errors import BuilderError, Exit
from builder.files import remove


@main.command()
@AS_JSON
@click.option("--install", is_flag=True, help="Install what is missing with apt (as root, or by sudo).")
@click.option("--serve", is_flag=True, help="Look for what `builder serve` needs, too.")
@click.option("--test", is_flag=True, help="Look for what `make test` needs, too.")
def doctor(as_json: bool, install: bool, serve: bool, test: bool) -> None:
    """Check this machine: which tools are there, why they are needed, which package brings them.

    \b
    Example:  builder doctor --install
    """
    tools = (*host.BUILD, *host.VERIFY, *(host.SERVE if serve else ()), *(host.TEST if test else ()))
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
