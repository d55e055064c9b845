"""Was the order that started this boot carried out before, and the report of it lost? The disk knows."""

from __future__ import annotations

from pathlib import Path

from . import commands, disk, system
from .console import Console
from .listener import Nobody
from .model import Disk, InstallError

ESP = Path("/run/builder/esp")


def out(console: Console, listener: Nobody, target: Disk) -> bool:
    """Whether the very order that started this boot was carried out, and the server has not heard of it."""
    esp = next((child.path for child in target.children if child.partlabel == "builder-esp"), "")
    if not listener.order or not esp:
        return False
    try:
        argv = ["mount", "-t", "vfat", "-o", "ro", esp, str(ESP)]
        ESP.mkdir(parents=True, exist_ok=True)
        commands.run(argv, step=f"looking at {esp}", log=console.log)
    except InstallError:
        return False  # what cannot be mounted holds no complete install
    try:
        return system.carried_out(ESP, listener.order)
    finally:
        disk.unmount(ESP, console.log)
