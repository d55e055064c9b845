"""Single values of a spec: each function takes what was written and gives back what is meant.

Every one raises RuleError for what is wrong, and takes what it gives back as well, so that a value may be
validated twice. The network's values are in :mod:`builder.spec.netrules`.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import ValidationInfo

from builder.spec.sizes import RuleError, parse_size

LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
FILE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,254}$"
MODEL_PATH = r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]*(/[A-Za-z0-9_][A-Za-z0-9_.+@=-]*)*$"
REPO = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}$"
WORD = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
OVERRIDE = r"^(-[A-Za-z0-9][A-Za-z0-9._-]*|[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!_-]*)$"
# A name, extras, versions: what pip calls a requirement, without markers, addresses and options.
REQUIREMENT = (
    r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._,-]+\])?"
    r"((===?|~=|!=|<=?|>=?)[A-Za-z0-9.*+!-]+(,(?=.)|$))*$"
)
PACKAGE = r"^[a-z0-9][a-z0-9.+-]*[a-z0-9.+]$"  # Debian policy 5.6.1; apt reads a final "-" as "remove"

# DMI strings that vendors leave in place of a number: many boards share them.
PLACEHOLDERS = (
    "to be filled by o.e.m.",
    "default string",
    "system serial number",
    "not specified",
    "not applicable",
    "none",
    "n/a",
    "unknown",
    "0123456789",
    "123456789",
)
_PLACEHOLDER_UUIDS = ("03000200-0400-0500-0006-000700080009", "0" * 8, "f" * 8)

# crypt(5): the formats Debian's libcrypt still makes, each at its whole length.
_HASH = re.compile(
    r"\$y\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}"
    r"|\$gy\$[./A-Za-z0-9]+\$[./A-Za-z0-9]{1,86}\$[./A-Za-z0-9]{43}"
    r"|\$6\$(rounds=[0-9]+\$)?[^$:\n\s]{1,16}\$[./A-Za-z0-9]{86}"
    r"|\$5\$(rounds=[0-9]+\$)?[^$:\n\s]{1,16}\$[./A-Za-z0-9]{43}"
    r"|\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}"
)
HASH_HINT = "make a hash with `mkpasswd -m yescrypt` (package whois) or `openssl passwd -6`"

# Accounts of a Debian system; cloud-init would find them taken, or make root something it is not.
_TAKEN = frozenset(
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc nobody sshd "  # noqa: SIM905
    "messagebus _apt polkitd systemd-network systemd-resolve systemd-timesync".split()
)
_BY_ID = "take a name from `ls -l /dev/disk/by-id`"


class NotTextError(RuleError):
    """A value of another kind where text is wanted."""

    def __init__(self) -> None:
        super().__init__("must be text")


def as_text(value: object) -> str:
    if not isinstance(value, str):
        raise NotTextError
    return value


def label(text: str) -> str:
    """A host name of one label (RFC 1123), lower case, with a letter in it."""
    if text.lower() == "localhost":
        raise RuleError("localhost is every machine's own name", "choose another")
    if "." in text and re.fullmatch(LABEL, text.replace(".", "").lower()):
        raise RuleError(f"{show(text)} has a dot: it must be the short name, without a domain")
    if re.fullmatch(LABEL, text.lower()) and text != text.lower():
        raise RuleError(f"{show(text)} has upper-case letters", f"write {text.lower()}")
    if not re.fullmatch(LABEL, text):
        raise RuleError(f"{show(text)} is not a host name", "use a-z, 0-9 and inner hyphens, at most 63")
    if not re.search("[a-z]", text):
        raise RuleError(f"{show(text)} has no letter: programs would read an address", f"write node{text}")
    return text


def user(text: str) -> str:
    if text in _TAKEN:
        raise RuleError(f"{text} is an account of the system", "choose another name; that user gets sudo")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", text):
        raise RuleError(f"{show(text)} is not a user name", "use a-z, 0-9, _ and -, beginning with a letter")
    return text


def password_hash(text: str) -> str:
    """A crypt(5) hash. No message quotes it."""
    if not text.startswith("$"):
        raise RuleError("is not a password hash; a password itself must not stand here", HASH_HINT)
    if re.match(r"\$(1|3|md5|sha1)\$", text):
        raise RuleError("is a hash of an old kind that is quickly broken", HASH_HINT)
    if not _HASH.fullmatch(text):
        raise RuleError("is not a whole password hash of a kind that Debian knows", HASH_HINT)
    return text


def serial(text: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable() or len(text) > 128:
        raise RuleError(f"{show(text)} is not a serial number", "see `dmidecode -s system-serial-number`")
    if text.lower() in PLACEHOLDERS or not text.strip("0") or not text.lower().strip("x"):
        raise RuleError(f"{show(text)} is a placeholder that many boards share", "match by mac instead")
    return text


def uuid(text: str) -> str:
    plain = text.lower()
    if not re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", plain):
        raise RuleError(f"{show(text)} is not a UUID", "take it from `dmidecode -s system-uuid`")
    if plain in _PLACEHOLDER_UUIDS or len(set(plain) - {"-"}) == 1:
        raise RuleError(f"{show(text)} is a placeholder that many boards share", "match by mac instead")
    return plain


def disk_text(text: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise RuleError(f"{show(text)} is not a name of a disk", "see `lsblk -o NAME,SIZE,SERIAL,WWN`")
    return text


def disk_path(text: str) -> str:
    """A name or glob below /dev/disk/by-id or by-path, with or without that folder."""
    folder, slash, name = disk_text(text).rpartition("/")
    if slash and folder not in ("/dev/disk/by-id", "/dev/disk/by-path"):
        if folder == "/dev":
            raise RuleError(f"{show(text)} may be another disk at the next boot", _BY_ID)
        raise RuleError(f"{show(text)} is not below /dev/disk/by-id or /dev/disk/by-path", _BY_ID)
    if not name.strip("*?"):
        raise RuleError(f"{show(text)} would take any disk", "name one, or write largest: true")
    return text


def size(value: object, info: ValidationInfo) -> int:
    """Bytes. Text as people write it; code may pass bytes, a file may not."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0 and info.mode == "python":
        return value
    return parse_size(as_text(value))


