"""cpio archives in the "newc" format, which Linux unpacks as an initramfs; same input, same bytes.

The format: Linux' Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable

from builder.render import File

_TRAILER = "TRAILER!!!"


def archive(files: Iterable[File], epoch: int) -> bytes:
    """One archive of the files, owned by root and dated ``epoch``; parent folders are added."""
    members: dict[str, tuple[int, bytes]] = {}
    for file in sorted(files, key=lambda file: file.path):
        parts = file.path.strip("/").split("/")
        for depth in range(1, len(parts)):
            members.setdefault("/".join(parts[:depth]), (stat.S_IFDIR | 0o755, b""))
        if file.link is not None:
            members["/".join(parts)] = (stat.S_IFLNK | 0o777, file.link.encode())
        else:
            members["/".join(parts)] = (stat.S_IFREG | file.mode, file.content)
    body = b"".join(
        _member(name, mode, content, inode, epoch)
        for inode, (name, (mode, content)) in enumerate(sorted(members.items()), start=1)
    )
    return body + _member(_TRAILER, 0, b"", 0, 0)


def _member(name: str, mode: int, content: bytes, inode: int, epoch: int) -> bytes:
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (inode, mode, 0, 0, links, epoch, len(content), 0, 0, 0, 0, len(name.encode()) + 1, 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name.encode() + b"\0") + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
