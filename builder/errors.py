"""How the builder fails: one exception, a stable exit code, a message and a hint.

An expected failure is a :class:`BuilderError`; the command line prints its message and hint and exits
with its code. Anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the ``builder`` command; documented in ``docs/cli.md`` and never renumbered."""

    OK = 0
    BUG = 1
    SPEC = 2  # the spec, the lock or the command line is wrong
    FETCH = 3  # an input could not be downloaded, or is not what the lock says
    TOOL = 4  # a tool is missing or failed, or the host is not fit (disk full, no permission)
    MEDIUM = 5  # the medium could not be made, or one that was given is damaged or not ours
    BOOT = 6  # a boot test failed
    INTERRUPTED = 130


class BuilderError(Exception):
    """An expected failure. ``message`` says what is wrong, ``hint`` what to do about it."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.TOOL) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in a spec: ``line`` is 1-based (0 when unknown), ``path`` is like ``nodes[1].match.mac``."""

    line: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}{self.path}: {self.message}{hint}"


class SpecError(BuilderError):
    """Every mistake found in a spec, in the order of its lines."""

    def __init__(self, source: str, mistakes: Sequence[Mistake]) -> None:
        self.source = source
        self.mistakes = tuple(sorted(mistakes))
        count = len(self.mistakes)
        noun = "mistake" if count == 1 else "mistakes"
        body = "\n".join(f"  {mistake}" for mistake in self.mistakes)
        super().__init__(
            f"{source}: {count} {noun}\n{body}",
            hint="`builder schema` prints every key that a spec may have; docs/spec.md explains them",
            code=Exit.SPEC,
        )
