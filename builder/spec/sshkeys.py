"""SSH public keys: told apart from everything else that people paste, private keys above all.

No message here ever quotes the text it judges.
"""

from __future__ import annotations

import base64
import binascii

from builder.spec.sizes import RuleError

# What OpenSSH accepts for PubkeyAcceptedAlgorithms by default (ssh_config(5)), certificates aside.
TYPES = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)
_LINE = "give the one line of a .pub file: ssh-ed25519 AAAA… you@laptop"


def is_private(text: str) -> bool:
    """Whether a text holds (the beginning or a part of) a private key."""
    return "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text or "b3BlbnNzaC1rZXktdjE" in text


def public_key(text: str) -> str:
    """One public key line, blanks around it removed. Raises RuleError for anything else."""
    if is_private(text):
        raise RuleError("is a PRIVATE key, which must never leave your machine", _LINE)
    line = text.strip()
    if "\n" in line:
        raise RuleError("is more than one line", "one key an item; or name the file under ssh_key_files")
    kind, _, rest = line.partition(" ")
    encoded = rest.split(" ", 1)[0] if rest else ""
    if kind.endswith("-cert-v01@openssh.com"):
        raise RuleError("is a certificate, not a public key", _LINE)
    if kind == "ssh-dss":
        raise RuleError("is a DSA key, which OpenSSH no longer accepts", "make one: ssh-keygen -t ed25519")
    if kind not in TYPES:
        raise RuleError("is not a public key line", _LINE)
    if not _holds_together(kind, encoded):
        raise RuleError("is a damaged public key: part of the line is missing or changed", _LINE)
    return line


def _holds_together(kind: str, encoded: str) -> bool:
    """Whether the base64 part is a run of SSH strings (RFC 4251 section 5), the first naming the type."""
    try:
        blob = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    parts = []
    while blob:
        length = int.from_bytes(blob[:4], "big")
        if len(blob) < 4 + length:
            return False
        parts.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return len(parts) >= 2 and parts[0] == kind.encode() and all(parts)
