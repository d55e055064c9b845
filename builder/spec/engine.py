"""The key ``engine``: what the options of every engine have in common. The rest is each engine's own
(:mod:`builder.engines`)."""

from __future__ import annotations

from pydantic import Field

from builder.spec.section import Section


class Engine(Section):
    """What makes the nodes one cluster: a name alone, or a group with that engine's options."""

    name: str = Field(description="Which engine.", examples=["none"])
