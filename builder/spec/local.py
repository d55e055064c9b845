"""What a spec names on the building machine: public key files and model files. Reads, never writes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from builder.spec.finding import Finding
from builder.spec.model import Cluster
from builder.spec.sizes import RuleError, format_size
from builder.spec.sshkeys import TYPES, is_private, public_key

_LIMIT = 1 << 20  # bytes of a key file that are looked at


def resolve(cluster: Cluster, base: Path) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    """All public keys of a cluster, those in files included, and what is wrong with files that it names.

    Relative paths start at ``base``. Takes a draft.
    """
    keys = dict.fromkeys(key for key in cluster.access.ssh_keys if key is not None)
    findings: list[Finding] = []
    for index, pattern in enumerate(cluster.access.ssh_key_files):
        if pattern is None:
            continue
        try:
            for path in _files(pattern, base):
                keys |= dict.fromkeys(_keys_in(path, strict=not _is_glob(pattern)))
        except RuleError as error:
            findings.append(Finding(("access", "ssh_key_files", index), error.message, error.hint))
    return tuple(keys), (*findings, *_models(cluster, base))


def _is_glob(pattern: str) -> bool:
    return any(char in pattern for char in "*?[")


def _files(pattern: str, base: Path) -> list[Path]:
    """The files of a path or glob, sorted. Raises RuleError if a plain path does not exist."""
    try:
        whole = (base / Path(pattern).expanduser()).absolute()
    except RuntimeError:
        raise RuleError(f"{pattern}: the home folder is not known", "write the whole path") from None
    if not _is_glob(pattern):
        return [whole]
    try:
        found = Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))
        return sorted(path for path in found if path.is_file())
    except (ValueError, OSError):
        raise RuleError(f"{pattern} is not a glob that can be followed") from None


def _keys_in(path: Path, *, strict: bool) -> Iterator[str]:
    """The public keys in a file. Unless ``strict``, lines of other kinds are passed over."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LIMIT)
    except FileNotFoundError:
        raise RuleError(f"{path} does not exist", "a glob such as ~/.ssh/*.pub may match nothing") from None
    except UnicodeDecodeError:
        raise RuleError(f"{path} is not a text file", "name a .pub file") from None
    except OSError as error:
        raise RuleError(f"{path} cannot be read: {error.strerror}") from None
    if is_private(text):
        hint = f"name {path.name}.pub, which holds the public half"
        raise RuleError(f"{path} is a PRIVATE key, which must never leave your machine", hint)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not strict and line.partition(" ")[0] not in TYPES:
            continue
        try:
            yield public_key(line)
        except RuleError as error:
            raise RuleError(f"{path} line {number} {error.message}", error.hint) from None


def _models(cluster: Cluster, base: Path) -> Iterator[Finding]:
    """Model files that are missing, empty, unreadable, or that do not fit the partition meant for them."""
    total = 0
    for index, model in enumerate(cluster.models):
        if not model.path:
            continue
        path = base / model.path
        where = ("models", index, "path")
        try:
            facts = path.stat()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or "not a path"
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {why}"
            relative = "" if path.is_absolute() and base != path else "the path starts at the spec's folder"
            hint = "write the whole path instead of ~" if model.path.startswith("~") else relative
            yield Finding(where, f"{model.path} {reason}", hint)
            continue
        if not stat.S_ISREG(facts.st_mode):
            yield Finding(where, f"{model.path} is not a file", "name one file; give each its own item")
        elif facts.st_size == 0:
            yield Finding(where, f"{model.path} is empty", "is the download complete?")
        elif not os.access(path, os.R_OK):
            yield Finding(where, f"{model.path} cannot be read: Permission denied")
        total += facts.st_size
    room = cluster.storage.models
    if isinstance(room, int) and total > room:
        needed = format_size(-(-total // (1 << 20)) << 20)
        yield Finding(
            ("storage", "models"), f"is too small: the models take {needed}", "write fit, or a larger size"
        )
