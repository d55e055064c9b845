"""The picker: on Ubuntu's live system it turns one medium for all nodes into the install of this one.

    PYTHONPATH=/cdrom/builder/live python3 -B -m installer.pick

subiquity runs it as an early command, before it looks at any disk or network, and loads ``/autoinstall.yaml``
again when it has ended well. It decides as the direct installer does, and then writes the node's document there
with the disk filled in. As stored, the document names a disk that no machine has: should the picker not have
run, nothing is installed anywhere.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from . import carried, choose, commands, facts, failure, live, net, payload, picked
from .console import Console, active_ttys
from .listener import Nobody
from .model import Disk, InstallError, Manifest, Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOCUMENT = Path("/autoinstall.yaml")  # subiquity takes it before all others, and loads it again after us
EFI = Path("/sys/firmware/efi")
NOT_CHOSEN = "chosen-by-the-picker"
DISK, ESP = "disk", "esp"  # ids of storage actions

# Python's JSON is YAML too, but for a few characters that YAML does not take as they are.
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


def pick(console: Console, name: str, listener: Nobody | None = None) -> tuple[Manifest, Node] | None:
    """Decide, and write the document; ``name`` is the node that a person named, or empty.

    None if there is nothing to do: the order that started this boot was carried out before. Raises InstallError at
    the first thing that is wrong.
    """
    listener = listener or Nobody()
    console.step("payload", "looking at the medium")
    found = payload.load(live.PAYLOAD, payload.argued_digest())
    manifest = found.manifest
    on = ", ".join(sorted(found.devices)) or str(found.root)
    console.step("payload", f"{manifest.cluster}, plan {manifest.plan[:12]}, on {on}")
    node = choose.node_named(console, manifest, name) if name else choose.node(console, manifest)
    deactivate_volume_groups(console)
    target = choose.disk(console, found, node)
    if carried.out(console, listener, target):
        listener.installed(node.name, f"{node.name} was complete before, and is not made twice")
        return None
    files = payload.used_by(manifest, node)
    console.step("verify", f"{len(files)} files")
    live.source(console, found).prove(manifest, files, console.progress)
    choose.disk_again(console, found, node, target)
    listener.ask_to_write(node.name, target.path)
    console.step("document", f"{node.autoinstall} for {target.path}")
    write_document(read_document(found.root, node), target)
    picked.remember(node, target)
    return manifest, node


def deactivate_volume_groups(console: Console) -> None:
    """The live system activates every LVM volume group that it sees, and a disk in use is refused. This writes
    nothing, and LVM refuses it for volumes that something uses."""
    if any((Path(folder) / "vgchange").exists() for folder in commands.PATH.split(":")):
        with suppress(InstallError):
            argv = ["vgchange", "--activate", "n"]
            commands.run(argv, step="letting go of volume groups", log=console.log)


def read_document(root: Path, node: Node) -> dict[str, Any]:
    """The node's document as it is on the medium. Raises InstallError if there is none that can be read."""
    if not node.autoinstall:
        raise InstallError(f"the payload has no autoinstall document for {node.name}")
    try:
        document = json.loads((root / node.autoinstall).read_bytes())
    except (OSError, ValueError) as error:
        raise InstallError(f"{node.autoinstall} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise InstallError(f"{node.autoinstall} is no autoinstall document")
    return document


def write_document(document: Mapping[str, Any], target: Disk) -> None:
    """Put the finished document where subiquity loads it; there all at once, or not at all."""
    text = as_yaml(finish(document, target.path, uefi=EFI.exists()))
    part = DOCUMENT.with_name(DOCUMENT.name + ".part")
    try:
        # It holds the password's hash.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(DOCUMENT)
    except OSError as error:
        raise InstallError(f"{DOCUMENT} cannot be written: {error.strerror}") from error


def finish(document: Mapping[str, Any], disk_path: str, uefi: bool) -> dict[str, Any]:
    """The document with what only this machine knows: its disk, and where GRUB goes. Pure.

    curtin installs GRUB for the firmware that the live system was started by: for BIOS to a disk, for UEFI to an
    ESP, whichever has ``grub_device`` (curtin/commands/curthooks.py, setup_grub). Raises InstallError if the
    document is not one of ours.
    """
    storage = document.get("storage")
    if not isinstance(storage, dict):
        raise InstallError("the autoinstall document has no storage")
    actions = storage.get("config")
    if not isinstance(actions, list) or not all(isinstance(action, dict) for action in actions):
        raise InstallError("the autoinstall document has no list storage: config")
    ids = [action.get("id") for action in actions]
    for wanted in (DISK, ESP):
        if ids.count(wanted) != 1:
            raise InstallError(
                f"the autoinstall document has {ids.count(wanted)} storage actions {wanted}, not one"
            )
    if actions[ids.index(DISK)].get("match") != {"path": NOT_CHOSEN}:
        raise InstallError(f"the autoinstall document names a disk, where {NOT_CHOSEN} was expected")
    return {**document, "storage": {**storage, "config": [_finished(one, disk_path, uefi) for one in actions]}}


def _finished(action: Mapping[str, Any], disk_path: str, uefi: bool) -> dict[str, Any]:
    action = {key: value for key, value in action.items() if key != "grub_device"}
    if action.get("id") == DISK:
        action["match"] = {"path": disk_path}
    if action.get("id") == (ESP if uefi else DISK):
        action["grub_device"] = True
    return action


def as_yaml(document: Mapping[str, Any]) -> str:
    """JSON that a YAML 1.1 parser reads as the same data. Pure.

    ASCII would not do: JSON writes what lies beyond the BMP as two surrogates, which YAML does not join.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def main() -> int:
    """Pick, or say why not and what the machine is: subiquity stops when an early command ends with 1."""
    os.umask(0o022)
    console = Console(active_ttys())
    console.step("start", "picking this machine's node")
    listener = Nobody()
    try:
        listener = net.listener(console)
        chosen = pick(console, facts.kernel_argument("builder.node"), listener)
    except Exception as error:
        failure.say(console, error)
        listener.failed(console.phase, failure.reason(error), "")
        live.told()
        console.say(failure.machine(console))
        return 1
    if chosen is None:
        live.leave(console)
        return 1
    manifest, node = chosen
    listener.hand_over("ubuntu", f"Ubuntu's installer makes {node.name}")
    console.say(f"builder-picked {node.name} {manifest.plan}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
