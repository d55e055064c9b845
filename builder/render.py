"""Rendering: overlay trees become files of the target, YAML fragments become documents.

Text files are Jinja templates with undefined names forbidden. YAML is never made by text template: a
fragment is parsed first, then its leaves are rendered, then the result is dumped. A leaf that is one
expression ("{{ … }}") keeps the value's type; a leaf whose value is ``omit`` vanishes with its key, and so
does a mapping that loses all its keys.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from builder import resources

_LEAF = re.compile(r"\s*\{\{((?:(?!\{\{|\}\}).)*)\}\}\s*", re.DOTALL)  # one expression and nothing else


SECRET = 0o600  # what such a file holds is shown to nobody


@dataclass(frozen=True)
class File:
    """A file of the target: absolute ``path``, permission bits, and content (or the target of a symlink)."""

    path: str
    mode: int
    content: bytes = b""
    link: str | None = None

    @property
    def fingerprint(self) -> list[Any]:
        """What makes this file itself; goes into a layer's digest."""
        return [self.path, self.mode, self.link, hashlib.sha256(self.content).hexdigest()]


class _Omit:
    """The value that removes a key or an item."""

    def __bool__(self) -> bool:
        return False


OMIT = _Omit()


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resources.root()),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )


def text(name: str, context: Mapping[str, Any]) -> str:
    """Render one template by its path below the folder of templates, cloud-init and overlays."""
    return _environment().get_template(name).render(context)


def overlay(layer: str, context: Mapping[str, Any]) -> tuple[File, ...]:
    """The files of ``overlays/<layer>/rootfs``.

    Names ending in ``.j2`` are rendered (what renders to nothing makes no file), and one ending in ``.link``
    becomes a symbolic link to what the file says, since a Python wheel can hold no links. One ending in
    ``.secret`` (before ``.j2``) is root's alone. The rest are copied.
    """
    top = resources.root() / "overlays" / layer / "rootfs"
    return tuple(_overlay_files(top, context))


def _overlay_files(top: Path, context: Mapping[str, Any]) -> Iterator[File]:
    for path in sorted(top.rglob("*")):
        target = "/" + str(path.relative_to(top)).removesuffix(".j2").removesuffix(".link")
        secret = target.endswith(".secret")
        target = target.removesuffix(".secret")
        if path.suffix == ".link":
            yield File(target, 0o777, link=path.read_text().strip())
        elif path.is_file() and "__pycache__" not in path.parts:
            mode = SECRET if secret else 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            if path.suffix == ".j2":
                content = text(str(path.relative_to(resources.root())), context).encode()
                if not content.strip():
                    continue
            else:
                content = path.read_bytes()
            yield File(target, mode, content)


def write(file: File, tree: Path) -> None:
    """Put a rendered file into a tree, with parent folders that everyone may enter."""
    target = tree / file.path.lstrip("/")
    for parent in reversed(target.relative_to(tree).parents):
        (tree / parent).mkdir(mode=0o755, parents=True, exist_ok=True)
    if file.link is not None:
        target.symlink_to(file.link)
    else:
        target.write_bytes(file.content)
        target.chmod(file.mode)


@cache
def _fragment(name: str) -> Any:
    with (resources.root() / "cloud-init" / name).open() as file:
        return yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def document(name: str, context: Mapping[str, Any]) -> Any:
    """The data of ``cloud-init/<name>``, its leaves rendered."""
    return _render_leaves(_fragment(name), {**context, "omit": OMIT})


def _render_leaves(value: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        rendered = {key: _render_leaves(item, context) for key, item in value.items()}
        kept = {key: item for key, item in rendered.items() if item is not OMIT}
        return kept if kept or not value else OMIT
    if isinstance(value, list):
        return [item for item in (_render_leaves(item, context) for item in value) if item is not OMIT]
    if isinstance(value, str) and "{{" in value:
        whole = _LEAF.fullmatch(value)
        return _expression(whole[1])(**context) if whole else _template(value).render(context)
    return value


@cache
def _expression(source: str) -> Any:
    return _environment().compile_expression(source, undefined_to_none=False)


@cache
def _template(source: str) -> jinja2.Template:
    return _environment().from_string(source)


def dump_yaml(data: Any, *, header: str = "") -> bytes:
    """YAML text of plain data, keys in the order given."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return (header + yaml.dump(data, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)).encode()
