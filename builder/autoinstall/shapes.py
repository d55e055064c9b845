"""Shapes of data: what a value may be, all the way down. Ubuntu's schema stops at the first level or so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Group:
    """A mapping of known keys and no others; ``required`` must be there, ``optional`` may."""

    required: Mapping[str, Shape] = field(default_factory=dict)
    optional: Mapping[str, Shape] = field(default_factory=dict)


@dataclass(frozen=True)
class Named:
    """A mapping of any names to one shape."""

    each: Shape


@dataclass(frozen=True)
class Many:
    """A list of one shape."""

    each: Shape


@dataclass(frozen=True)
class OneOf:
    """One of these very values."""

    values: tuple[str | int | bool | None, ...]


@dataclass(frozen=True)
class Anything:
    """Not judged here."""


Shape = Group | Named | Many | OneOf | Anything | type
ANYTHING = Anything()
NULL = OneOf((None,))

_WORDS = {str: "text", int: "a whole number", bool: "true or false", dict: "a group of keys", list: "a list"}


def complaints(value: Any, shape: Shape, path: str) -> Iterator[tuple[str, str]]:
    """(path, what is wrong) of every value that is not of its shape. None is quoted: it may be a secret."""
    match shape:
        case Anything():
            return
        case Group():
            yield from _group(value, shape, path)
        case Named(each):
            if type(value) is not dict:
                yield path, _must_be(dict)
                return
            for key, inner in value.items():
                yield from complaints(inner, each, f"{path}.{key}")
        case Many(each):
            if type(value) is not list:
                yield path, _must_be(list)
                return
            for index, inner in enumerate(value):
                yield from complaints(inner, each, f"{path}[{index}]")
        case OneOf(values):
            # 1 == True in Python, and not in YAML.
            if not any(type(value) is type(one) and value == one for one in values):
                yield path, f"must be {' or '.join('null' if one is None else str(one) for one in values)}"
        case _:
            if type(value) is not shape:
                yield path, _must_be(shape)


def _group(value: Any, shape: Group, path: str) -> Iterator[tuple[str, str]]:
    if type(value) is not dict:
        yield path, _must_be(dict)
        return
    known = {**shape.required, **shape.optional}
    for key, inner in value.items():
        where = f"{path}.{key}".removeprefix(".")
        if key not in known:
            yield where, f"unknown key; known here: {', '.join(known) or 'none'}"
        else:
            yield from complaints(inner, known[key], where)
    for key in shape.required:
        if key not in value:
            yield f"{path}.{key}".removeprefix("."), "is missing"


def _must_be(kind: type) -> str:
    return f"must be {_WORDS[kind]}"
