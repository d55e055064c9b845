"""Fixtures that several files of these tests use; each is described where it is made."""

from __future__ import annotations

from tests.integration.hublab import cache, content, server
from tests.integration.imagelab import layers
from tests.integration.nodelab import lab, usr

__all__ = ["cache", "content", "lab", "layers", "server", "usr"]
