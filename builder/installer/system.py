"""Fills the node's file systems: layers, fstab, seed, models, boot loader, and last the marker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import commands, disk, keep
from .commands import Log, quiet
from .model import File, InstallError, Manifest, Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .source import Source

Progress = Callable[[int, int], None]

MODELS = "srv/models"
SEED = "var/lib/cloud/seed/nocloud"
MARKERS = "EFI/builder"
FSTAB_HEAD = "# Written by the installer of cluster-image-builder.\n"


def unpack(layer: Path, target: Path, progress: Progress, log: Log = quiet) -> None:
    """Unpack a layer over those below it.

    ``progress`` gets compressed bytes read and in all, taken from /proc/PID/io: unsquashfs shows its own
    progress to terminals only. -da and -fr bound its queues (MiB), so small machines can be installed.
    """
    size = layer.stat().st_size

    def poll(pid: int) -> None:
        progress(min(bytes_read(pid), size), size)

    options = ["-no-progress", "-force", "-da", "64", "-fr", "64", "-dest", str(target)]
    commands.run(["unsquashfs", *options, str(layer)], step=f"unpacking {layer.name}", log=log, poll=poll)


def bytes_read(pid: int) -> int:
    """What a process has read so far; 0 where the kernel does not count it."""
    try:
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            name, _, value = line.partition(": ")
            if name == "rchar":
                return int(value)
    except OSError:
        pass
    return 0


def fstab(volumes: disk.Volumes) -> str:
    """The node's /etc/fstab. Models are data that nobody may change or run.

    Only root is needed to boot: without ``nofail`` a slow or broken ESP ends in an emergency shell that nobody
    can enter, and a node without its models can at least say so.
    """
    rows = [
        (f"UUID={volumes.root.uuid}", "/", "ext4", "errors=remount-ro", "0", "1"),
        (f"UUID={volumes.esp.uuid}", "/boot/efi", "vfat", "umask=0077,nofail", "0", "1"),
    ]
    if volumes.models:
        options = "ro,nodev,nosuid,noexec,nofail,x-systemd.device-timeout=5min"
        rows.append((f"UUID={volumes.models.uuid}", f"/{MODELS}", "ext4", options, "0", "2"))
    return FSTAB_HEAD + "".join("\t".join(row) + "\n" for row in rows)


def mounts_in(fstab: str) -> list[str]:
    """Where the lines of an fstab mount something."""
    rows = (line.split() for line in fstab.splitlines() if not line.lstrip().startswith("#"))
    return [row[1] for row in rows if len(row) > 1]


def tables(target: Path, volumes: disk.Volumes) -> None:
    """Which file systems the node mounts."""
    write(target / "etc/fstab", fstab(volumes), 0o644)


def identity(target: Path, source: Source, node: Node) -> None:
    """The node's name, and the manifest that tells what the node was made from."""
    write(target / "etc/builder/node", node.name + "\n", 0o644)
    write(target / "usr/share/builder/manifest.json", source.manifest().decode(), 0o644)


def seed(target: Path, source: Source, node: Node, files: tuple[File, ...]) -> None:
    """Drop the NoCloud seed: the files of the manifest, not what else may lie in the folder. Root only, since
    it holds the password's hash."""
    folder = target / SEED
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for file in files:
        if file.path.startswith(node.seed + "/"):
            source.copy(file, folder / file.path.rpartition("/")[2], mode=0o600)


def models(target: Path, source: Source, manifest: Manifest, progress: Progress) -> None:
    """Bring the models, with the folders they lie in, and write SHA256SUMS. What is there already and whole, in
    a models partition that was kept, is not brought again; what is not of this manifest goes.

    The digest is taken while copying, and each file is fsynced: this proves that what was written is what was
    built, which catches a stick that reads differently the second time. Reading the copy back here would
    mostly read the page cache; the node itself checks SHA256SUMS from its disk at first boot.
    """
    if not manifest.models:
        return
    folder = target / MODELS
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    total = sum(manifest.model_sizes)
    done = 0
    kept = keep.sort_out(folder, manifest, progress)
    for model in manifest.models:
        file = manifest.file(model.path)

        def copied(now: int, before: int = done) -> None:
            progress(before + now, total)

        if model.name not in kept:
            _folders(folder, model.name)
            source.copy(file, folder / model.name, copied)
        done += file.size
    sums = "".join(f"{manifest.file(model.path).sha256}  {model.name}\n" for model in manifest.models)
    write(folder / "SHA256SUMS", sums, 0o444)


