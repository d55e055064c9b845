"""The root of the command: what the commands share."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import click

from builder import __version__, console
from builder.cache import Cache, default_root
from builder.errors import BuilderError, Exit

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
            with termination_interrupts():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            console.say("\ninterrupted; finished layers are kept, and the next build goes on from them")
            sys.exit(Exit.INTERRUPTED)


@contextlib.contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM, as of ``timeout`` and ``make``, end us like Ctrl-C does: no virtual machine is left running."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
