"""YAML text as a tree in which every value knows its line.

The parser's events are used, not its ready-made objects: so a key that is given twice is seen, a scalar keeps
the text that was written, and nesting and aliases cannot be used against us.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 20
TOO_DEEP = f"is nested more than {MAX_DEPTH} levels deep"
ODD = 0.5  # stands in for a date or a number that JSON has not; as wrong as they are wherever a value is wanted
_TAG = "tag:yaml.org,2002:"
_resolver: Any = Resolver()
_constructor: Any = SafeConstructor()


class TreeError(Exception):
    """The text is not YAML that can be read; ``line`` is 1-based."""

    def __init__(self, line: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.message = message
        self.hint = hint


@dataclass(slots=True)
class Scalar:
    """One value. ``text`` is what was written, ``value`` what YAML reads (ODD for a date, see ``kind``)."""

    line: int
    text: str
    kind: str  # str, int, float, bool, null, timestamp
    value: str | int | float | bool | None

    @property
    def noun(self) -> str:
        return "nothing" if self.kind == "null" else "text" if self.kind == "str" else self.reading

    @property
    def reading(self) -> str:
        """What YAML made of the text, in words: ``the number 24.1``."""
        if self.kind == "bool":
            return str(self.value).lower()
        if self.kind == "timestamp":
            return "a date"
        if self.as_written or self.value == ODD:
            return "a number"
        base = ""
        if self.kind == "int":
            digits = self.text.lstrip("+-").lower()
            bases = {"0x": "hexadecimal ", "0b": "binary "}
            base = bases.get(digits[:2], "octal " if digits.startswith("0") else "")
        return f"the {'base-60 ' if ':' in self.text else base}number {_short(str(self.value))}"

    @property
    def as_written(self) -> bool:
        """Whether the value is spelled like the text; ``010``, which YAML reads as 8, is not."""
        return self.kind == "str" or str(self.value) == self.text


@dataclass(slots=True)
class Sequence:
    line: int
    items: list[Value] = field(default_factory=list)
    noun = "a list"


@dataclass(slots=True)
class Mapping:
    """``twice`` holds (line, key, line of the first) of each key given again; its value is dropped."""

    line: int
    entries: dict[str, Value] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)
    twice: list[tuple[int, str, int]] = field(default_factory=list)
    odd_keys: list[tuple[int, str, str]] = field(default_factory=list)  # (line, as written, what is wrong)
    noun = "a group of keys"


Value = Scalar | Sequence | Mapping


def parse(text: str) -> Value | None:
    """The one document of a YAML text, or None when there is nothing in it. Raises TreeError."""
    try:
        events = yaml.parse(text, Loader=LOADER)
        return _Builder(events).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise TreeError(mark.line + 1 if mark else 0, *_explain(error.problem or "")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 0
        raise TreeError(line, "holds a character that is not allowed in YAML") from None


class _Builder:
    """Turns events into values."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self.events = events
        self.anchors: dict[str, Value | None] = {}  # None while the value is still open

    def document(self) -> Value | None:
        root: Value | None = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise TreeError(_line(event), "a second document begins", "one file, one cluster")
            elif isinstance(event, yaml.NodeEvent):
                root = self.value(event, 0)
        return None if isinstance(root, Scalar) and root.kind == "null" else root

    def value(self, event: yaml.Event, depth: int) -> Value:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise TreeError(line, TOO_DEEP)
        if isinstance(event, yaml.AliasEvent):
            found = self.anchors.get(event.anchor or "")
            if found is None:
                raise TreeError(line, f"*{event.anchor} is used here, but no &{event.anchor} ends before")
            return found
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor:
            self.anchors[event.anchor] = None
        made = self.fresh(event, line, depth)
        if event.anchor:
            self.anchors[event.anchor] = made
        return made

    def fresh(self, event: yaml.NodeEvent, line: int, depth: int) -> Value:
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, line)
        assert isinstance(event, yaml.CollectionStartEvent)
        if event.tag and event.tag not in ("!", f"{_TAG}seq", f"{_TAG}map"):
            raise TreeError(line, f"the tag {_name(event.tag)} has no meaning here", "leave it out")
        if isinstance(event, yaml.SequenceStartEvent):
            sequence = Sequence(line)
            while not isinstance(inner := next(self.events), yaml.SequenceEndEvent):
                sequence.items.append(self.value(inner, depth + 1))
            return sequence
        mapping = Mapping(line)
        while not isinstance(inner := next(self.events), yaml.MappingEndEvent):
            key = self.value(inner, depth + 1)
            key_line = _line(inner)
            value = self.value(next(self.events), depth + 1)
            _add(mapping, key, key_line, value)
        return mapping


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _add(mapping: Mapping, key: Value, line: int, value: Value) -> None:
    if not isinstance(key, Scalar):
        mapping.odd_keys.append((line, "?", f"{key.noun} stands where a key is wanted"))
    elif key.text == "<<" and key.kind == "str":
        mapping.odd_keys.append((line, "<<", "merge keys are not supported: write the keys out"))
    elif key.kind != "str":
        mapping.odd_keys.append((line, _short(key.text), f"unknown key, which YAML read as {key.noun}"))
    elif key.text in mapping.entries:
        mapping.twice.append((line, key.text, mapping.key_lines[key.text]))
    else:
        mapping.entries[key.text] = value
        mapping.key_lines[key.text] = line