def _folders(top: Path, name: str) -> None:
    """Make the folders of a file below ``top``; everyone may read them."""
    folder = top
    for part in name.split("/")[:-1]:
        folder /= part
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def boot_loader(target: Path, device: str, sector: int, volumes: disk.Volumes, log: Log = quiet) -> None:
    """GRUB for BIOS and for UEFI (signed shim, removable path, no NVRAM), and its menu.

    Raises InstallError if a command fails, or if the menu does not boot the root by a name that lasts:
    update-grub falls back to a device name without a word when udev's by-uuid link is missing, and those change.
    """
    link = Path("/dev/disk/by-uuid") / volumes.root.uuid
    if not commands.wait_for(link.exists, 20):
        raise InstallError(f"udev made no link {link}")
    with entered(target, log):
        for step, argv in boot_loader_commands(device, sector):
            commands.run(["chroot", str(target), *argv], step=step, log=log)
    menu = (target / "boot/grub/grub.cfg").read_text(encoding="utf-8", errors="replace")
    if not any(f"root={name}" in menu for name in lasting_names(volumes.root)):
        raise InstallError("the boot menu does not boot the root file system by its UUID")


@contextmanager
def entered(target: Path, log: Log = quiet) -> Iterator[None]:
    """The node's root with what its programs expect of a system, to be used with chroot. Raises InstallError."""
    points = [target / name for name in ("dev", "proc", "sys")]
    try:
        for point in points:
            point.mkdir(exist_ok=True)
            # Plain binds: a recursive one of /run or / would hold the target itself.
            commands.run(["mount", "--bind", f"/{point.name}", str(point)], step="entering the node", log=log)
        yield
    finally:
        for point in reversed(points):
            if point.is_mount():
                commands.run(["umount", str(point)], step="leaving the node", log=log)


def lasting_names(root: disk.Volume) -> tuple[str, ...]:
    """What a boot menu may call the root file system. A logical volume's name is in its metadata, and update-grub
    prefers it (grub.d/10_linux, uses_abstraction lvm)."""
    return (f"UUID={root.uuid}", *([root.path] if root.path.startswith("/dev/mapper/") else []))


def boot_loader_commands(device: str, sector: int) -> tuple[tuple[str, list[str]], ...]:
    """(step, argv) in order, to be run inside the node.

    BIOS calls read disks in 512 byte sectors only, so GRUB for BIOS is left out on 4Kn disks.
    """
    bios = ["grub-install", "--target=i386-pc", device]
    efi = [
        "grub-install",
        "--target=x86_64-efi",
        "--uefi-secure-boot",
        "--removable",
        "--no-nvram",
        "--efi-directory=/boot/efi",
    ]
    steps = [("installing GRUB for BIOS", bios)] if sector == 512 else []
    return (*steps, ("installing GRUB for UEFI", efi), ("writing GRUB's menu", ["update-grub"]))


def keep_log(target: Path, log_path: Path) -> None:
    """Copy the installer's log to the node."""
    folder = target / "var/log/builder"
    folder.mkdir(parents=True, exist_ok=True)
    copied = folder / "install.log"
    copied.write_bytes(log_path.read_bytes())
    copied.chmod(0o640)


def marker(esp: Path, plan: str, order: str = "") -> None:
    """The sign that the install is complete: the medium's menu boots the disk when it finds it. ``order`` is the
    one order to install that was carried out, if there was one: it is never carried out twice."""
    if order:
        write(esp / MARKERS / f"order-{order}", "", 0o644)
    write(esp / MARKERS / plan, "", 0o644)


def carried_out(esp: Path, order: str) -> bool:
    """Whether the install that ``order`` asked for is complete on this ESP."""
    return (esp / MARKERS / f"order-{order}").exists()


def write(path: Path, text: str, mode: int) -> None:
    """Write a small file of the node's, with the folders that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
    path.chmod(mode)
