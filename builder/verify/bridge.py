"""An Ethernet switch between Unix sockets, in a thread: what QEMU's stream netdevs plug into.

QEMU has a hub of its own, but it hands every frame to everybody, and QEMU's user-mode network (libslirp) looks at
no MAC address: shut off by ``restrict=on`` it answers each TCP connection between two nodes with a reset in the
other node's name, before that node can say anything (measured with QEMU 10.0.2). So frames have to be switched.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

QUEUE_MAX = 8 * 1024 * 1024  # bytes waiting for one slow reader; then frames are dropped, as a real switch does
FRAME_MIN, FRAME_MAX = 14, 256 * 1024
_CHUNK = 256 * 1024


@dataclass(eq=False)
class _Port:
    name: str
    listener: socket.socket
    connection: socket.socket | None = None
    arrived: bytearray = field(default_factory=bytearray)
    waiting: bytearray = field(default_factory=bytearray)


def take_frames(arrived: bytearray) -> Iterator[bytes]:
    """Take the whole frames off a stream: 4 bytes of length, big-endian, then the frame (QEMU ``net/stream.c``).

    Raises ValueError at a length that no frame has.
    """
    at = 0
    try:
        while len(arrived) - at >= 4:
            (length,) = struct.unpack_from("!I", arrived, at)
            if not FRAME_MIN <= length <= FRAME_MAX:
                raise ValueError(f"a frame of {length} bytes")
            if len(arrived) - at - 4 < length:
                return
            at += 4 + length
            yield bytes(arrived[at - length : at])
    finally:
        del arrived[:at]


def framed(frame: bytes) -> bytes:
    """A frame as it goes over a stream."""
    return struct.pack("!I", len(frame)) + frame


class Table:
    """Which card was seen at which port, and where a frame has to go. Pure but for its memory.

    ``reserved`` ports get only what is for a card seen there, or for everyone; ``mirrors`` get everything.
    """

    def __init__(self, ports: Collection[str], reserved: Collection[str], mirrors: Collection[str]) -> None:
        self._ports = tuple(ports)
        self._reserved = frozenset(reserved)
        self._mirrors = frozenset(mirrors)
        self._seen: dict[bytes, str] = {}

    def targets(self, frame: bytes, at: str) -> set[str]:
        """The ports that ``frame``, which came in at port ``at``, goes to; its sender is remembered."""
        to, sender = frame[:6], frame[6:12]
        if not sender[0] & 1:
            self._seen[sender] = at
        if to[0] & 1:
            wanted = set(self._ports)
        elif to in self._seen:
            wanted = {self._seen[to]}
        else:
            wanted = set(self._ports) - self._reserved
        return (wanted | self._mirrors) - {at}

    def forget(self, port: str) -> None:
        """The cable was pulled."""
        self._seen = {mac: place for mac, place in self._seen.items() if place != port}


class Bridge:
    """The running switch. One machine at a time may hold a port; the next may have it when that one is gone."""

    def __init__(
        self, sockets: Mapping[str, Path], *, reserved: Collection[str], mirrors: Collection[str]
    ) -> None:
        """Listen at ``sockets``, one for each port. Raises OSError."""
        self.broken: str | None = None
        self._table = Table(tuple(sockets), reserved, mirrors)
        self._ports: dict[str, _Port] = {}
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="builder-lan", daemon=True)
        try:
            for name, path in sockets.items():
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self._ports[name] = _Port(name, listener)
                listener.bind(str(path))
                listener.listen(1)
                listener.setblocking(False)
                self._selector.register(listener, selectors.EVENT_READ, self._ports[name])
        except OSError:
            self._close()
            raise
        self._thread.start()

    def plugged(self) -> dict[str, bool]:
        """For each port whether something holds it."""
        return {name: port.connection is not None for name, port in self._ports.items()}

    def stop(self) -> None:
        self._wake.send(b"x")
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                for key, events in self._selector.select():
                    if key.data is None:
                        return
                    self._serve(key.data, key.fileobj, events)
        except Exception as error:
            # Nothing here may fail; if it does, whoever waits for a node must hear it, not wait on.
            self.broken = f"the virtual LAN's switch broke: {error!r}"
        finally:
            self._close()

    def _serve(self, port: _Port, ready: object, events: int) -> None:
        if ready is port.listener:
            with contextlib.suppress(BlockingIOError):
                self._accept(port, port.listener.accept()[0])
        elif ready is port.connection:
            if events & selectors.EVENT_WRITE:
                self._send(port)
            if events & selectors.EVENT_READ and ready is port.connection:
                self._receive(port)

    def _accept(self, port: _Port, connection: socket.socket) -> None:
        if port.connection is not None:
            # The old holder's end may not have been read yet: a machine was killed and started again.
            self._receive(port)
        if port.connection is not None:
            connection.close()
            return
        connection.setblocking(False)
        port.connection = connection
        self._selector.register(connection, selectors.EVENT_READ, port)

    def _receive(self, port: _Port) -> None:
        assert port.connection is not None
        try:
            data = port.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._unplug(port)
            return
        port.arrived += data
        touched: set[str] = set()
        try:
            for frame in take_frames(port.arrived):
                for name in self._table.targets(frame, port.name):
                    other = self._ports[name]
                    if other.connection is not None and len(other.waiting) < QUEUE_MAX:
                        other.waiting += framed(frame)
                        touched.add(name)
        except ValueError:
            self._unplug(port)
        for name in touched:
            self._send(self._ports[name])

    def _send(self, port: _Port) -> None:
        if port.connection is None:
            return
        try:
            if port.waiting:
                sent = port.connection.send(port.waiting)
                del port.waiting[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._unplug(port)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if port.waiting else 0)
        self._selector.modify(port.connection, events, port)

    def _unplug(self, port: _Port) -> None:
        assert port.connection is not None
        self._selector.unregister(port.connection)
        port.connection.close()
        port.connection = None
        port.arrived.clear()
        port.waiting.clear()
        self._table.forget(port.name)

    def _close(self) -> None:
        for port in self._ports.values():
            port.listener.close()
            if port.connection is not None:
                port.connection.close()
                port.connection = None
        self._selector.close()
        self._wake.close()
        self._woken.close()
