"""Fingerprints of OpenPGP public keys, read from the file itself: no gpg, no key ring, no trust. Pure.

RFC 4880: 4.2 (packet headers), 6.2 (ASCII armour), 12.2 (a version 4 fingerprint).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator

PUBLIC_KEY = 6  # the tag of a primary key's packet; 14 is a subkey's


def is_armoured(content: bytes) -> bool:
    return content.lstrip().startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")


def fingerprints(content: bytes) -> tuple[str, ...]:
    """Of every primary key in a file, armoured or not, in hex. Raises ValueError if it is no file of keys."""
    found = tuple(_fingerprint(body) for tag, body in _packets(_binary(content)) if tag == PUBLIC_KEY)
    if not found:
        raise ValueError("there is no public key in it")
    return found


def _fingerprint(body: bytes) -> str:
    if not body or body[0] != 4:
        raise ValueError("it holds a key of another version than 4")
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()


def _binary(content: bytes) -> bytes:
    if not is_armoured(content):
        return content
    found = re.search(
        rb"BLOCK-----\s*?\n(?:[^\n]*:[^\n]*\n)*\s*\n(.*?)\n(?:=[^\n]*\n)?-----END", content, re.DOTALL
    )
    if not found:
        raise ValueError("its armour has no end")
    try:
        return base64.b64decode(found[1], validate=False)
    except binascii.Error:
        raise ValueError("its armour is damaged") from None


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        first = data[at]
        if not first & 0x80:
            raise ValueError("it is not a file of OpenPGP keys")
        tag, at, size = _header(data, first, at + 1)
        if at + size > len(data):
            raise ValueError("it is cut off")
        yield tag, data[at : at + size]
        at += size


def _header(data: bytes, first: int, at: int) -> tuple[int, int, int]:
    """The packet's tag, where its body begins, and its size."""
    try:
        if not first & 0x40:  # the old format, which keys are mostly in
            width = 1 << (first & 3)
            if width == 8:
                raise ValueError("it has a packet without a size")
            return (first >> 2) & 15, at + width, int.from_bytes(data[at : at + width], "big")
        tag, one = first & 0x3F, data[at]
        if one < 192:
            return tag, at + 1, one
        if one < 224:
            return tag, at + 2, ((one - 192) << 8) + data[at + 1] + 192
        if one == 255:
            return tag, at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    except IndexError:
        raise ValueError("it is cut off") from None
    raise ValueError("it has a packet in parts, which no key is")
