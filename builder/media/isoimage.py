"""An ISO that is there, read where it lies: xorriso says which files it holds and where, and nothing is unpacked.

Facts: ECMA-119 8.4, the primary volume descriptor at block 16 (volume identifier, space size); UEFI 5.3.2, the
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

BLOCK = 2048  # bytes; every address in an ISO 9660 file system counts these
LIMIT = 8 << 20  # bytes; what we read whole are texts
_DESCRIPTORS = 16  # blocks before the first volume descriptor
_DESCRIPTOR = _DESCRIPTORS * BLOCK
HEAD = _DESCRIPTOR + BLOCK  # how much of an image :func:`parse_head` wants
_LINE = re.compile(
    r"^File data lba: +\d+ , +(?P<block>\d+) , +(?P<blocks>\d+) , +(?P<size>\d+) , "
    r"(?P<path>'[^']*'(?:\"'\"'[^']*')*)$",
    re.MULTILINE,
)
_JOLIET = (b"%/@", b"%/C", b"%/E")


@dataclass(frozen=True)
class Extent:
    """A run of a file's bytes: its first block, and its size in bytes."""

    block: int
    size: int


@dataclass(frozen=True)
class Place:
    """Where a file's bytes lie; a file of 4 GiB or more has several extents, one after the other."""

    extents: tuple[Extent, ...]

    @property
    def start(self) -> int:
        """In bytes, from the beginning of the image."""
        return self.extents[0].block * BLOCK

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(extent.size for extent in self.extents)


@dataclass(frozen=True)
class Head:
    """What the first sectors say: the volume's name, and how many bytes the image must have at least."""

    volume: str
    need: int


@dataclass(frozen=True)
class FileSystem:
    """What the volume descriptors say. ``blocks``: the size that the file system claims, in blocks."""

    blocks: int
    joliet: bool


@dataclass(frozen=True)
class IsoImage:
    """An ISO, or a stick that holds one. ``size`` in bytes; ``files``: path → place, regular files only."""

    path: Path
    volume: str
    size: int
    files: Mapping[str, Place]

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
        place = self.files[name]
        wanted = min(count, place.size)
        with self.path.open("rb") as file:
            file.seek(place.start + place.size - wanted)
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
    return IsoImage(path, head.volume, size, listing(path))


def listing(path: Path) -> Mapping[str, Place]:
    """Path on the medium → place, of every regular file.

    Raises BuilderError (MEDIUM) if xorriso cannot read the image.
    """
    return parse_listing(run(argv(path), step=f"looking into {path.name}", code=Exit.MEDIUM).stdout)


def content(path: Path, place: Place) -> bytes:
    """A small file's bytes, out of the image."""
    with path.open("rb") as file:
        file.seek(place.start)
        return file.read(place.size)


def file_system(path: Path, start: int = 0) -> FileSystem:
    """The file system that begins at block ``start``: 0 for the image, more for one seen through a partition.

    Raises BuilderError (MEDIUM) if there is none.
    """
    blocks, joliet = None, False
    with path.open("rb") as file:
        file.seek((start + _DESCRIPTORS) * BLOCK)
        while (descriptor := file.read(BLOCK))[1:6] == b"CD001" and descriptor[0] != 255:
            if descriptor[0] == 1:
                blocks = int.from_bytes(descriptor[80:84], "little")
            elif descriptor[0] == 2 and descriptor[88:91] in _JOLIET:
                joliet = True
    if blocks is None:
        raise BuilderError(
            f"{path}: there is no ISO 9660 file system at block {start}",
            hint="is this an ISO image, and all of it?",
            code=Exit.MEDIUM,
        )
    return FileSystem(blocks, joliet)


def argv(path: Path) -> list[str | Path]:
    """The command line that lists every regular file with its place. Pure.

    ``stdio:`` makes a block device an image to be read, and never a drive to be moved or written.
    """
    return [
        *("xorriso", "-no_rc", "-abort_on", "FAILURE", "-iso_rr_pattern", "off", "-indev", f"stdio:{path}"),
        *("-find", "/", "-type", "f", "-exec", "report_lba", "--"),
    ]


def parse_head(data: bytes) -> Head | None:
    """What the first HEAD bytes of an image say, or None if it is no ISO 9660 image. Pure."""
    descriptor = data[_DESCRIPTOR:HEAD]
    if len(descriptor) < BLOCK or descriptor[:6] != b"\x01CD001":
        return None
    volume = descriptor[40:72].decode(errors="replace").rstrip(" \0")
    (sectors,) = struct.unpack_from("<I", descriptor, 80)
    need = sectors * BLOCK
    if data[512:520] == b"EFI PART":
        (backup,) = struct.unpack_from("<Q", data, 512 + 32)  # in sectors of 512 bytes
        need = max(need, (backup + 1) * 512)
    return Head(volume, need)


def parse_listing(text: str) -> dict[str, Place]:
    """xorriso's report as path → place: a line an extent, each with the size of the whole file. Pure."""
    found: dict[str, Place] = {}
    for match in _LINE.finditer(text):
        path = match["path"][1:-1].replace("'\"'\"'", "'")
        so_far = found.get(path, Place(()))
        left = int(match["size"]) - so_far.size
        extent = Extent(int(match["block"]), min(int(match["blocks"]) * BLOCK, left))
        found[path] = Place((*so_far.extents, extent))
    return dict(sorted(found.items()))
