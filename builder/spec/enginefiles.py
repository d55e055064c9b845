"""What an engine's options name on the building machine: read, never written, and a secret never quoted."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from builder.spec.finding import Finding
from builder.spec.model import Cluster
from builder.spec.sizes import RuleError

_LIMIT = 1 << 20  # bytes
_SECRET_LENGTH = 32  # characters

Found = dict[str, SecretStr | str]


def resolve(cluster: Cluster, base: Path) -> tuple[Found, tuple[Finding, ...]]:
    """What each file holds, by the field that it becomes, and what is wrong. Takes a draft."""
    texts: Found = {}
    findings = []
    for file in cluster.engine.files(cluster.name) if cluster.engine and cluster.name else ():
        try:
            text = _text(base / Path(file.path).expanduser(), file.hint)
            texts[file.field] = SecretStr(_line(text, file.path)) if file.secret else text
        except RuleError as error:
            findings.append(Finding(("engine", file.key), error.message, error.hint))
    return texts, tuple(findings)


def _text(path: Path, hint: str) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.read(_LIMIT)
    except FileNotFoundError:
        raise RuleError(f"{path} does not exist", hint) from None
    except UnicodeDecodeError:
        raise RuleError(f"{path} is not a text file", hint) from None
    except OSError as error:
        raise RuleError(f"{path} cannot be read: {error.strerror}") from None


def _line(text: str, path: str) -> str:
    """The one line of a file that holds a machine's secret, which nobody types."""
    line = text.strip()
    if len(line) < _SECRET_LENGTH or not (line.isascii() and line.isprintable()) or " " in line:
        hint = f"one line of at least {_SECRET_LENGTH} letters and digits: openssl rand -hex 32"
        raise RuleError(f"{path} does not hold a secret", hint)
    return line
