"""Ethernet frames by hand: a card on the virtual LAN that may claim any address, and what comes back.

Only this way can one ask from the host whether a firewall shuts a port to other subnets and opens it to its own.
Formats: RFC 826 (ARP), RFC 791 and 1071 (IPv4 and its checksum), RFC 792 (ICMP), RFC 9293 (TCP).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, Protocol

from builder.verify.bridge import framed, take_frames
from builder.verify.clock import Clock
from builder.verify.report import StepFailed

BROADCAST = b"\xff" * 6
_ARP, _IPV4 = 0x0806, 0x0800
_ICMP, _TCP = 1, 6
_ECHO_REPLY, _ECHO = 0, 8
SYN, RST, ACK = 0x02, 0x04, 0x10
_RESEND = 1.0  # seconds between two tries
_ROUNDS = 3
_FIRST_PORT = 40000

Answer = Literal["open", "refused", "silent"]


@dataclass(frozen=True)
class Host:
    """An address on the LAN and the card that has it."""

    mac: bytes
    address: IPv4Address


def mac_bytes(text: str) -> bytes:
    """``52:54:00:77:00:01`` as 6 bytes."""
    return bytes.fromhex(text.replace(":", ""))


def arp(operation: Literal[1, 2], sender: Host, target: Host, to: bytes) -> bytes:
    """A request (1) or a reply (2), sent to the card ``to``."""
    body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation)
    body += sender.mac + sender.address.packed + target.mac + target.address.packed
    return to + sender.mac + struct.pack("!H", _ARP) + body


def echo_request(sender: Host, target: Host, sequence: int) -> bytes:
    """A ping."""
    head = struct.pack("!BBHHH", _ECHO, 0, 0, 0, sequence)
    return _ipv4(sender, target, _ICMP, head[:2] + struct.pack("!H", checksum(head)) + head[4:])


def tcp(sender: Host, target: Host, source: int, port: int, flags: int, sequence: int = 1) -> bytes:
    """A TCP segment without data."""
    head = struct.pack("!HHIIBBHHH", source, port, sequence, 0, 5 << 4, flags, 64240, 0, 0)
    pseudo = sender.address.packed + target.address.packed + struct.pack("!BBH", 0, _TCP, len(head))
    return _ipv4(sender, target, _TCP, head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:])


def _ipv4(sender: Host, target: Host, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0)
    addresses = sender.address.packed + target.address.packed
    head = head[:10] + struct.pack("!H", checksum(head + addresses)) + addresses
    return target.mac + sender.mac + struct.pack("!H", _IPV4) + head + body


def checksum(data: bytes) -> int:
    """The Internet checksum of ``data``."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


@dataclass(frozen=True)
class Arp:
    """What an ARP frame says: who asks or answers, and whose address is asked for."""

    operation: int
    sender: Host
    wanted: IPv4Address


@dataclass(frozen=True)
class Packet:
    """What an IPv4 frame carries: an echo reply (``port`` is None) or a TCP segment to ``to_port``."""

    sender: IPv4Address
    target: IPv4Address
    port: int | None = None
    to_port: int = 0
    flags: int = 0


def parse(frame: bytes) -> Arp | Packet | None:
    """What we understand of a frame; None for all else."""
    if len(frame) < 42:
        return None
    (kind,) = struct.unpack_from("!H", frame, 12)
    body = frame[14:]
    if kind == _ARP:
        sender = Host(body[8:14], IPv4Address(body[14:18]))
        return Arp(struct.unpack_from("!H", body, 6)[0], sender, IPv4Address(body[24:28]))
    if kind != _IPV4 or body[0] >> 4 != 4:
        return None
    inner = body[(body[0] & 15) * 4 :]
    sender_address, target = IPv4Address(body[12:16]), IPv4Address(body[16:20])
    if body[9] == _ICMP and len(inner) >= 8 and inner[0] == _ECHO_REPLY:
        return Packet(sender_address, target)
    if body[9] == _TCP and len(inner) >= 20:
        source, port = struct.unpack_from("!HH", inner)
        return Packet(sender_address, target, source, port, inner[13])
    return None


class Wire:
    """A cable into the switch's socket ``path`` with nothing but us at its end. Raises StepFailed if it is cut."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._buffer = bytearray()
        self._frames: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise StepFailed(f"the virtual LAN has no free port at {path.name}: {error}") from error

    def send(self, frame: bytes) -> None:
        try:
            self._socket.settimeout(20.0)
            self._socket.sendall(framed(frame))
        except OSError as error:
            raise StepFailed(f"the virtual LAN took no frame: {error}") from error

    def receive(self, wait: float) -> bytes | None:
        """The next frame, or None if none came within ``wait`` seconds."""
        deadline = self._clock.now() + wait
        while True:
            if self._frames:
                return self._frames.pop(0)
            left = deadline - self._clock.now()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                return None
            except OSError as error:
                raise StepFailed(f"the virtual LAN is gone: {error}") from error
            if not data:
                raise StepFailed("the virtual LAN is gone: its process closed the connection")
            self._buffer += data
            self._frames.extend(take_frames(self._buffer))

    def close(self) -> None:
        self._socket.close()


@dataclass(frozen=True)
class Knocked:
    """Whether the target answered pings, and what each port did."""

    pings: bool
    ports: Mapping[int, Answer]


class Card(Protocol):
    """What frames go out of and come in at."""

    def send(self, frame: bytes) -> None: ...

    def receive(self, wait: float) -> bytes | None: ...


def knock(
    wire: Card,
    clock: Clock,
    claimed: Host,
    target: Host,
    ports: Iterable[int],
    *,
    patience: float,
    own: Iterable[IPv4Address] = (),
) -> Knocked:
    """Knock at TCP ``ports`` of ``target`` as ``claimed``, again every second until all answered.

    A ping goes out after each round: once three are answered, the target has seen three knocks, and a port that
    gave no answer is silent. So is all else after ``patience`` seconds, but without a ping that proves nothing.
    No handshake is finished, so no server sees a client. ARP for ``claimed`` and for ``own`` addresses is
    answered with our card.
    """
    answers: dict[int, Answer] = {}
    wanted = tuple(ports)
    source = {port: _FIRST_PORT + number for number, port in enumerate(wanted)}
    ours = {claimed.address, *own}
    deadline = clock.now() + patience
    round_at, sequence, pings = clock.now(), 0, 0
    while True:
        now = clock.now()
        told = pings > 0 and len(answers) == len(wanted)
        if told or pings >= _ROUNDS or now >= deadline:
            return Knocked(pings > 0, {port: answers.get(port, "silent") for port in wanted})
        if now >= round_at:
            sequence, round_at = sequence + 1, now + _RESEND
            for port in wanted:
                if port not in answers:
                    wire.send(tcp(claimed, target, source[port], port, SYN))
            wire.send(echo_request(claimed, target, sequence))
        frame = wire.receive(max(0.0, min(round_at, deadline) - now))
        seen = None if frame is None else parse(frame)
        if isinstance(seen, Arp):
            if seen.operation == 1 and seen.wanted in ours and seen.sender.mac != claimed.mac:
                wire.send(arp(2, Host(claimed.mac, seen.wanted), seen.sender, seen.sender.mac))
        elif seen is not None and (seen.sender, seen.target) == (target.address, claimed.address):
            if seen.port is None:
                pings += 1
            elif source.get(seen.port) == seen.to_port and seen.flags & (SYN | RST):
                answers[seen.port] = "refused" if seen.flags & RST else "open"
                if seen.flags & SYN:
                    wire.send(tcp(claimed, target, seen.to_port, seen.port, RST, sequence=2))
