"""Ubuntu's list of install sources, with ours in it; and the check sums of what that changes. Text in, text out.

``/casper/install-sources.yaml`` is a plain list on 24.04, which takes nothing else; on 25.04 and later it may be
a mapping with ``version: 2`` and the list under ``sources`` (subiquity, ``models/source.py``). What the medium has
is kept, since the mapping says more than the list: which kernel to install.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import md5
from typing import Any

import yaml

from builder import render
from builder.errors import BuilderError, Exit

CATALOG = "/casper/install-sources.yaml"
MD5SUMS = "/md5sum.txt"


@dataclass(frozen=True)
class Source:
    """Our install source. ``path``: the topmost layer's file name below ``/casper``; the layers under it follow
    from its dots. ``size`` in bytes, of the unpacked tree: the installer's least disk follows from it.
    """

    path: str
    size: int
    name: str
    description: str
    id: str = "node"

    def entry(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "default": True,
            "variant": "server",
            "type": "fsimage-layered",
            "path": self.path,
            "size": self.size,
            "locale_support": "none",
            "name": {"en": self.name},
            "description": {"en": self.description},
        }


def add(text: str, source: Source) -> str:
    """The catalogue with our source, which becomes the only default.

    Raises BuilderError (MEDIUM) if the catalogue is not one that is known, or has a source of that id already.
    """
    data = _load(text)
    others = _sources(data)
    if source.id in [other["id"] for other in others]:
        raise BuilderError(
            f"{CATALOG} of the base ISO has a source {source.id!r} already",
            hint="this ISO was remastered before; media.base_iso takes Ubuntu's own",
            code=Exit.MEDIUM,
        )
    for other in others:
        other.pop("default", None)
    others.append(source.entry())
    return render.dump_yaml(data).decode()


def default(text: str) -> str:
    """The id of what the medium installs by default: the last that says so, else the first.

    Raises BuilderError (MEDIUM) if the catalogue is not one that is known.
    """
    sources = _sources(_load(text))
    return str([sources[0], *(source for source in sources if source.get("default"))][-1]["id"])


def refresh(sums: str, changed: Mapping[str, bytes]) -> str:
    """``/md5sum.txt`` with the sums of changed files (absolute path → content). What it does not list stays out:
    the live system reads all that is listed at every boot, and the payload has sums of its own.
    """
    lines = []
    for line in sums.splitlines(keepends=True):
        _, gap, path = line.rstrip("\n").partition("  .")
        if gap and path in changed:
            line = f"{md5(changed[path], usedforsecurity=False).hexdigest()}{gap}{path}\n"
        lines.append(line)
    return "".join(lines)


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _unknown(f"it is not YAML: {error}") from error


def _sources(data: Any) -> list[dict[str, Any]]:
    """The list inside the catalogue itself, so that a change to it is a change to the catalogue."""
    if isinstance(data, dict):
        if data.get("version") not in (1, 2):
            raise _unknown(f"its version is {data.get('version')!r}; 1 and 2 are known")
        data = data.get("sources")
    if not isinstance(data, list) or not data:
        raise _unknown("it has no list of sources")
    if not all(isinstance(source, dict) and "id" in source for source in data):
        raise _unknown("a source in it has no id")
    return data


def _unknown(why: str) -> BuilderError:
    return BuilderError(
        f"{CATALOG} of the base ISO cannot be used: {why}",
        hint="media.base_iso takes Ubuntu's live-server ISO, 24.04 or later",
        code=Exit.MEDIUM,
    )
