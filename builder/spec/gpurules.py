"""Single values of a spec's ``gpu`` section; like :mod:`builder.spec.rules`."""

from __future__ import annotations

import re

from builder.spec.rules import show
from builder.spec.sizes import RuleError

FINGERPRINT = "^[0-9A-Fa-f]{40}$"


def gpu_model(text: str) -> str:
    """A card's name in the table's spelling; whether the table has it is judged with the rest."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}", text):
        raise RuleError(f"{show(text)} is not the name of a GPU", "write it like rtx-5070")
    return text.lower().replace(" ", "-").replace("_", "-")


def driver(text: str) -> str:
    if re.fullmatch(r"[0-9]{3}\.[0-9.]+", text):
        hint = f'write "{text[:3]}": the lock pins the version'
        raise RuleError(f"{show(text)} is a version, and a branch is wanted", hint)
    if not re.fullmatch("[0-9]{3}", text):
        raise RuleError(f"{show(text)} is not a driver branch", 'write it like "580"')
    return text


def cuda(text: str) -> str:
    if text != "none" and not re.fullmatch(r"[0-9]{2}(\.[0-9])?", text):
        raise RuleError(f"{show(text)} is not a version of CUDA", 'write it like "13" or "12.4", or none')
    return text


def gpu_count(number: int) -> int:
    if not 1 <= number <= 16:
        raise RuleError("must be 1 to 16")
    return number


def fingerprint(text: str) -> str:
    plain = text.replace(" ", "").upper()
    if not re.fullmatch(FINGERPRINT, plain):
        raise RuleError(f"{show(text)} is not the fingerprint of a key", "it has 40 hex digits")
    return plain
