"""The machine in YAML that can be pasted into cluster.yaml, as a pure function of its facts.

There is no YAML library in the initramfs. Every value is a double-quoted scalar, so none can be taken for a
number or a boolean.
"""

from __future__ import annotations

from .guard import content, contents
from .model import Disk, Machine, human


def report(machine: Machine, disks: tuple[Disk, ...]) -> str:
    """One entry of ``nodes:``, which loads as it is. What one may choose instead stands in comments.

    The disks are comments on purpose: naming a disk is the consent to wipe it, so a pasted block must not
    name one by itself.
    """
    product = " ".join(filter(None, (machine.vendor, machine.product))) or "unknown machine"
    lines = [
        f"# {_plain(product)}: paste this under `nodes:` in cluster.yaml",
        '- name: "node1"  # choose one',
        "  match:",
    ]
    # The spec takes several keys only if all of them are this machine's, so one is enough and the rest offer.
    keys = [("mac", nic.mac, f"{nic.name} {nic.driver}".strip()) for nic in machine.nics if nic.physical]
    keys += [("uuid", machine.uuid, ""), ("serial", machine.serial, "")]
    keys = [key for key in keys if key[1]]
    for index, (key, value, note) in enumerate(keys):
        comment = f"  # {_plain(note)}" if note else ""
        lines.append(f"    {'# ' if index else ''}{key}: {_quoted(value)}{comment}")
    if not keys:
        lines.append('    mac: ""  # no network card, serial or UUID was found')
    if disks:
        lines.append("  # To name the disk, which allows that it is wiped, take away one `# `:")
    for disk in disks:
        lines += _disk(disk)
    return "\n".join(lines) + "\n"


def _disk(disk: Disk) -> list[str]:
    """Comment lines for one disk: what it is, and the lines that would name it."""
    kind = " ".join(filter(None, (disk.type if disk.type != "disk" else "", disk.transport, disk.model)))
    title = " ".join(filter(None, (f"{disk.path}: {human(disk.size)}", kind)))
    lines = [f"  # {_plain(title)}: {content(disk)}: {_plain(contents(disk))}"]
    by_path = next((link for link in disk.links if "/by-path/" in link), "")
    names = (("serial", disk.serial), ("wwn", disk.wwn), ("path", by_path))
    if disk.type == "disk":
        lines += [f"  # disk: {{{key}: {_quoted(value)}}}" for key, value in names if value]
    return lines


def _quoted(value: str) -> str:
    """A YAML double-quoted scalar in ASCII; JSON's is not one beyond the BMP (it uses surrogate pairs)."""
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if 0x20 <= code < 0x7F:
        return "\\" + character if character in '"\\' else character
    return f"\\U{code:08x}"


def _plain(text: str) -> str:
    """Text for a comment: one line of printable characters, whatever a device claims to be called."""
    return "".join(character if character.isprintable() else "?" for character in text)
