"""What every group of keys in a spec has in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, model_validator


@dataclass(frozen=True)
class Choice:
    """Of these keys one must be given, and with ``exactly`` no more than one."""

    keys: tuple[str, ...]
    exactly: bool

    def complaint(self, given: Collection[str]) -> str:
        """What is wrong with the keys given; empty when nothing is."""
        found = [key for key in self.keys if key in given]
        words = ", ".join(self.keys[:-1]) + " or " + self.keys[-1]
        if not found:
            return f"needs {'one' if self.exactly else 'at least one'} of {words}"
        if self.exactly and len(found) > 1:
            return f"has {' and '.join(found)}, but only one of {words} can be meant"
        return ""


class Section(BaseModel):
    """A group of keys: frozen, strict, no others accepted."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)
    choice: ClassVar[Choice | None] = None
    # A key that must be given, unless another one is: that one decides its default.
    unless: ClassVar[Mapping[str, str]] = {}
    # A key that makes sense with some keys of the choice only.
    only_with: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # A single value may stand for the group: this tells which key it is the value of.
    short: ClassVar[Callable[[str], str] | None] = None

    @model_validator(mode="after")
    def _choice_is_made(self) -> Section:
        if self.choice:
            given = [key for key in self.choice.keys if getattr(self, key) is not None]
            if complaint := self.choice.complaint(given):
                raise ValueError(complaint)
        for key, other in self.unless.items():
            if not getattr(self, key) and not getattr(self, other):
                raise ValueError(f"{key} is missing")
        return self
