"""The remaster of Ubuntu's ISO: against a copy of the same bytes, and against isobake, which makes an ISO a node.

The source is laid out as Ubuntu's and as large, of bytes that do not compress. isobake 0.2.0 comes from PyPI into
an environment that is thrown away; its own library call is what is timed.
"""

from __future__ import annotations

import os
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

from bench.figure import Figure, seconds
from builder.media import grubconfig
from builder.media import remaster as remastering
from builder.media.catalog import Source
from builder.media.payload import Payload
from builder.run import run
from tests import liveserver

NODES = 4
ROUNDS = 3  # the best of them counts
SOURCE_SIZE = 2900 << 20  # bytes; Ubuntu 24.04.3's is 3.1 GB
LAYER_SIZE = 1200 << 20  # bytes; a node with a driver and CUDA's libraries
PLAN = "0123456789abcdef" * 4

_ISOBAKE = """
import sys
from pathlib import Path
from isobake import iso
source, folder, nodes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
menus = iso.patched_boot_cfgs(source)
for node in range(nodes):
    made = iso.repack(source, folder / f"isobake{node}.iso", "#cloud-config\\nautoinstall: {version: 1}\\n", menus)
    made.unlink()  # room on the disk; takes no time that counts
"""


def remaster(folder: Path) -> Iterator[Figure]:
    """One ISO with a payload against cp; one ISO for all nodes against an ISO each."""
    source, target, copied = folder / "ubuntu.iso", folder / "lab.iso", folder / "copy.iso"
    squashfs = _noise(folder / "squashfs", SOURCE_SIZE)
    files = {"casper/ubuntu-server-minimal.squashfs": squashfs}
    liveserver.make(source, kernel=b"k" * (15 << 20), initrd=b"i" * (70 << 20), files=files)
    squashfs.unlink()
    layer = _noise(folder / "node.squashfs", LAYER_SIZE)
    full = Payload({"layers": ["layers/node.squashfs"]}, {"layers/node.squashfs": layer})
    ours, copy = [], []
    for _ in range(ROUNDS):
        ours.append(seconds(lambda: _write(source, target, full)))
        copied.unlink(missing_ok=True)
        copy.append(seconds(lambda: _copy(target, copied)))
    copied.unlink()
    target.unlink()
    title, size = "remaster, 1.2 GiB of layers", "cp + fsync of the same bytes"
    yield Figure(title, min(ours), size, min(copy), "1.15 cp", 1.15 * min(copy))

    venv.create(folder / "isobake", with_pip=True)
    run([folder / "isobake/bin/pip", "install", "--quiet", "isobake==0.2.0"], step="installing isobake")
    argv: list[str | Path] = [folder / "isobake/bin/python", "-c", _ISOBAKE, source, folder, str(NODES)]
    theirs = seconds(lambda: run(argv, step="isobake"))
    small = Payload({"layers": []}, {f"seeds/node{i}/user-data": b"#cloud-config\n" for i in range(NODES)})
    one = seconds(lambda: _write(source, target, small))
    title = f"remaster for {NODES} nodes"
    yield Figure(title, one, f"isobake, {NODES} ISOs", theirs, f"a {NODES}th of it", theirs / NODES)


def _write(source: Path, target: Path, payload: Payload) -> None:
    nodes = tuple(f"node{i}" for i in range(NODES))
    wanted = grubconfig.arguments(payload.sha256, "console=tty0")
    remastering.write(
        source_iso=source,
        target=target,
        plan_id=PLAN,
        epoch=1_760_000_000,
        payload=payload,
        live_files={},
        autoinstall=b"version: 1\n",
        menu=grubconfig.Menu("bench", PLAN, nodes, 5, None, wanted),
        source=Source("node.squashfs", 1, "bench", "bench"),
    )


def _copy(source: Path, target: Path) -> None:
    """As durable as ours: a build ends with its bytes on the disk."""
    run(["cp", source, target], step="copying")
    run(["sync", target], step="copying")


def _noise(path: Path, size: int) -> Path:
    block = os.urandom(16 << 20)
    with path.open("wb") as file:
        for index in range(size // len(block)):
            file.write(index.to_bytes(8, sys.byteorder) + block[8:])
    return path
