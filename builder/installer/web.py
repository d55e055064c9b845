"""The payload on a server: streamed, resumed where a connection was cut, held to the manifest before use.

Nothing here needs memory for what is streamed. The layers are proven before the first write, as from a medium:
they are hashed as they come, and kept in memory where there is room to spare. Where there is none they are thrown
away, come a second time once there is a disk, and are hashed again as they are written. Models, which are far
larger, are hashed while they are written to the disk, and get their name only when the digest is right.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

from . import commands, payload
from .model import File, InstallError, Manifest, human
from .source import Source, write_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHUNK = 1 << 18
TIMEOUT = 20.0  # seconds to connect, and between two packets
PATIENCE = 900.0  # seconds without one byte after which it gives up
LONGEST = 30.0  # seconds between two tries
RESERVE = 512 << 20  # bytes that the rest of the install may want; layers are held in what is beyond
HELD = Path("/run/builder/held")
SMALL = 8 << 20  # bytes that a manifest may have
LEAST = 900 << 20  # bytes of memory: what the kernel leaves of 1 GiB (944 MiB in a virtual machine), and less
MEMINFO = Path("/proc/meminfo")
_AGAIN = (408, 425, 429)  # of the answers 4xx, those that another try may mend


class Web(Source):
    """A payload folder at ``base``, such as ``http://10.77.0.1:8480/builder``. ``room``: bytes to hold layers in,
    None to look how much memory is free."""

    def __init__(
        self,
        base: str,
        log: commands.Log = commands.quiet,
        *,
        room: int | None = None,
        held: Path = HELD,
        patience: float = PATIENCE,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        url = urlsplit(base)
        if url.scheme != "http" or not url.hostname:
            raise InstallError(f"builder.payload={base}: only http:// addresses are understood")
        self.where = base
        self._host, self._port, self._path = url.hostname, url.port or 80, url.path.rstrip("/")
        self._log = log
        self._room = room
        self._folder = held
        self._held: dict[str, Path] = {}
        self._patience = patience
        self._sleep = sleep
        self._manifest = b""

    def manifest(self) -> bytes:
        if not self._manifest:
            self._manifest = self.small("manifest.json")
        return self._manifest

    def small(self, path: str) -> bytes:
        """A file whose size nobody told yet. Raises InstallError."""
        data = b""
        for chunk in self._chunks(path, None):
            data += chunk
            if len(data) > SMALL:
                raise InstallError(f"{path} has more than {human(SMALL)}, which it cannot have")
        return data

    def prove(self, manifest: Manifest, files: tuple[File, ...], progress: payload.Progress) -> None:
        """Layers and seeds by their digests, models by their sizes."""
        models = {model.path for model in manifest.models}
        for file in files:
            if file.path in models:
                self._require_size(file)
        whole = [file for file in files if file.path not in models]
        total = sum(file.size for file in whole)
        hold = self._may_hold(total)
        done = 0
        for file in whole:

            def come(now: int, before: int = done) -> None:
                progress(before + now, total)

            if hold:
                target = self._folder / file.sha256
                self.copy(file, target, come)
                self._held[file.sha256] = target
            else:
                _require(file, _hashed(self._chunks(file.path, file.size), come))
            done += file.size

    def copy(
        self, file: File, target: Path, progress: Callable[[int], None] | None = None, mode: int = 0o444
    ) -> None:
        held = self._held.get(file.sha256)
        part = target.with_name(target.name + ".part")
        try:
            if held is not None:
                with held.open("rb", buffering=0) as reader:
                    digest = write_parts(iter(lambda: reader.read(CHUNK), b""), part, progress, mode)
            else:
                digest = write_parts(self._chunks(file.path, file.size), part, progress, mode)
            if digest != file.sha256:
                part.unlink()
            _require(file, digest)
            part.replace(target)
        except OSError as error:
            raise InstallError(f"writing {target.name}: {error.strerror}") from error

    def local(self, file: File, folder: Path, progress: Callable[[int], None] | None = None) -> Path:
        if file.sha256 in self._held:
            return self._held[file.sha256]
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / file.path.rpartition("/")[2]
        self.copy(file, target, progress)
        return target

    def beside(self, manifest: Manifest) -> int:
        """One layer at a time, if they are not held in memory."""
        files = [manifest.file(path) for path in manifest.layers]
        return max((file.size for file in files if file.sha256 not in self._held), default=0)

    def drop(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._held = {digest: held for digest, held in self._held.items() if held != path}

    def release(self, log: commands.Log = commands.quiet) -> None:
        for path in tuple(self._held.values()):
            self.drop(path)
        if self._folder.is_mount():
            commands.run(["umount", str(self._folder)], step="giving back the memory of the layers", log=log)

    def _may_hold(self, total: int) -> bool:
        room = max(0, memory_available() - RESERVE) if self._room is None else self._room
        if total > room:
            self._log(f"{human(total)} are not held in memory, where {human(room)} may be used: they come twice")
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._room is None:  # /run itself is a small part of the memory
            argv = [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={total + (16 << 20)},mode=0700",
                "tmpfs",
                str(self._folder),
            ]
            commands.run(argv, step="taking memory for the layers", log=self._log)
        return True

    def _require_size(self, file: File) -> None:
        """Ask for the first byte only: the answer names the size of all."""
        next(self._chunks(file.path, file.size, upto=1), b"")

    def _chunks(self, path: str, size: int | None, upto: int | None = None) -> Iterator[bytes]:
        """The bytes of one file, whatever happens to the connection meanwhile. ``upto``: no more than these.

        Raises InstallError: gone, refused, of another size, or not one byte in ``patience`` seconds.
        """
        have = tries = 0
        waited = 0.0
        end = size if upto is None or size is None else min(size, upto)
        while True:
            complaint = "the connection was cut"
            connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT)
            try:
                reply = self._ask(connection, path, have, end)
                if reply.status < 500 and reply.status not in _AGAIN:
                    total = _total(reply)
                    self._judge(path, reply, total, size)
                    size = total if size is None else size
                    end = size if end is None else end
                    skip = have if reply.status == 200 else 0  # a server without ranges begins at the beginning
                    while chunk := self._read(reply):
                        fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                        fresh = fresh if end is None else fresh[: end - have]
                        if fresh:
                            have += len(fresh)
                            tries, waited = 0, 0.0
                            yield fresh
                        if have == end:
                            return
                    if end is None or have == end:
                        return
                else:
                    complaint = f"the server answered {reply.status} {reply.reason}"
            except (_CutError, http.client.HTTPException, OSError) as error:
                complaint = str(error) or type(error).__name__
            finally:
                connection.close()
            tries += 1
            pause = back_off(tries)
            waited += pause + 1
            if waited > self._patience:
                raise InstallError(f"{path} does not come from {self.where}: {complaint} ({tries} tries)")
            self._log(f"{path}: {complaint} at {have} bytes; trying again in {pause:.1f} s")
            self._sleep(pause)

    def _ask(
        self, connection: http.client.HTTPConnection, path: str, have: int, end: int | None
    ) -> http.client.HTTPResponse:
        headers = {"Accept-Encoding": "identity", "User-Agent": "builder-installer"}
        if have or end is not None:
            last = "" if not end else str(end - 1)
            if end != 0:
                headers["Range"] = f"bytes={have}-{last}"
        connection.request("GET", f"{self._path}/{quote(path)}", headers=headers)
        return connection.getresponse()

    def _read(self, reply: http.client.HTTPResponse) -> bytes:
        try:
            return reply.read(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _CutError(f"the connection was cut: {error}") from error

    def _judge(self, path: str, reply: http.client.HTTPResponse, total: int | None, size: int | None) -> None:
        if reply.status == 404:
            raise InstallError(f"{path} is missing from the payload at {self.where}")
        if reply.status not in (200, 206, 416):
            raise InstallError(f"{path}: {self.where} answered {reply.status} {reply.reason}")
        if size is not None and total is not None and total != size:
            raise InstallError(f"{path} is damaged: it has {total} bytes, the manifest says {size}")
        if reply.status == 416:
            raise InstallError(f"{path} is damaged: it is shorter than the manifest says")


class _CutError(Exception):
    """The connection ended before the file did."""


def back_off(tries: int) -> float:
    """Seconds to wait before the next try: longer each time, and never the same for two nodes."""
    return min(LONGEST, 0.5 * float(2 ** min(tries, 10))) * random.uniform(0.5, 1.0)


def memory_available(path: Path = MEMINFO) -> int:
    """Bytes of memory that programs could still get."""
    return _memory("MemAvailable:", path)


def require_memory(path: Path = MEMINFO) -> None:
    """Raises InstallError with both numbers if the machine has less memory than is promised to be enough."""
    have = _memory("MemTotal:", path)
    if have < LEAST:
        raise InstallError(
            f"this machine has {human(have)} of memory, and an install over the network needs 1 GiB"
        )


def _memory(name: str, path: Path) -> int:
    """In bytes, 0 if the kernel does not say."""
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _total(reply: http.client.HTTPResponse) -> int | None:
    """The size of the whole file, as the server tells it."""
    told = reply.headers.get("Content-Range", "").rpartition("/")[2]
    if reply.status == 200:
        told = reply.headers.get("Content-Length", "")
    return int(told) if told.isdecimal() else None


def _hashed(chunks: Iterator[bytes], progress: Callable[[int], None]) -> str:
    hasher, done = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        done += len(chunk)
        progress(done)
    return hasher.hexdigest()


def _require(file: File, digest: str) -> None:
    if digest != file.sha256:
        raise InstallError(
            f"{file.path} is damaged: its sha256 is not the manifest's",
            (f"is       {digest}", f"expected {file.sha256}"),
        )