def root_size(value: object, info: ValidationInfo) -> int | Literal["rest"]:
    return "rest" if value == "rest" else _size_or(value, info, "rest")


def models_size(value: object, info: ValidationInfo) -> int | Literal["rest", "fit"]:
    if value == "rest":
        return "rest"
    return "fit" if value == "fit" else _size_or(value, info, "rest or fit")


def _size_or(value: object, info: ValidationInfo, words: str) -> int:
    try:
        return size(value, info)
    except NotTextError:
        raise
    except RuleError as wrong:
        if wrong.message == "is not a size":
            raise RuleError(f"is neither a size nor {words}", wrong.hint) from None
        raise


def package(text: str) -> str:
    if re.fullmatch(r"[a-z0-9.+-]+[=/:].*", text):
        raise RuleError(
            f"{show(text)} is more than a package's name", "give the name alone: the lock pins versions"
        )
    if not re.fullmatch(PACKAGE, text):
        raise RuleError(f"{show(text)} is not the name of a package")
    return text


def requirement(text: str) -> str:
    """A Python package, as pip spells it, that an index can be asked for."""
    plain = text.replace(" ", "")
    if "://" in text or "@" in text:
        hint = "name the package; an index of your own is set in uv's or pip's configuration"
        raise RuleError(f"{show(text)} says where a package comes from", hint)
    if not re.fullmatch(REQUIREMENT, plain) or plain != text:
        raise RuleError(f"{show(text)} is not a requirement", "write it like pandas or pandas>=2.2,<3")
    return text


def release(text: str) -> str:
    if not re.fullmatch(r"[a-z]+|[0-9]+(\.[0-9]+)?", text, re.ASCII):
        raise RuleError(f"{show(text)} is not a release", 'write a number or code name, like "13" or trixie')
    return text


def base_release(text: str) -> str:
    """The release of an installer ISO, of which the newest point release is taken."""
    if found := re.fullmatch(r"([0-9]+\.[0-9]+)\.[0-9]+", text, re.ASCII):
        hint = f'write "{found[1]}", of which the newest is taken, or give a url or path'
        raise RuleError(f"{show(text)} is a point release", hint)
    return release(text)


def file_name(text: str) -> str:
    if "/" in text or text in (".", ".."):
        raise RuleError(f"{show(text)} must be a file name, without folders")
    if text in ("SHA256SUMS", "lost+found"):
        raise RuleError(f"{text} is a name that every models partition has already", "choose another")
    if not re.fullmatch(FILE_NAME, text):
        raise RuleError(f"{show(text)} is not a plain file name", "use letters, digits and _ . + @ = -")
    return text


