"""The key ``engine``: what the options of every engine have in common. The rest is each engine's own
(:mod:`builder.engines`)."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from builder.spec.section import Section


@dataclass(frozen=True)
class LocalFile:
    """A file of the building machine that an engine's options need: its text becomes the field ``field``.

    ``key``: the key of the spec that names it; ``path``: what that says, or a default. A ``secret`` is one line,
    and no message quotes it. ``hint``: what to do if it is not there.
    """

    field: str
    key: str
    path: str
    hint: str
    secret: bool = False


class Engine(Section):
    """What makes the nodes one cluster: a name alone, or a group with that engine's options."""

    name: str = Field(description="Which engine.", examples=["none"])

    def files(self, cluster: str) -> tuple[LocalFile, ...]:
        """What it needs of the building machine; ``cluster``: the cluster's name."""
        return ()
