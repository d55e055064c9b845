"""The model as the reader and the reference need it: which keys a section has, and what each takes."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter

from builder.spec.model import Cluster
from builder.spec.section import Section


@dataclass(frozen=True)
class Slot:
    """What a key takes: a group of keys (``section``) or one value (``adapter``); ``many``: in a list."""

    attribute: str
    required: bool
    nullable: bool
    many: bool
    section: type[Section] | None
    adapter: TypeAdapter[Any]
    choices: tuple[str, ...]
    rule: str  # the function that judges the value, or its plain type
    example: str


@cache
def slots(cls: type[Section]) -> dict[str, Slot]:
    """The keys of a section, as a file spells them; a field that is in no dump is no key."""
    fields = {name: field for name, field in cls.model_fields.items() if not field.exclude}
    return {field.alias or name: _slot(name, field) for name, field in fields.items()}


def _slot(name: str, info: Any) -> Slot:
    kind, metadata, nullable, many = info.annotation, tuple(info.metadata), False, False
    arms = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()
    if type(None) in arms and len(arms) == 2:
        nullable = True
        kind, metadata = next(arm for arm in arms if arm is not type(None)), ()
    if get_origin(kind) is tuple:
        many = True
        kind, metadata = get_args(kind)[0], ()
    section = kind if isinstance(kind, type) and issubclass(kind, Section) else None
    whole: Any = Annotated[(kind, *metadata)] if metadata else kind
    literals = get_args(kind) if get_origin(kind) is Literal else ()
    example = _section_example(section, many) if section else json.dumps(info.examples[0], ensure_ascii=False)
    return Slot(
        attribute=name,
        required=info.is_required(),
        nullable=nullable,
        many=many,
        section=section,
        adapter=TypeAdapter(Any if section else whole),
        choices=tuple(str(value).lower() if value is True else str(value) for value in literals),
        rule=next((rule.func.__name__ for rule in _metadata(whole) if hasattr(rule, "func")), _name(kind)),
        example=example,
    )


def _section_example(section: type[Section], many: bool) -> str:
    keys = [key for key, slot in slots(section).items() if slot.required]
    keys = keys or list(section.choice.keys[:1] if section.choice else slots(section))[:1]
    text = "{" + ", ".join(f"{key}: {slots(section)[key].example}" for key in keys) + "}"
    return f"[{text}]" if many else text


def _metadata(kind: Any) -> tuple[Any, ...]:
    return getattr(kind, "__metadata__", ())


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", "")


@cache
def places() -> dict[str, tuple[str, ...]]:
    """Key → every path of the spec that ends with it (without list indexes)."""
    found: dict[str, list[str]] = {}

    def walk(cls: type[Section], prefix: str) -> None:
        for key, slot in slots(cls).items():
            found.setdefault(key, []).append(prefix + key)
            if slot.section:
                walk(slot.section, f"{prefix}{key}.")

    walk(Cluster, "")
    return {key: tuple(paths) for key, paths in found.items()}
