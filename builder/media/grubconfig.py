r"""Ubuntu's boot menu, made ours: text in, text out; pure.

The stock menu is kept, word for word, but for three things. What starts the live system goes into a submenu,
and there gets the installer that asks; before it come entries of ours that install unattended, with the same
kernels; and the countdown is ours. Nothing but the default entry writes to a disk without being asked.

Arguments go before ``---``: what follows it is carried over to the installed system's own menu. A ``;`` ends a
command in GRUB, so ``ds=nocloud;s=…`` needs a backslash, or all that follows is lost and the result is an
interactive boot.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from builder import render
from builder.autoinstall import LIVE
from builder.errors import BuilderError, Exit
from builder.nodefacts import Console

GRUB_CFG = "/boot/grub/grub.cfg"
LOOPBACK_CFG = "/boot/grub/loopback.cfg"
BY_HAND = f"{LIVE}/by-hand.yaml"

_BEGIN = "# builder: from here to the line that ends this, the cluster's own entries"
_END = "# builder: what follows is Ubuntu's"
_CLOSE = "} # builder"
_KERNEL = re.compile(r"^(\s*linux(?:16|efi)?\s+(\S*/casper/(\S*)vmlinuz\S*))(.*)$")
_BY_HAND = f"subiquity.autoinstallpath={BY_HAND}"


@dataclass(frozen=True)
class Menu:
    """What our entries say. ``plan``: the plan's id; ``countdown`` in seconds; ``serial``: None for no port.

    ``arguments``: of every kernel that installs, as the kernel is to see them. With ``hwe`` the default is the
    medium's newer kernel, if it has one.
    """

    cluster: str
    plan: str
    nodes: tuple[str, ...]
    countdown: int
    serial: Console | None
    arguments: tuple[str, ...]
    hwe: bool = False


@dataclass(frozen=True)
class Entry:
    """A stock entry that starts a kernel of ``/casper``. ``flavour``: ``generic``, or ``hwe``, …"""

    title: str
    body: tuple[str, ...]
    flavour: str


def arguments(manifest_sha256: str, consoles: str, seed: str = f"{LIVE}/") -> tuple[str, ...]:
    """What a kernel needs to install unattended; ``consoles`` as ``Plan.kernel_arguments`` has them; ``seed``:
    where the live system's NoCloud seed is, with the slash at its end."""
    return (
        "autoinstall",
        f"ds=nocloud;s={seed}",
        f"builder.manifest={manifest_sha256}",
        # Else curtin names no partition, and our guard would not know its own disk again (autoinstall/storage.py).
        "subiquity-storage-version=2",
        *consoles.split(),
    )


def patch(text: str, menu: Menu, *, loopback: bool = False) -> str:
    """The menu of the medium, or with ``loopback`` that for an ISO started as a file by another GRUB.

    Patching twice changes nothing. Raises BuilderError (MEDIUM), saying what was found, if nothing in ``text``
    starts a kernel in a way that is known.
    """
    name = LOOPBACK_CFG if loopback else GRUB_CFG
    before, entries, after = _split(_stock(text), name)
    first = next((e for e in entries if menu.hwe and e.flavour == "hwe"), entries[0])
    kernels = {entry.flavour: entry for entry in (first, *entries)} | {first.flavour: first}
    context = {
        "begin": _BEGIN,
        "end": _END,
        "loopback": loopback,
        "vendor": "ubuntu",
        "countdown": menu.countdown,
        "serial": menu.serial,
        "plan": menu.plan,
        "cluster": menu.cluster,
        "installs": [
            {
                "id": "install" if entry is first else f"install-{entry.flavour}",
                "suffix": "" if entry is first else f", {entry.flavour} kernel",
                "body": "\n".join(_with(entry.body, menu.arguments)),
            }
            for entry in kernels.values()
        ],
        "nodes": [
            {"name": node, "body": "\n".join(_with(first.body, (*menu.arguments, f"builder.node={node}")))}
            for node in menu.nodes
        ],
    }
    ours = render.text("templates/grub-ubuntu.cfg.j2", context)
    stock = [line for entry in entries for line in (entry.title, *_with(entry.body, (_BY_HAND,)), "}")]
    return "\n".join([*before, *ours.rstrip("\n").split("\n"), *stock, _CLOSE, *after]) + "\n"


def with_arguments(line: str, wanted: Sequence[str]) -> str:
    """A ``linux`` line of GRUB with arguments before ``---``, which is added if it is not there.

    What the line has already is not added again.
    """
    match = _KERNEL.match(line)
    assert match, line
    own, _, carried = f" {match[4]} ".partition(" --- ")
    words = own.split()
    words += [word for word in map(escaped, wanted) if word not in words]
    return " ".join([match[1], *words, "---", *carried.split()])


def escaped(argument: str) -> str:
    """A kernel argument as a word of GRUB's shell."""
    return re.sub(r"""([\\;&|<>{}$'"#\s])""", r"\\\1", argument)


def _with(body: Sequence[str], wanted: Sequence[str]) -> list[str]:
    return [with_arguments(line, wanted) if _KERNEL.match(line) else line for line in body]


def _stock(text: str) -> list[str]:
    """The lines of a menu without what an earlier patch put in."""
    kept: list[str] = []
    ours = False
    for line in text.splitlines():
        if line == _BEGIN:
            ours = True
        elif line == _END:
            ours = False
        elif not ours and line != _CLOSE:
            kept.append(line.replace(f" {_BY_HAND}", ""))
    return kept


def _split(lines: Sequence[str], name: str) -> tuple[list[str], list[Entry], list[str]]:
    """What is before the first entry that starts a kernel of ``/casper``, those entries, and the rest."""
    before: list[str] = []
    entries: list[Entry] = []
    after: list[str] = []
    for block in _blocks(lines):
        kernels = [match for line in block if (match := _KERNEL.match(line))]
        if not kernels:
            (after if entries else before).extend(block)
        elif len(block) < 3 or len(kernels) > 1:
            raise _unknown(lines, name, f"this starts a kernel in a way that is not known: {' '.join(block)!r}")
        else:
            entries.append(Entry(block[0], tuple(block[1:-1]), kernels[0][3].rstrip("-") or "generic"))
    if not entries:
        raise _unknown(lines, name, "nothing here starts /casper/vmlinuz")
    return [line for line in before if not _is_countdown(line)], entries, after


def _is_countdown(line: str) -> bool:
    return re.match(r"set\s+(timeout|timeout_style|default)=", line) is not None


def _blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """A ``menuentry`` at the top level with its braces, or one line of anything else.

    An entry inside ``if`` is not at the top level: it cannot be moved out of its condition.
    """
    block: list[str] = []
    depth = conditions = 0
    for line in lines:
        words = line.split()
        if not block:
            conditions += words[:1] == ["if"]
            conditions -= words[:1] == ["fi"]
        if block or (words[:1] == ["menuentry"] and line.rstrip().endswith("{") and not conditions):
            block.append(line)
            depth += line.count("{") - line.count("}")
            if depth <= 0:
                yield block
                block = []
        else:
            yield [line]
    if block:
        yield from ([line] for line in block)


def _unknown(lines: Sequence[str], name: str, why: str) -> BuilderError:
    found = [line.strip() for line in lines if re.match(r"\s*(menuentry|submenu|linux)", line)]
    listed = "\n".join(f"  | {line}" for line in found[:12]) or "  | (neither an entry nor a kernel)"
    return BuilderError(
        f"{name} of the base ISO: {why}\n{listed}",
        hint="media.base_iso takes Ubuntu's live-server ISO, 24.04 or later",
        code=Exit.MEDIUM,
    )
