"""Sockets: knocking on a port, a small HTTP client, and the kernel's own table of TCP connections.

The HTTP is version 1.0 by hand: http.client costs more to import than everything else here together.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import NamedTuple

KNOCKS = ("open", "refused", "timed out", "unreachable")
LIMIT = 1 << 20  # bytes of an answer; a peer may be broken
_ESTABLISHED, _LISTEN = 0x01, 0x0A  # include/net/tcp_states.h


class Reply(NamedTuple):
    status: int
    body: bytes


def knock(address: str, port: int, timeout: float = 4.0) -> str:
    """What a TCP connection attempt meets; one of KNOCKS.

    "unreachable" is the kernel's word after three unanswered ARP requests, a second apart, so ``timeout``
    (seconds) has to be over 3 to tell a machine that is off from a firewall that drops.
    """
    try:
        socket.create_connection((address, port), timeout).close()
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "timed out"
    except OSError as error:
        if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN):
            return "unreachable"
        return "timed out" if error.errno == errno.ETIMEDOUT else "refused"
    return "open"


def http(address: str, port: int, path: str, *, timeout: float = 3.0) -> Reply:
    """GET ``path``; ``timeout`` seconds for each step. Raises OSError."""
    with socket.create_connection((address, port), timeout) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {address}:{port}\r\n\r\n".encode())
        answer = b""
        while len(answer) < LIMIT and (more := connection.recv(65536)):
            answer += more
    head, _, content = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise OSError(errno.EPROTO, "the answer is not HTTP")
    return Reply(int(words[1]), content)


class Table(NamedTuple):
    """TCP over IPv4 as the kernel sees it: ports listened on, and (own port, address, port) of each connection."""

    listening: frozenset[int]
    connections: frozenset[tuple[int, str, int]]


def table(root: Path) -> Table:
    """Read /proc/net/tcp and tcp6; needs no rights."""
    text = ""
    for name in ("tcp", "tcp6"):
        try:
            text += (root / "proc/net" / name).read_text()
        except OSError:
            continue
    return parse_table(text)


def parse_table(text: str) -> Table:
    """Pure. Addresses are hexadecimal in little-endian order; IPv6 ones that map IPv4 count as IPv4."""
    listening, connections = set(), set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 4 or not fields[0].endswith(":"):
            continue
        state = int(fields[3], 16)
        port = int(fields[1].rpartition(":")[2], 16)
        if state == _LISTEN:
            listening.add(port)
        elif state == _ESTABLISHED:
            address, _, there = fields[2].rpartition(":")
            connections.add((port, _address(address), int(there, 16)))
    return Table(frozenset(listening), frozenset(connections))


def _address(text: str) -> str:
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(text[-8:])))
