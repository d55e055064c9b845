"""What the picker chose, kept on the live system until the late command."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .model import Disk, InstallError, Node

PATH = Path("/run/builder/picked.json")


@dataclass(frozen=True)
class Picked:
    """The node's name, its disk, and the bytes of the disk's logical sectors."""

    node: str
    disk: str
    sector: int


def remember(node: Node, target: Disk) -> None:
    """Keep what was chosen."""
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(asdict(Picked(node.name, target.path, target.sector))))


def read() -> Picked:
    """Raises InstallError if the picker has not run."""
    try:
        raw = json.loads(PATH.read_bytes())
        return Picked(raw["node"], raw["disk"], raw["sector"])
    except (OSError, ValueError, KeyError) as error:
        raise InstallError(f"the picker left no {PATH}, so nobody knows which node this is") from error
