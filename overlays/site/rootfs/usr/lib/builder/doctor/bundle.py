"""One archive for whoever helps: logs, versions, network and GPU state of this node, without its secrets.

What goes in is a list; nothing is taken because it lies in some folder with a nice name. Every text is scrubbed.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import time
from pathlib import Path

from . import node, scrub
from .commands import Done, run

LIMIT = 32 << 20  # bytes of one text; of a longer one the end is kept

FILES = (
    node.CLUSTER,
    node.NODE,
    node.MANIFEST,
    "etc/nftables.conf",
    "etc/os-release",
    "proc/cmdline",
    "proc/meminfo",
    "proc/net/tcp",
    "run/cloud-init/result.json",
    "run/cloud-init/status.json",
    "srv/models/SHA256SUMS",
    "var/log/builder/install.log",
    "var/log/cloud-init.log",
    "var/log/cloud-init-output.log",
)
PATTERNS = ("etc/netplan/*.yaml", "etc/systemd/system/*.service", "var/log/builder/*")

COMMANDS: dict[str, tuple[str, ...]] = {
    "journal.txt": ("journalctl", "--boot", "--no-pager", "--output", "short-iso-precise"),
    "units.txt": ("systemctl", "list-units", "--all", "--no-pager", "--plain"),
    "failed.txt": ("systemctl", "status", "--failed", "--no-pager", "--full"),
    "packages.txt": ("dpkg-query", "--show"),
    "kernel.txt": ("uname", "-a"),
    "ip-address.txt": ("ip", "-details", "address"),
    "ip-route.txt": ("ip", "route", "show", "table", "all"),
    "ip-neighbour.txt": ("ip", "neighbour"),
    "sockets.txt": ("ss", "--all", "--numeric", "--tcp", "--udp", "--processes", "--info"),
    "nft.txt": ("nft", "list", "ruleset"),
    "links.txt": ("ip", "-statistics", "link"),
    "disks.txt": ("lsblk", "--output", "NAME,SIZE,TYPE,FSTYPE,MOUNTPOINTS,MODEL"),
    "space.txt": ("df", "--human-readable"),
    "memory.txt": ("free", "--mebi"),
    "pci.txt": ("lspci", "-nnk"),
    "modules.txt": ("lsmod",),
    "gpu.txt": ("nvidia-smi", "-q"),
    "clock.txt": ("timedatectl", "show"),
}


def default_path(cluster: str, name: str) -> Path:
    """Where the archive goes unless somebody says: on the disk, as /tmp may be small."""
    return Path("/var/tmp") / f"{cluster}-{name}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.tar.gz"


def write(target: Path, doctor: dict[str, str], root: Path = Path("/")) -> list[str]:
    """Write the archive, complete or absent, readable by its owner only; the names of what is in it.

    ``doctor``: further texts by name. A file or program that is not there is in the archive too, as the reason
    why. Raises OSError if the archive cannot be written.
    """
    texts = {**doctor, **_files(root), **{f"commands/{name}": _output(argv) for name, argv in COMMANDS.items()}}
    top = target.name.removesuffix(".gz").removesuffix(".tar").removesuffix(".tgz")
    part = target.with_name(f".{target.name}.part")
    try:
        with (
            os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as zipped,
            tarfile.open(fileobj=zipped, mode="w") as archive,
        ):
            for name, text in sorted(texts.items()):
                content = scrub.scrub(text).encode()
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
                archive.addfile(entry, io.BytesIO(content))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return sorted(texts)


def _files(root: Path) -> dict[str, str]:
    paths = {root / name for name in FILES}
    for pattern in PATTERNS:
        paths.update(root.glob(pattern))
    found = {}
    for path in sorted(paths):
        name = str(path.relative_to(root))
        # The link's target counts too: a harmless name may lead to a secret.
        if scrub.secret_name(name) or scrub.secret_name(str(path.resolve())):
            found[f"files/{name}"] = scrub.GONE
        elif not path.is_dir():
            found[f"files/{name}"] = _read(path)
    return found


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(max(0, size - LIMIT))
            return file.read(LIMIT).decode(errors="replace")
    except OSError as error:
        return f"[{error.strerror}]\n"


def _output(argv: tuple[str, ...]) -> str:
    done: Done = run(*argv, timeout=60)
    head = f"$ {' '.join(argv)}\n"
    failed = f"[exit status {done.rc}]\n{done.err[-LIMIT:]}" if done.rc else ""
    return head + done.out[-LIMIT:] + failed
