"""What a spec names on the building machine: key files, a passphrase, model files, an ISO. Reads, never writes."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from builder.spec import enginefiles, gpufiles, rules
from builder.spec.finding import Finding, Keys
from builder.spec.gpu import Gpu
from builder.spec.model import Cluster, Model
from builder.spec.sizes import RuleError, format_size
from builder.spec.sshkeys import TYPES, is_private, public_key

_LIMIT = 1 << 20  # bytes of a key file that are looked at
# cryptsetup reads no more from a keyboard (its manual page, NOTES ON PASSPHRASE PROCESSING).
_PASSPHRASE_LENGTH = range(8, 513)
_TYPED = "use what every keyboard has: letters, digits, blanks and signs of ASCII"


@dataclass(frozen=True)
class Local:
    """What the files held: all public keys, the disks' passphrase, the GPUs' certificate, and what the engine's
    options name, by field; and what is wrong.
    """

    keys: tuple[str, ...]
    passphrase: SecretStr | None
    gpu: Gpu | None
    engine: dict[str, SecretStr | str]
    findings: tuple[Finding, ...]


def resolve(cluster: Cluster, base: Path) -> Local:
    """Read or look at every file that a spec names.

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
    passphrase = None
    luks = cluster.storage.luks
    if luks is not None and luks.passphrase_file is not None:
        try:
            passphrase = _passphrase(_plain(luks.passphrase_file, base))
        except RuleError as error:
            findings.append(Finding(("storage", "luks", "passphrase_file"), error.message, error.hint))
    iso = cluster.media.base_iso
    if iso is not None and iso.path is not None:
        findings += _file(iso.path, base, ("media", "base_iso", "path"), "name the .iso file")[0]
    for index, image in enumerate(cluster.images):
        if image and image.path:
            findings += _file(image.path, base, ("images", index, "path"), "name one archive")[0]
    gpu, wrong = gpufiles.resolve(cluster.gpu, base)
    engine, odd = enginefiles.resolve(cluster, base)
    return Local(tuple(keys), passphrase, gpu, engine, (*findings, *_models(cluster, base), *wrong, *odd))


def _plain(name: str, base: Path) -> Path:
    """A path that is no glob. Raises RuleError for one that is, or for an unknown home folder."""
    if _is_glob(name):
        raise RuleError(f"{name} is a glob, and one file is wanted")
    return _files(name, base)[0]


def _passphrase(path: Path) -> SecretStr:
    """The one line of a passphrase file. No message quotes it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(_LIMIT)
    except FileNotFoundError:
        raise RuleError(f"{path} does not exist", "write the passphrase there, in one line") from None
    except UnicodeDecodeError:
        raise RuleError(f"{path} is not a text file", _TYPED) from None
    except OSError as error:
        raise RuleError(f"{path} cannot be read: {error.strerror}") from None
    # An editor ends the line; a keyboard's Enter is not part of the passphrase.
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise RuleError(f"{path} is empty", "write the passphrase there, in one line")
    if "\n" in text or "\r" in text:
        raise RuleError(f"{path} holds more than one line", "the passphrase is one line")
    if not (text.isascii() and text.isprintable()):
        raise RuleError(f"{path} holds a character that cannot be typed at boot", _TYPED)
    if text != text.strip():
        raise RuleError(f"{path} begins or ends with a blank, which nobody sees", "take the blank away")
    if len(text) not in _PASSPHRASE_LENGTH:
        least, most = _PASSPHRASE_LENGTH.start, _PASSPHRASE_LENGTH.stop - 1
        raise RuleError(f"{path} holds a passphrase of {len(text)} characters", f"take {least} to {most}")
    return SecretStr(text)


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
        if model.path:
            where = ("models", index, "path")
            if (base / model.path).is_dir():
                findings, size = _folder(model, base, where)
            else:
                findings, size = _file(model.path, base, where, "name a file or a folder")
            yield from findings
            total += size
    room = cluster.storage.models.size
    if isinstance(room, int) and total > room:
        needed = format_size(-(-total // (1 << 20)) << 20)
        yield Finding(
            ("storage", "models"), f"is too small: the models take {needed}", "write fit, or a larger size"
        )


def folder_files(folder: Path) -> list[str]:
    """The files of a model that is a folder, by their paths in it; hidden ones are a program's own notes."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _folder(model: Model, base: Path, where: Keys) -> tuple[list[Finding], int]:
    """What is wrong with a folder of files that will be used where they lie, and the size of all."""
    assert model.path is not None
    names = folder_files(base / model.path)
    if not names:
        return [Finding(where, f"{model.path} is a folder without files")], 0
    found, total = [], 0
    if model.sha256:
        found.append(Finding((*where[:-1], "sha256"), "goes with one file, and path is a folder", "leave it out"))
    for name in names:
        if not re.fullmatch(rules.MODEL_PATH, name):
            found.append(
                Finding(where, f"{name} has a name that no node could hold", "rename it, or take it away")
            )
            continue
        findings, size = _file(f"{model.path}/{name}", base, where, "")
        found += findings
        total += size
    return found, total


def _file(name: str, base: Path, where: Keys, hint: str) -> tuple[list[Finding], int]:
    """What is wrong with a large file that will be used where it lies, and its size; ``hint`` if it is no file."""
    path = base / name
    try:
        facts = path.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", "") or "not a path"
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {why}"
        relative = "" if path.is_absolute() and base != path else "the path starts at the spec's folder"
        hint = "write the whole path instead of ~" if name.startswith("~") else relative
        return [Finding(where, f"{name} {reason}", hint)], 0
    found = []
    if not stat.S_ISREG(facts.st_mode):
        found = [Finding(where, f"{name} is not a file", hint)]
    elif facts.st_size == 0:
        found = [Finding(where, f"{name} is empty", "is the download complete?")]
    elif not os.access(path, os.R_OK):
        found = [Finding(where, f"{name} cannot be read: Permission denied")]
    return found, facts.st_size