def model_path(text: str) -> str:
    """A model's file below the node's folder of models, as a unit can name it."""
    if text.startswith("/"):
        raise RuleError(f"{show(text)} must be a name out of models", "write it without the folder of models")
    if not re.fullmatch(MODEL_PATH, text):
        raise RuleError(f"{show(text)} is not the plain name of a model", "use letters, digits and _ . + @ = - /")
    return text


def repo(text: str) -> str:
    """A repository of a model hub: owner and name, as huggingface_hub's validate_repo_id takes them."""
    if "://" in text or text.count("/") > 1:
        raise RuleError("must be the repository alone, without the hub's address", "write it like org/name")
    if not re.fullmatch(REPO, text) or ".." in text or "--" in text or text.endswith((".", "-", ".git")):
        raise RuleError(f"{show(text)} is not a repository", "write it like org/name")
    return text


def revision(text: str) -> str:
    """A commit, branch or tag (git-check-ref-format)."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,254}", text, re.ASCII) or re.search(r"\.\.|//|/$", text):
        raise RuleError(f"{show(text)} is not a commit, branch or tag")
    return text


def file_glob(text: str) -> str:
    """A path in a repository, or a glob over such paths, in which ``*`` takes ``/`` as well."""
    if text.endswith("/"):
        raise RuleError(f"{show(text)} is a folder", f"write {text}*")
    if not text.isprintable() or not text or "\\" in text or re.search(r"(^|/)(\.{0,2})(/|$)", text):
        raise RuleError(f"{show(text)} is not a path in a repository, nor a glob", "write it like *.gguf")
    return text


def variable(text: str) -> str:
    """The name of an environment variable. Messages do not quote it: it may be the secret itself."""
    if re.fullmatch("[A-Za-z]+_[A-Za-z0-9]{20,}", text) and text != text.upper():
        raise RuleError("is a token, which must not stand here", "give the name of a variable that holds it")
    if not re.fullmatch("[A-Z_][A-Z0-9_]{0,63}", text):
        raise RuleError("is not the name of an environment variable", "use A-Z, 0-9 and _, like HF_TOKEN")
    return text


def local_path(text: str) -> str:
    if not text or "\n" in text or text.endswith("/"):
        raise RuleError("is not the path of a file")
    return text


def place(text: str) -> str:
    """Where a git repository is."""
    if not text or any(char.isspace() for char in text) or text.startswith("-"):
        raise RuleError(f"{show(text)} is not a place of a git repository", "write a URL, or a path")
    return text


def word(text: str) -> str:
    if not re.fullmatch(WORD, text):
        raise RuleError(f"{show(text)} must be one word of letters, digits, dots and dashes")
    return text


def override(text: str) -> str:
    """Another release of a Python package, or none of it."""
    if not re.fullmatch(OVERRIDE, text):
        hint = "write mlx-lm==0.31.3 for a release, or -torch to leave it out"
        raise RuleError(f"{show(text)} is not a Python package's release", hint)
    return text


def sha256(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        count = f"it has {len(text)} characters" if len(text) != 64 else "a character is no hex digit"
        raise RuleError(f"is not a SHA-256 of 64 hex digits: {count}", "take it from `sha256sum FILE`")
    return text.lower()


def countdown(number: int) -> int:
    if not 0 <= number <= 300:
        raise RuleError("must be 0 to 300 seconds")
    return number


def layers(number: int) -> int:
    if not 1 <= number <= 9999:
        raise RuleError("must be 1 to 9999")
    return number


def context(number: int) -> int:
    if not 128 <= number <= 1 << 20:
        raise RuleError("must be 128 to 1048576 tokens")
    return number


def volume(text: str) -> str:
    if re.fullmatch("[A-Za-z0-9_-]{1,32}", text) and not re.fullmatch("[A-Z0-9_]+", text):
        raise RuleError(f"{show(text)} is not a volume label", f"write {text.upper().replace('-', '_')}")
    if not re.fullmatch("[A-Z0-9_]{1,32}", text):
        raise RuleError(f"{show(text)} is not a volume label", "use A-Z, 0-9 and _, at most 32 of them")
    return text


def show(text: str) -> str:
    short = text if len(text) <= 60 else text[:60] + "…"
    return '"' + "".join(c if c.isprintable() else "�" for c in short) + '"'
