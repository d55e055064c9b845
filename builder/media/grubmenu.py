"""Which kernels a GRUB menu starts, with which arguments: reading ``grub.cfg`` as GRUB does. Pure.

Facts: GRUB's manual, "Writing full configuration files": words are split and quoted as a shell does, and ``;``
ends a command unless it is quoted. So ``ds=nocloud;s=…`` loses all that follows its semicolon, without a word.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

_COMMANDS = ("linux", "linuxefi")
_OPENS = re.compile(r"\s*(?:menuentry|submenu)\s+(?:\"([^\"]*)\"|'([^']*)'|(\S+))")


@dataclass(frozen=True)
class Entry:
    """One kernel line. ``titles``: its menu entry, with the submenus around it before it.

    ``arguments`` is what the kernel gets; ``lost`` is what was written on the line and does not reach it.
    """

    titles: tuple[str, ...]
    kernel: str
    arguments: tuple[str, ...]
    lost: str = ""

    @property
    def title(self) -> str:
        return " > ".join(self.titles) or "(no title)"

    def value(self, name: str) -> str | None:
        """What follows ``name=`` in the last argument of that name, as the kernel takes it."""
        found = [word.partition("=")[2] for word in self.arguments if word.startswith(f"{name}=")]
        return found[-1] if found else None


def entries(text: str) -> tuple[Entry, ...]:
    """Every kernel line of a menu, in order; what is not a kernel line is passed over."""
    return tuple(_entries(text))


def _entries(text: str) -> Iterator[Entry]:
    open_blocks: list[str | None] = []
    for line in text.replace("\\\n", " ").splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            continue
        if bare.startswith("}") and open_blocks:
            open_blocks.pop()
        title = _OPENS.match(line)
        if title or bare.endswith("{"):
            open_blocks.append(next(filter(None, title.groups()), "") if title else None)
        words = _words(bare)
        if len(words) < 2 or words[0] not in _COMMANDS:
            continue
        end = words.index(";") if ";" in words else len(words)
        titles = tuple(title for title in open_blocks if title is not None)
        yield Entry(titles, words[1], tuple(words[2:end]), " ".join(words[end + 1 :]))


def _words(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:  # a quotation that does not end; GRUB refuses such a menu
        return []
