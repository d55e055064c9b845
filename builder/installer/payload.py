"""Finds the medium and proves its payload before anything is written.

The boot image holds the digest of one manifest, and the manifest holds the size and the digest of every
file. So a boot image installs exactly the payload that was built with it, without any keys. Ubuntu's boot image
is not ours to change: there the kernel's command line holds the digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import commands, facts
from .model import File, InstallError, Manifest, Match, Model, Node, Storage, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIGEST = Path("/etc/builder/manifest.sha256")
MOUNTPOINT = Path("/run/builder/medium")
NOWHERE = Path("/nonexistent")  # the folder of a payload that lies on a server
FORMAT = 1
CHUNK = 1 << 20
# Only file systems that a read-only mount leaves alone: mounting ext4 read-only still replays its journal,
# and then a disk would have been written before any check was made.
MEDIUM_TYPES = ("iso9660", "udf", "vfat")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Payload:
    """``root`` is the folder that manifest.json lies in; ``devices`` the kernel names of what it is on."""

    root: Path
    manifest: Manifest
    devices: frozenset[str]


def expected_digest(path: Path = DIGEST) -> str:
    """The digest of the manifest that this boot image installs. Raises InstallError if there is none."""
    try:
        digest = path.read_text().split()[0].lower()
    except (OSError, IndexError) as error:
        raise InstallError(f"the boot image has no {path}; it was not made by builder") from error
    if len(digest) != 64:
        raise InstallError(f"{path} does not hold a sha256: {digest!r}")
    return digest


def argued_digest(cmdline: Path = Path("/proc/cmdline")) -> str:
    """The digest of the manifest that the kernel's command line asks for. Raises InstallError if it does not."""
    digest = facts.kernel_argument("builder.manifest", cmdline).lower()
    if not digest:
        raise InstallError("the kernel's command line has no builder.manifest=; it did not arrive whole")
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InstallError(f"builder.manifest= on the kernel's command line is no sha256: {digest!r}")
    return digest


def find(digest: str, *, tries: int = 60, log: commands.Log = commands.quiet) -> Payload:
    """Mount the medium whose manifest has this digest; one try a second, for USB that is slow to appear.

    Raises InstallError naming what was looked at; after 5 tries if a medium of ours with another manifest is
    there, since then it is unlikely that the right one is still to come.
    """
    seen: dict[str, str] = {}
    found: list[Payload] = []
    others: set[str] = set()

    def look() -> bool:
        nonlocal tries
        tries -= 1
        for path in _candidates(log):
            if payload := _try(path, digest, seen, others, log):
                found.append(payload)
                return True
        if others:
            tries = min(tries, 5)
        return tries <= 0

    commands.wait_for(look, 2.0 * tries, every=1.0)
    if found:
        return found[0]
    details = tuple(f"{path}: {what}" for path, what in sorted(seen.items()))
    reason = "the payload is damaged, or belongs to another build" if others else "no medium was found"
    raise InstallError(f"{reason} (this boot image wants manifest {digest[:12]}…)", details)


def load(root: Path, digest: str) -> Payload:
    """The payload in a folder. Raises InstallError if its manifest is not the expected one."""
    try:
        data = (root / "manifest.json").read_bytes()
    except OSError as error:
        raise InstallError(f"cannot read {root / 'manifest.json'}: {error.strerror}") from error
    actual = hashlib.sha256(data).hexdigest()
    if actual != digest:
        raise InstallError(f"manifest.json has sha256 {actual}, and this boot image wants {digest}")
    return Payload(root, parse_manifest(data), facts.parent_devices(root.stat().st_dev))


