"""What an ISO image on this machine holds, and where: nothing is mounted, and nothing is unpacked.

xorriso lists the files with their extents; what is to be read is then read out of the image itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import BuilderError, Exit
from builder.run import run

BLOCK = 2048  # bytes; every address in an ISO 9660 file system counts these
_DESCRIPTORS = 16  # blocks before the first volume descriptor (ECMA-119, 6.2.1)
_LINE = re.compile(r"^File data lba:\s*\d+ ,\s*(\d+) ,\s*(\d+) ,\s*(\d+) , (.+)$")
_JOLIET = (b"%/@", b"%/C", b"%/E")


@dataclass(frozen=True)
class Extent:
    """A run of a file's bytes: its first block, and its size in bytes. A file of 4 GiB and more has several."""

    block: int
    size: int


@dataclass(frozen=True)
class Volume:
    """What the volume descriptors say. ``blocks``: the size that the file system claims, in blocks."""

    blocks: int
    joliet: bool


def list_argv(iso: Path) -> list[str | Path]:
    """The command that lists every file of an image with its extents. Pure."""
    return [
        *("xorriso", "-no_rc", "-report_about", "SORRY", "-iso_rr_pattern", "off", "-indev", f"stdio:{iso}"),
        *("-find", "/", "-type", "f", "-exec", "report_lba", "--"),
    ]


def listing(iso: Path) -> Mapping[str, tuple[Extent, ...]]:
    """Path on the medium → extents, of every regular file.

    Raises BuilderError (MEDIUM) if xorriso cannot read the image.
    """
    said = run(list_argv(iso), step=f"reading {iso.name}", code=Exit.MEDIUM)
    return parse(said.stdout)


def parse(report: str) -> dict[str, tuple[Extent, ...]]:
    """Read what ``report_lba`` printed: a line an extent, each with the size of the whole file. Pure."""
    found: dict[str, tuple[Extent, ...]] = {}
    for line in report.splitlines():
        if match := _LINE.match(line):
            block, blocks, size = int(match[1]), int(match[2]), int(match[3])
            (path,) = shlex.split(match[4])
            so_far = found.get(path, ())
            left = size - sum(extent.size for extent in so_far)
            found[path] = (*so_far, Extent(block, min(blocks * BLOCK, left)))
    return found


def read(iso: Path, extents: Sequence[Extent]) -> bytes:
    """A file's bytes, out of the image. For small files: all of it comes into memory."""
    with iso.open("rb") as file:
        parts = []
        for extent in extents:
            file.seek(extent.block * BLOCK)
            parts.append(file.read(extent.size))
    return b"".join(parts)


def volume(iso: Path, start: int = 0) -> Volume:
    """The file system that begins at block ``start``: 0 for the image, more for one seen through a partition.

    Raises BuilderError (MEDIUM) if there is none.
    """
    blocks, joliet = None, False
    with iso.open("rb") as file:
        file.seek((start + _DESCRIPTORS) * BLOCK)
        while (descriptor := file.read(BLOCK))[1:6] == b"CD001" and descriptor[0] != 255:
            if descriptor[0] == 1:
                blocks = int.from_bytes(descriptor[80:84], "little")
            elif descriptor[0] == 2 and descriptor[88:91] in _JOLIET:
                joliet = True
    if blocks is None:
        raise BuilderError(
            f"{iso}: there is no ISO 9660 file system at block {start}",
            hint="is this an ISO image, and all of it?",
            code=Exit.MEDIUM,
        )
    return Volume(blocks, joliet)
