"""What differs on Ubuntu's live system when it came over the network: the models are on the server.

    PYTHONPATH=/cdrom/builder/live python3 -B -m installer.live

subiquity runs it when an install has failed (failed.sh): the server that ordered the install hears of it, unless a
program of ours has said why already.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from . import commands, net, payload, picked
from .console import Console, active_ttys
from .model import File, InstallError, Manifest
from .source import Medium, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .web import Web

PAYLOAD = Path("/cdrom/builder")
TOLD = Path("/run/builder/told")
LOGS = "/var/log/installer"


class Halves(Source):
    """Everything but the models on the live medium, and those on a server."""

    def __init__(self, medium: Source, server: Web, manifest: Manifest) -> None:
        self.where = f"{medium.where} and {server.where}"
        self._medium, self._server = medium, server
        self._models = frozenset(model.path for model in manifest.models)

    def manifest(self) -> bytes:
        return self._medium.manifest()

    def prove(self, manifest: Manifest, files: tuple[File, ...], progress: payload.Progress) -> None:
        there = tuple(file for file in files if file.path in self._models)
        self._server.prove(manifest, there, progress)
        self._medium.prove(manifest, tuple(file for file in files if file not in there), progress)

    def copy(
        self, file: File, target: Path, progress: Callable[[int], None] | None = None, mode: int = 0o444
    ) -> None:
        half = self._server if file.path in self._models else self._medium
        half.copy(file, target, progress, mode)


def source(console: Console, found: payload.Payload) -> Source:
    """Where the files are that an install of this live system reads."""
    medium = Medium(found.root)
    if not net.address():
        return medium
    from .web import Web  # what it loads would cost every install from a medium its time

    return Halves(medium, Web(net.address(), console.log), found.manifest)


def told() -> None:
    """The server knows why this install failed."""
    TOLD.parent.mkdir(parents=True, exist_ok=True)
    TOLD.touch()


def leave(console: Console) -> None:
    """Restart into the finished disk, without giving subiquity the time to go on."""
    console.step("done", "this order was carried out; restarting")
    commands.run(["systemctl", "reboot"], step="restarting", log=console.log)
    time.sleep(600)


def main() -> int:
    """Tell the server of a failure that none of our programs saw."""
    console = Console(active_ttys())
    if TOLD.exists():
        return 0
    listener = net.listener(console)
    disk = ""
    with suppress(InstallError):  # nothing was picked, so nothing was written
        disk = picked.read().disk
    listener.failed("ubuntu", f"Ubuntu's installer failed; its screen and {LOGS} say why", disk)
    return 0


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
