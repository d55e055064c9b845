"""What a person sees while the builder works: steps, progress bars and results, all on standard error.

Standard output is left for the one thing a command was asked for (a path, a table, JSON), so that it can
be piped. Bars appear on a terminal only; a log gets one line a step instead.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click
from tqdm import tqdm


def say(text: str) -> None:
    """One line for the person who waits."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    click.secho(f"warning: {text}", fg="yellow", err=True)


@contextlib.contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step that takes a while, and how long it took once it is done."""
    say(f"• {title}")
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    if took >= 1:
        say(f"  done in {took:.0f} s")


@contextlib.contextmanager
def bar(title: str, total: int, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """A progress bar over ``total`` units; yields the function that advances it."""
    with tqdm(
        total=total,
        desc=f"  {title}",
        unit=unit,
        unit_scale=True,
        unit_divisor=1024 if unit == "B" else 1000,
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        leave=False,
    ) as progress:
        yield progress.update


def ticker(title: str) -> Callable[[str], None]:
    """A line that shows the latest thing a quiet tool said; for steps whose length nobody knows."""
    if not sys.stderr.isatty():
        return lambda _line: None
    width = 100

    def show(line: str) -> None:
        text = f"  {title}: {line.strip()}"[:width]
        click.echo("\r" + text.ljust(width) + "\r", err=True, nl=False)

    return show


def human(size: int) -> str:
    """A size in bytes as people write it: 1.5 GiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
