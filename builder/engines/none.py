"""No engine: nodes that are installed, guarded and proven, and left to their owner."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from builder.engines.kind import Kind, Minimum
from builder.spec.engine import Engine


class NoEngine(Engine):
    """Nodes without an engine."""

    name: Literal["none"] = Field("none", description="No engine.", examples=["none"])


KIND = Kind(
    options=NoEngine,
    part=lambda _cluster: None,
    formats=(),
    ports=lambda _cluster: (),
    facts=lambda _cluster, _files: {},
    check=lambda _cluster, _files: (),
    minimum=lambda _cluster, _files: Minimum(),
    trial=lambda _cluster: None,
)
