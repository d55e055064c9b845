"""Takes secrets out of what a bundle holds: by the name of a file, and by what text looks like. Pure."""

from __future__ import annotations

import re

GONE = "[left out]"

_NAMES = re.compile(
    r"user-data|vendor-data|instance-data|shadow|gshadow|authorized_keys|ssh_host_.*_key|id_(rsa|ecdsa|ed25519)"
    r"|\.(key|pem|p12|pfx|kdbx)$|credential|secret|netrc|\.docker/config",
    re.IGNORECASE,
)
_NAME = (
    r"[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|access[_-]?key|credentials?|psk)"
)
_PATTERNS = (
    # A private key, also one whose end a log cut off: then everything after its beginning that could belong to it.
    (
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----(?:.*?-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----|"
            r"(?:[^\n]*(?:\n|$))(?:[A-Za-z0-9+/=\\: .-]*[A-Za-z0-9+/=\\]{20,}\s*(?:\n|$))*)",
            re.DOTALL,
        ),
        GONE,
    ),
    # crypt(3): $y$…, $6$salt$hash, $2b$…, $argon2id$…
    (re.compile(r"\$(?:y|gy|7|1|2[abxy]?|5|6|sha1|md5|argon2(?:id|i|d)?)\$[./A-Za-z0-9$=,+-]{8,}"), GONE),
    # Public keys are no secret, but say who may log in.
    (re.compile(r"\b((?:ssh|ecdsa|sk)-[\w@.-]+) AAAA[A-Za-z0-9+/=]{16,}"), rf"\1 {GONE}"),
    (
        re.compile(
            r"\b(?:hf|ghp|gho|ghs|glpat|xox[abp])[_-][A-Za-z0-9_-]{16,}|\bgithub_pat_\w{20,}|\bAKIA[A-Z0-9]{16}\b"
            r"|\bsk-[A-Za-z0-9_-]{20,}|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*"
        ),
        GONE,
    ),
    (re.compile(r"((?:proxy-)?authorization[\"']?\s*[:=]\s*[\"']?)[^\n\"']+", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(r"\b(bearer|basic) [A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {GONE}"),
    (re.compile(r"(\w+://)[^/\s:@\"']*:[^/\s@\"']+@"), rf"\1{GONE}@"),
    # name = value, name: value, "name": "value", --name value; a plain number is a count ("eos token = 2").
    (
        re.compile(rf"({_NAME}[\"']?\s*[=:]\s*)(\"[^\"\n]*\"|'[^'\n]*'|(?!\d+\b)[^\s,;}}\]\"']+)", re.IGNORECASE),
        rf"\1{GONE}",
    ),
    (re.compile(rf"(--{_NAME}\s+)(?!\d+\b)([^\s-]\S*)", re.IGNORECASE), rf"\1{GONE}"),
    # chpasswd's own format for a seed that was logged: a line "name:$hash" is caught above by its hash.
)


def secret_name(path: str) -> bool:
    """Whether a file is left out because of its name."""
    return _NAMES.search(path) is not None


def scrub(text: str) -> str:
    """The text without what looks like a password hash, a key, a token, or the value of something called so."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
