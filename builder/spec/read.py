"""From the YAML tree to the model, one value at a time, so that one wrong value hides no other.

What cannot be read is left blank in the result: its default, or None where a value is required. Whoever looks
at such a draft also gets the paths that are wrong.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from builder.engines import ENGINES
from builder.errors import Mistake
from builder.spec.engine import Engine
from builder.spec.model import Cluster
from builder.spec.rules import HASH_HINT, NotTextError
from builder.spec.section import Section
from builder.spec.sizes import RuleError
from builder.spec.slots import Slot, places, slots
from builder.spec.tree import Mapping, Scalar, Sequence, Value

Keys = tuple[str | int, ...]
S = TypeVar("S", bound=Section)
_BLANK: Any = object()

# Values under these rules are never quoted in a message.
SECRET_RULES = ("password_hash", "public_key", "http", "archive", "variable")


@dataclass
class Reader:
    """Collects the mistakes while values are read. ``bad`` are their paths."""

    mistakes: list[Mistake] = field(default_factory=list)
    bad: set[Keys] = field(default_factory=set)

    def note(self, line: int, path: Keys, message: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(line, dotted(path), message, hint))
        self.bad.add(path)

    def cluster(self, root: Value) -> Cluster:
        return self.section(Cluster, root, ())

    def section(self, cls: type[S], value: Value, path: Keys) -> S:
        """Read a group of keys; the result is a draft if anything was noted meanwhile."""
        before = len(self.mistakes)
        if issubclass(cls, Engine):
            options, value = self.engine(value, path)
            cls = cast("type[S]", options)
        if cls.short and isinstance(value, Scalar):
            key = cls.short(value.text)
            value = Mapping(value.line, {key: value}, {key: value.line})
        if not isinstance(value, Mapping):
            hint = f"its keys are: {', '.join(slots(cls))}"
            self.note(value.line, path, f"must be a group of keys, not {value.noun}", hint)
            return _blank(cls)
        known = slots(cls)
        self.odd_keys(value, path)
        meant = self.unknown_keys(cls, value, path)
        values: dict[str, Any] = {}
        for key, slot in known.items():
            found = value.entries.get(key)
            if found is None:
                other = cls.unless.get(key)
                required = slot.required or (other is not None and other not in value.entries.keys() | meant)
                if required and key not in meant:
                    self.note(value.line, (*path, key), "is missing", f"for example: {key}: {slot.example}")
                continue
            read = self.key(slot, found, (*path, key), value.key_lines[key])
            if read is not _BLANK:
                values[slot.attribute] = read
        if cls.choice:
            given = {key for key, entry in value.entries.items() if getattr(entry, "kind", "") != "null"}
            if complaint := cls.choice.complaint(given | meant):
                self.note(value.line, path, complaint)
            else:
                self.lonely_keys(cls, value, given | meant, path)
        if len(self.mistakes) == before:
            return cls(**values)
        return _blank(cls, **values)

    def engine(self, value: Value, path: Keys) -> tuple[type[Engine], Value]:
        """The options of the engine that is named; ``engine: NAME`` is short for ``engine: {name: NAME}``."""
        nothing = ENGINES["none"].options
        if isinstance(value, Scalar) and value.kind != "null":
            value = Mapping(value.line, {"name": value}, {"name": value.line})
        if not isinstance(value, Mapping):
            return nothing, value
        name = value.entries.get("name")
        if isinstance(name, Scalar) and name.text in ENGINES:
            return ENGINES[name.text].options, value
        known = f"known: {', '.join(ENGINES)}"
        if isinstance(name, Scalar):
            near = difflib.get_close_matches(name.text.lower(), ENGINES, n=1)
            hint = f"did you mean {near[0]}?" if near else known
            self.note(name.line, (*path, "name"), f"no engine is called {name.text}", hint)
        else:
            self.note(value.line, (*path, "name"), "is missing", known)
        return nothing, Mapping(value.line)

    def lonely_keys(self, cls: type[Section], value: Mapping, given: set[str], path: Keys) -> None:
        """Note every key that makes no sense beside the one that was chosen."""
        for key, partners in cls.only_with.items():
            if key in given and not given.intersection(partners):
                line = value.key_lines.get(key, value.line)
                self.note(line, (*path, key), f"goes with {' or '.join(partners)} only", "leave it out")

    def odd_keys(self, value: Mapping, path: Keys) -> None:
        for line, key, first in value.twice:
            self.note(line, (*path, key), f"is given twice, first on line {first}")
        for line, key, message in value.odd_keys:
            self.note(line, (*path, key), message)

    def unknown_keys(self, cls: type[Section], value: Mapping, path: Keys) -> set[str]:
        """Note every key that is not known; returns the known ones that were probably meant."""
        known = slots(cls)
        meant = set()
        for key in value.entries:
            if key in known:
                continue
            line = value.key_lines[key]
            if key.lower() in ("password", "passwd", "plain_text_passwd"):
                message = "a password must not stand here: the medium can be read by anyone"
                self.note(line, (*path, key), message, f"use access.password_hash; {HASH_HINT}")
                continue
            if key == "passphrase":
                message = "a passphrase must not stand here: the spec is no place for secrets"
                self.note(line, (*path, key), message, "write it in a file; see storage.luks.passphrase_file")
                continue
            if belongs := _likely(cls, key, path, known):
                meant.add(belongs[0].partition(".")[0])
                hint = f"did you mean {' or '.join(belongs)}?"
            else:
                hint = f"known here: {', '.join(known)}"
            self.note(line, (*path, key), "unknown key", hint)
        return meant

    def key(self, slot: Slot, value: Value, path: Keys, line: int) -> Any:
        """The value of one key; _BLANK if there is none to speak of."""
        if isinstance(value, Scalar) and value.kind == "null":
            if slot.nullable:
                return None
            if slot.required:
                self.note(line, path, "is empty", f"for example: {path[-1]}: {slot.example}")
            elif not slot.many and not slot.section:
                self.note(line, path, "is empty", "give a value, or leave the key out")
            return _BLANK
        if not slot.many:
            return self.one(slot, value, path)
        if not isinstance(value, Sequence):
            hint = 'begin each item with "- "' if slot.section else f"write it like {slot.example}"
            self.note(value.line, path, f"must be a list, not {value.noun}", hint)
            return _BLANK
        if slot.required and not value.items:
            self.note(line, path, "must have at least one item")
            return _BLANK
        items = (self.one(slot, item, (*path, index)) for index, item in enumerate(value.items))
        return tuple(None if item is _BLANK else item for item in items)

    def one(self, slot: Slot, value: Value, path: Keys) -> Any:
        if slot.section:
            return self.section(slot.section, value, path)
        if not isinstance(value, Scalar):
            self.note(value.line, path, f"must be a single value, not {value.noun}")
            return _BLANK
        return self.scalar(slot, value, path)

    def scalar(self, slot: Slot, value: Scalar, path: Keys) -> Any:
        if value.kind == "null":
            self.note(value.line, path, "is empty")
            return _BLANK
        read, problem = _validate(slot, value.value)
        if problem is None:
            if value.kind in ("int", "bool") and not value.as_written and value.text.lower() != value.reading:
                plain = value.reading if value.kind == "bool" else f"the plain number, like {value.value}"
                self.note(value.line, path, f"YAML read {value.text} as {value.reading}", f"write {plain}")
                return _BLANK
            return read
        if value.kind != "str":
            _, as_text = _validate(slot, value.text)
            if as_text is None:
                message = f"YAML read {value.text} as {value.reading}, and text is wanted"
                self.note(value.line, path, message, f'quote it: "{value.text}"')
                return _BLANK
            if isinstance(problem, NotTextError):
                problem = as_text
        message = problem.message
        if not value.as_written and value.text.lower() != value.reading and slot.rule not in SECRET_RULES:
            message += f"; YAML read {value.text} as {value.reading}"
        self.note(value.line, path, message, problem.hint or _unquoted(slot, value))
        return _BLANK


def _validate(slot: Slot, value: Any) -> tuple[Any, RuleError | None]:
    """The value that the slot makes of a JSON scalar, or what is wrong with it."""
    try:
        return slot.adapter.validate_json(json.dumps(value), strict=True), None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    if isinstance(rule := first.get("ctx", {}).get("error"), RuleError):
        return None, rule
    if slot.choices:
        near = difflib.get_close_matches(str(value).lower(), slot.choices, n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        return None, RuleError(f"must be {' or '.join(slot.choices)}", hint)
    match first["type"]:
        case "string_type":
            return None, NotTextError()
        case "bool_type":
            return None, RuleError("must be true or false")
        case _:
            return None, RuleError("must be a whole number")


def _unquoted(slot: Slot, value: Scalar) -> str:
    """A hint for a value that would be right if it were not in quotes."""
    if value.kind != "str" or not re.fullmatch("true|false|[1-9][0-9]{0,9}|0", value.text, re.ASCII):
        return ""
    _, problem = _validate(slot, json.loads(value.text))
    return "" if problem else f"write it without quotes: {value.text}"


def _blank(cls: type[S], **given: Any) -> S:
    """A draft of a section: what was read, defaults, and None (or a blank section) for what is required."""
    values = dict(given)
    for slot in slots(cls).values():
        if slot.required and slot.attribute not in values:
            values[slot.attribute] = () if slot.many else _blank(slot.section) if slot.section else None
    return cast(S, cls.model_construct(None, **values))


def _likely(cls: type[Section], key: str, path: Keys, known: dict[str, Slot]) -> tuple[str, ...]:
    """Where an unknown key belongs: deeper down by its very name, here by a like name, or somewhere else."""
    here = "".join(f"{part}." for part in path if isinstance(part, str))
    everywhere = places().get(key, ())
    deeper = tuple(place.removeprefix(here) for place in everywhere if here and place.startswith(here))
    near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1)
    return deeper or tuple(near) or (everywhere if len(everywhere) <= 2 else ())


def dotted(path: Keys) -> str:
    """``("nodes", 1, "match")`` → ``nodes[1].match``."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return text.removeprefix(".") or "(file)"


def line_of(root: Value, path: Keys) -> int:
    """The line of a path, or of the nearest thing above it that exists."""
    line, value = root.line, root
    for key in path:
        if isinstance(value, Mapping) and isinstance(key, str) and key in value.entries:
            child = value.entries[key]
            line = child.line if isinstance(child, Scalar) else value.key_lines[key]
        elif isinstance(value, Sequence) and isinstance(key, int) and key < len(value.items):
            child = value.items[key]
            line = child.line
        else:
            break
        value = child
    return line