def _scalar(event: yaml.ScalarEvent, line: int) -> Scalar:
    tag = event.tag
    if tag is None:
        implicit = event.implicit
        tag = _resolver.resolve(yaml.ScalarNode, event.value, implicit) if implicit[0] else f"{_TAG}str"
    kind = tag.removeprefix(_TAG)
    if tag == "!" or kind in ("value", "merge"):
        kind = "str"
    node = yaml.ScalarNode(tag, event.value)
    try:
        match kind:
            case "str":
                if any("\ud800" <= c <= "\udfff" or (c < " " and c not in "\n\t") for c in event.value):
                    raise TreeError(line, "holds a control character")
                return Scalar(line, event.value, kind, event.value)
            case "null":
                return Scalar(line, event.value, kind, None)
            case "bool":
                return Scalar(line, event.value, kind, bool(_constructor.construct_yaml_bool(node)))
            case "int":
                return Scalar(line, event.value, kind, int(_constructor.construct_yaml_int(node)))
            case "float":
                number = float(_constructor.construct_yaml_float(node))
                return Scalar(line, event.value, kind, number if math.isfinite(number) else ODD)
            case "timestamp":
                return Scalar(line, event.value, kind, ODD)
    except (ValueError, LookupError, OverflowError):  # looks like a number and is none: 0b_, !!int x
        return Scalar(line, event.value, kind, ODD)
    raise TreeError(line, f"the tag {_name(tag)} has no meaning here", "leave it out")


def _name(tag: str) -> str:
    return tag.replace(_TAG, "!!")


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "…"


# What libyaml says → what it means to the person who wrote the file.
_INDENT = "the indent fits nothing above, or a quote or bracket is missing"
_MEANINGS = (
    ("mapping values are not allowed", "a value holds a colon and a space", "quote it, or check the indent"),
    ("found a tab character", "a tab indents this line", "indent with spaces"),
    ("cannot start any token", "no value begins like this", "indent with spaces, not tabs; quote the value"),
    ("could not find expected ':'", "a key has no colon", "write key: value; check the indent"),
    ("did not find expected key", _INDENT, ""),
    ("expected <block end>", _INDENT, ""),
    ("did not find expected '-' indicator", "an item of a list is not indented like the others", ""),
    ("did not find expected ',' or", "a comma or a closing bracket is missing", ""),
    ("unexpected end of stream", "a quoted value never ends", "close the quote"),
)


def _explain(problem: str) -> tuple[str, str]:
    if "maximum nesting depth" in problem:  # libyaml's own limit, 1000
        return TOO_DEEP, ""
    for said, meaning, hint in _MEANINGS:
        if said in problem:
            return f"this is not YAML: {meaning}", hint
    return f"this is not YAML: {_short(problem)}", ""