def parse_manifest(data: bytes) -> Manifest:
    """Raises InstallError if it is not a manifest of this format."""
    try:
        raw = json.loads(data)
        if raw["format"] != FORMAT:
            raise InstallError(f"the manifest has format {raw['format']}, this installer reads {FORMAT}")
        files = tuple(File(entry["path"], entry["size"], entry["sha256"]) for entry in raw["files"])
        manifest = Manifest(
            cluster=raw["cluster"],
            plan=raw["plan"],
            files=files,
            layers=tuple(raw["layers"]),
            models=tuple(Model(entry["name"], entry["path"]) for entry in raw["models"]),
            nodes=tuple(_node(entry) for entry in raw["nodes"]),
            storage=_storage(raw["storage"]),
            after=raw["after"],
            index={file.path: file for file in files},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InstallError(f"the manifest is not understood: {type(error).__name__}: {error}") from error
    for path in manifest.index:
        if path.startswith("/") or ".." in path.split("/"):
            raise InstallError(f"the manifest names a file outside the payload: {path}")
    _require_places([model.name for model in manifest.models])
    return manifest


def _require_places(names: list[str]) -> None:
    """Every model file gets a place of its own below the folder of models, beside SHA256SUMS."""
    taken = {"SHA256SUMS"}
    for name in names:
        parts = name.split("/")
        if not all(parts) or "." in parts or ".." in parts:
            raise InstallError(f"the manifest names a model outside the folder of models: {name}")
        if "\\" in name or not name.isprintable():
            raise InstallError(f"the manifest names a model that SHA256SUMS cannot list: {name!r}")
        if name in taken:
            raise InstallError(f"the manifest names {name} twice among the models")
        taken.add(name)
    for name in names:
        parts = name.split("/")
        if clash := taken & {"/".join(parts[:count]) for count in range(1, len(parts))}:
            raise InstallError(f"the manifest has {clash.pop()} as a file and as a folder of models")


def _storage(raw: Mapping[str, Any]) -> Storage:
    # What a medium that was made before does not say is not asked for.
    return Storage(raw["esp"], raw["root"], raw["models"], raw.get("besides", 0), raw.get("keep", False) is True)


def _node(raw: Mapping[str, Any]) -> Node:
    match, disk = raw["match"], raw["disk"]
    return Node(
        name=raw["name"],
        match=Match(match.get("mac", ""), match.get("serial", ""), match.get("uuid", "")),
        disk=Want(
            serial=disk.get("serial", ""),
            wwn=disk.get("wwn", ""),
            path=disk.get("path", ""),
            largest=disk.get("largest", False),
            min_size=disk.get("min_size", 0),
            # Absent must mean no: a wipe needs a yes.
            overwrite=disk.get("overwrite", False),
        ),
        seed=raw["seed"],
        autoinstall=raw.get("autoinstall", ""),
    )


def used_by(manifest: Manifest, node: Node) -> tuple[File, ...]:
    """Every file that an install of this node reads.

    Raises InstallError if the manifest does not list one of them, or no seed.
    """
    seed = tuple(file for file in manifest.files if file.path.startswith(node.seed + "/"))
    if not seed:
        raise InstallError(f"the payload has no seed for {node.name}")
    wanted = (*manifest.layers, *(model.path for model in manifest.models))
    if node.autoinstall:
        wanted = (node.autoinstall, *wanted)
    return (*seed, *(manifest.file(path) for path in dict.fromkeys(wanted)))


def verify(root: Path, files: tuple[File, ...], progress: Progress) -> None:
    """Check size, then sha256 of every file; ``progress`` gets bytes done and bytes in all.

    Raises InstallError naming the first file that is missing, cut short or changed.
    """
    for file in files:
        try:
            size = (root / file.path).stat().st_size
        except OSError as error:
            raise InstallError(f"{file.path} is missing from the payload: {error.strerror}") from error
        if size != file.size:
            raise InstallError(f"{file.path} is damaged: it has {size} bytes, the manifest says {file.size}")
    total = sum(file.size for file in files)
    done = 0
    for file in files:
        hasher = hashlib.sha256()
        try:
            with (root / file.path).open("rb", buffering=0) as stream:
                while chunk := stream.read(CHUNK):
                    hasher.update(chunk)
                    done += len(chunk)
                    progress(done, total)
        except OSError as error:
            raise InstallError(f"{file.path} cannot be read: {error.strerror}") from error
        if hasher.hexdigest() != file.sha256:
            raise InstallError(
                f"{file.path} is damaged: its sha256 is not the manifest's",
                (f"is       {hasher.hexdigest()}", f"expected {file.sha256}"),
            )


def _candidates(log: commands.Log) -> list[str]:
    """Devices that may be the medium: whole ones first, then partitions (a stick with copied files).

    An initramfs has no udev rules for optical drives, so nobody has probed what is in them: they are tried.
    """
    paths = []
    for disk in facts.read_disks(log):
        kind = MEDIUM_TYPES[0] if disk.type == "rom" else disk.fstype
        devices = ((disk.path, kind), *((child.path, child.fstype) for child in disk.children))
        paths += [path for path, fstype in devices if fstype in MEDIUM_TYPES]
    return paths


def _try(path: str, digest: str, seen: dict[str, str], others: set[str], log: commands.Log) -> Payload | None:
    """Mount one device and look for our manifest; it stays mounted only when it is ours."""
    MOUNTPOINT.mkdir(parents=True, exist_ok=True)
    argv = ["mount", "-t", ",".join(MEDIUM_TYPES), "-o", "ro", path, str(MOUNTPOINT)]
    try:
        commands.run(argv, step=f"mounting {path}", log=log)
    except InstallError as failure:
        seen[path] = failure.reason
        return None
    root = MOUNTPOINT / "builder"
    try:
        if (root / "manifest.json").exists():
            return load(root, digest)
        seen[path] = "has no builder/manifest.json"
    except InstallError as failure:
        seen[path] = failure.reason
        others.add(path)
    commands.run(["umount", str(MOUNTPOINT)], step=f"unmounting {path}", log=log)
    return None


def release(log: commands.Log = commands.quiet) -> None:
    """Unmount the medium, if it is mounted."""
    if MOUNTPOINT.is_mount():
        commands.run(["umount", str(MOUNTPOINT)], step="unmounting the medium", log=log)
