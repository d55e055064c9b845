"""Sizes as people write them (``20G``) and as the builder keeps them (bytes, powers of 1024)."""

from __future__ import annotations

import re
from fractions import Fraction

UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
PATTERN = r"^[0-9]+(\.[0-9]+)?[KMGTkmgt]([iI][bB]?)?$"
LIMIT = 1 << 50  # 1 PiB; a larger number is a slip of the keyboard
_DIGITS = 20


class RuleError(ValueError):
    """A value that is not acceptable: what is wrong with it, and what to do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def parse_size(text: str) -> int:
    """Bytes of ``20G``, ``1.5T``, ``512MiB``; part of a byte is dropped.

    Raises RuleError if there is no unit, an ambiguous one (GB), or if the size is zero or over 1 PiB.
    """
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        number = text[:_DIGITS]
        raise RuleError(f"{number} has no unit", f"write {number}G, or K, M, T: powers of 1024")
    if found := re.fullmatch(r"([0-9.]+) ?([KMGTkmgt])[bB]", text, re.ASCII):
        unit = found[2].upper()
        raise RuleError(f"{unit}B counts in 1000 or in 1024", f"write {found[1]}{unit}: powers of 1024")
    if not re.fullmatch(PATTERN[1:-1], text, re.ASCII) or len(text) > _DIGITS:
        raise RuleError("is not a size", "write it like 20G, 512M or 1.5T")
    digits = re.match(r"[0-9.]+", text)
    assert digits is not None
    size = int(Fraction(digits[0]) * UNITS[text[digits.end()].upper()])
    if size == 0:
        raise RuleError("a size of zero is no size", "write it like 20G, or leave the key out")
    if size > LIMIT:
        raise RuleError(f"{text} is over 1024T", "check the unit")
    return size


def format_size(size: int) -> str:
    """The shortest exact spelling that :func:`parse_size` reads back, e.g. ``4G``.

    Only whole KiB have one. Raises ValueError for others.
    """
    for unit in reversed(UNITS):
        if size % UNITS[unit] == 0:
            return f"{size // UNITS[unit]}{unit}"
    raise ValueError(f"{size} bytes are not a whole number of KiB")
