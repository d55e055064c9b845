"""The network-boot tree: what ``make pxe`` makes, and any TFTP and HTTP server can serve.

    boot/      shimx64.efi, grubx64.efi, mmx64.efi, grub.pxe, vmlinuz, initramfs.img
    builder/   manifest.json, manifest.sig, layers/, models/, seeds/
    live/      with Ubuntu's installer, whose ISO is in boot/: the seed of its live system
    tree.json  the plan, the manifest's digest, the kernel's arguments

Large files are hard links to the cache, or to where a model lies: no byte is there twice.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.canonical import canonical
from builder.errors import BuilderError, Exit
from builder.files import complete_or_absent, link_or_copy, need_room
from builder.media import bootkit
from builder.media.bootkit import BootKit
from builder.media.payload import FOLDER, Payload
from builder.netboot import keys, live
from builder.netboot.live import Live, Ubuntu
from builder.nodefacts import Console
from builder.plan import Plan

FORMAT = 2
BOOT: Mapping[str, str] = {
    "shimx64.efi": "shim.efi",
    "grubx64.efi": "grubnet.efi",  # the name that shim asks the server for
    "mmx64.efi": "mm.efi",
    "grub.pxe": "grub.pxe",
}
KERNEL = ("vmlinuz", "initramfs.img")
SEED = ("user-data", "meta-data")
_STEP = "writing the network-boot tree"


@dataclass(frozen=True)
class Tree:
    """A finished tree. ``arguments``: of every kernel that it starts, for its consoles. ``serial``: unit and speed
    of the serial console, if there is one. ``live``: with Ubuntu's own installer."""

    folder: Path
    cluster: str
    plan: str
    manifest: str
    arguments: str
    serial: Console | None
    live: Live | None = None

    @property
    def boot(self) -> Path:
        return self.folder / "boot"

    @property
    def payload(self) -> Path:
        return self.folder / FOLDER.strip("/")

    @property
    def seed(self) -> Path:
        return self.folder / "live"


def write(plan: Plan, kit: BootKit, payload: Payload, target: Path, ubuntu: Ubuntu | None = None) -> Tree:
    """Write the tree to the folder ``target``, complete or not at all; ``ubuntu``: of Ubuntu's own installer.

    Raises BuilderError if it is being served, or the disk is full, or as :func:`builder.netboot.live.fill`.
    """
    assert plan.id is not None
    key = keys.secret(plan.cluster.name)
    need_room(target.parent, 128 << 20, step=_STEP)
    tree = Tree(target, plan.cluster.name, plan.id, payload.sha256, plan.kernel_arguments, plan.serial)
    with unserved(target), complete_or_absent(target, step=_STEP) as part:
        made = replace(tree, folder=part)
        for path, file in {**payload.files, "manifest.json": payload.manifest_bytes}.items():
            place = made.payload / path
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(file, bytes):
                place.write_bytes(file)
            else:
                link_or_copy(file.resolve(), place)
        keys.sign(key, made.payload / "manifest.json", made.payload / "manifest.sig")
        made.boot.mkdir()
        for name, source in BOOT.items():
            link_or_copy(kit[source], made.boot / name)
        if ubuntu is None:
            link_or_copy(kit["vmlinuz"], made.boot / "vmlinuz")
            bootkit.network_initramfs(kit, keys.public(key), made.boot / "initramfs.img", plan.epoch)
        else:
            tree = replace(tree, live=live.fill(plan, ubuntu, payload, made.boot))
            made.seed.mkdir()
            for name in SEED:
                (made.seed / name).write_bytes(plan.live[name])
        (part / "tree.json").write_bytes(canonical({"format": FORMAT, **_facts(tree)}))
    return tree


def _facts(tree: Tree) -> dict[str, Any]:
    return {
        "cluster": tree.cluster,
        "plan": tree.plan,
        "manifest": tree.manifest,
        "arguments": tree.arguments,
        "serial": [tree.serial.unit, tree.serial.speed] if tree.serial else None,
        "live": [tree.live.iso, tree.live.size] if tree.live else None,
    }


def read(folder: Path) -> Tree:
    """A tree that was made. Raises BuilderError (MEDIUM) if there is none, or a file of it is missing."""
    try:
        data = json.loads((folder / "tree.json").read_bytes())
        if data["format"] != FORMAT:
            raise _damaged(folder, f"its format is {data['format']}, and {FORMAT} is known")
        serial = Console(*data["serial"]) if data["serial"] else None
        ubuntu = Live(*data["live"]) if data["live"] else None
        tree = Tree(folder, data["cluster"], data["plan"], data["manifest"], data["arguments"], serial, ubuntu)
        manifest = json.loads((tree.payload / "manifest.json").read_bytes())
        files = [(tree.payload / entry["path"], int(entry["size"])) for entry in manifest["files"]]
    except FileNotFoundError as error:
        raise BuilderError(
            f"{folder}: there is no network-boot tree ({error.filename} is missing)",
            hint="make pxe CLUSTER=… makes it",
            code=Exit.MEDIUM,
        ) from error
    except PermissionError as error:
        raise _closed(Path(error.filename)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"it cannot be read: {error!r}") from error
    named = [tree.payload / "manifest.sig", *(tree.boot / name for name in (*BOOT, *KERNEL))]
    if tree.live:
        files.append((tree.boot / tree.live.iso, tree.live.size))
        named += [tree.seed / name for name in SEED]
    for path in [*named, *(path for path, _ in files)]:
        if not path.is_file():
            raise _damaged(folder, f"{path.relative_to(folder)} is missing")
    for path, size in files:
        if path.stat().st_size != size:
            raise _damaged(folder, f"{path.relative_to(folder)} has {path.stat().st_size} bytes, not {size}")
    return tree


def _damaged(folder: Path, why: str) -> BuilderError:
    return BuilderError(
        f"{folder}: the network-boot tree is damaged: {why}",
        hint="make pxe CLUSTER=… makes it anew",
        code=Exit.MEDIUM,
    )


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def unserved(folder: Path) -> Iterator[None]:
    """Nobody may begin to serve the tree meanwhile. Raises BuilderError if somebody does already."""
    with _held(folder, fcntl.LOCK_EX, f"{folder} is being served", "stop `builder serve` first"):
        yield


@contextmanager
def served(folder: Path) -> Iterator[None]:
    """The tree stays as it is meanwhile. Raises BuilderError if it is being made, or served already."""
    with _held(folder, fcntl.LOCK_EX, f"{folder} is being made, or served already", "one at a time"):
        yield


@contextmanager
def _held(folder: Path, how: int, what: str, hint: str) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = _lock(folder).open("w")
    except PermissionError as error:
        raise _closed(_lock(folder)) from error
    with file:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BuilderError(what, hint=hint) from error
        yield


def _closed(path: Path) -> BuilderError:
    return BuilderError(f"{path} is closed to this user", hint="be who made the tree, or root: sudo, as for serve")
