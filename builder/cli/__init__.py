"""The ``builder`` command: the root, and one module for each kind of work."""

from builder.cli import machine, media, network, nodes, spec
from builder.cli.root import main

__all__ = ["machine", "main", "media", "network", "nodes", "spec"]
