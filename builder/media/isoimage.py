"""An ISO that is there, read where it lies: xorriso says which files it holds and where, and nothing is unpacked.

Facts: ECMA-119 8.4, the primary volume descriptor at sector 16 (volume identifier, space size); UEFI 5.3.2, the
GPT header at byte 512 (its backup is the last thing of a hybrid image); xorriso(1), ``report_lba`` of ``-find``.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.console import human
from builder.errors import BuilderError, Exit
from builder.run import run

SECTOR = 2048  # bytes
LIMIT = 8 << 20  # bytes; what we read whole are texts
_DESCRIPTOR = 16 * SECTOR
HEAD = _DESCRIPTOR + SECTOR  # how much of an image :func:`parse_head` wants
_LINE = re.compile(
    r"^File data lba: +(?P<part>\d+) , +(?P<start>\d+) , +\d+ , +(?P<size>\d+) , "
    r"(?P<path>'[^']*'(?:\"'\"'[^']*')*)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Extent:
    """Where a file's bytes lie: ``start`` from the beginning of the image, ``size``, both in bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class Head:
    """What the first sectors say: the volume's name, and how many bytes the image must have at least."""

    volume: str
    need: int


@dataclass(frozen=True)
class IsoImage:
    """An ISO, or a stick that holds one. ``size`` in bytes; ``files``: path → place, regular files only."""

    path: Path
    volume: str
    size: int
    files: Mapping[str, Extent]

    def read(self, name: str, limit: int = LIMIT) -> bytes:
        """The bytes of one file.

        Raises BuilderError (MEDIUM) if it is not there, larger than ``limit`` bytes, or not wholly in the image.
        """
        if name not in self.files:
            raise BuilderError(f"{self.path} has no {name}", code=Exit.MEDIUM)
        if self.files[name].size > limit:
            raise BuilderError(
                f"{self.path}: {name} has {human(self.files[name].size)}, which it cannot have", code=Exit.MEDIUM
            )
        return self.end(name, limit)

    def end(self, name: str, count: int) -> bytes:
        """The last ``count`` bytes of a file, or all that it has. Raises as :meth:`read`."""
        extent = self.files[name]
        wanted = min(count, extent.size)
        with self.path.open("rb") as file:
            file.seek(extent.start + extent.size - wanted)
            data = file.read(wanted)
        if len(data) != wanted:
            raise BuilderError(f"{self.path}: {name} lies beyond the end of the image", code=Exit.MEDIUM)
        return data


def read(path: Path) -> IsoImage:
    """Look into an ISO: a file, or the block device of a stick or disc.

    Raises BuilderError (MEDIUM) if it is no ISO, or if a part of it is missing; (TOOL) without xorriso.
    """
    try:
        with path.open("rb") as file:
            head = parse_head(file.read(HEAD))
            size = file.seek(0, 2)
    except OSError as error:
        raise BuilderError(f"{path} cannot be read: {error.strerror}", code=Exit.MEDIUM) from error
    if head is None:
        raise BuilderError(
            f"{path} is not an ISO image",
            hint="a page of a web site that was saved instead, perhaps: `file` says what it is",
            code=Exit.MEDIUM,
        )
    if size < head.need:
        raise BuilderError(
            f"{path} is cut short: it has {size:,} bytes, and needs {head.need:,}",
            hint="get it again; the download or the copy broke off",
            code=Exit.MEDIUM,
        )
    done = run(argv(path), step=f"looking into {path.name}", code=Exit.MEDIUM)
    return IsoImage(path, head.volume, size, parse_listing(done.stdout))


def argv(path: Path) -> list[str | Path]:
    """The command line that lists every regular file with its place. Pure.

    ``stdio:`` makes a block device an image to be read, and never a drive to be moved or written.
    """
    listing = ("-find", "/", "-type", "f", "-exec", "report_lba", "--")
    return ["xorriso", "-no_rc", "-abort_on", "FAILURE", "-indev", f"stdio:{path}", *listing]


def parse_head(data: bytes) -> Head | None:
    """What the first HEAD bytes of an image say, or None if it is no ISO 9660 image. Pure."""
    descriptor = data[_DESCRIPTOR:HEAD]
    if len(descriptor) < SECTOR or descriptor[:6] != b"\x01CD001":
        return None
    volume = descriptor[40:72].decode(errors="replace").rstrip(" \0")
    (sectors,) = struct.unpack_from("<I", descriptor, 80)
    need = sectors * SECTOR
    if data[512:520] == b"EFI PART":
        (backup,) = struct.unpack_from("<Q", data, 512 + 32)  # in sectors of 512 bytes
        need = max(need, (backup + 1) * 512)
    return Head(volume, need)


def parse_listing(text: str) -> dict[str, Extent]:
    """xorriso's report as path → place. Pure. A file of 4 GiB or more has several parts, one after the other."""
    found = {}
    for match in _LINE.finditer(text):
        if match["part"] == "0":
            path = match["path"][1:-1].replace("'\"'\"'", "'")
            found[path] = Extent(int(match["start"]) * SECTOR, int(match["size"]))
    return dict(sorted(found.items()))
