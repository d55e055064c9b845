"""A fixture: a live system that boots, for the ISO of :mod:`tests.liveserver`.

Kernel, cloud-init, systemd and Python are real, of the base layer that our own build makes, which is therefore the
lowest layer of the live system, too. Over it lies a small layer with a service that does what subiquity does with
an autoinstall document (``boot/live/subiquity.py``), and the base's initramfs gets a boot script that does what
casper does (``boot/live/casper``): neither of them is in Debian.
"""

from __future__ import annotations

import lzma
import tempfile
from collections.abc import Iterable
from pathlib import Path

from builder import cpio
from builder.layers import site
from builder.media.bootkit import BootKit
from builder.render import File
from builder.run import run
from tests import liveserver
from tests.liveserver import EPOCH, LAYERS

NOT_NEEDED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "systemd-binfmt.service", "systemd-resolved.service", "systemd-timesyncd.service"),
    *("modprobe@drm.service", "systemd-pstore.service", "systemd-tpm2-setup.service"),
)
HERE = Path(__file__).parent / "boot/live"


def make(target: Path, kit: BootKit, base: Path, more: Iterable[File] = ()) -> Path:
    """Write the ISO to ``target`` and return it. ``base``: the squashfs of the base layer; ``kit``: its boot kit;
    ``more``: further files of the live system. Raises BuilderError if a tool fails or is missing."""
    folder = target.with_suffix(".layers")
    folder.mkdir(parents=True)
    layers = {LAYERS[0]: folder / f"{LAYERS[0]}.squashfs"}
    overlay = repack(base, layers[LAYERS[0]])
    names = {
        LAYERS[1]: [File("/etc/hostname", 0o644, b"ubuntu-server\n")],
        LAYERS[2]: [*service(), *more],
        LAYERS[3]: [File("/run/kernel-meta-package", 0o644, b"linux-generic\n")],
    }
    for name, files in names.items():
        layers[name] = folder / f"{name}.squashfs"
        site.pack(files, layers[name], EPOCH)
    return liveserver.make(
        target,
        kernel=kit["vmlinuz"],
        initrd=initrd(kit["initrd.img"].read_bytes(), overlay),
        files={f"/casper/{name}.squashfs": path for name, path in layers.items()},
    )


def service() -> list[File]:
    """What takes the place of subiquity; and less of all else, since an emulated machine pays for each of it."""
    unit = "/etc/systemd/system/subiquity.service"
    return [
        File("/usr/lib/live/subiquity.py", 0o644, (HERE / "subiquity.py").read_bytes()),
        File(unit, 0o644, (HERE / "subiquity.service").read_bytes()),
        File("/etc/systemd/system/multi-user.target.wants/subiquity.service", 0o777, link=unit),
        File("/etc/cloud/cloud.cfg.d/90-live.cfg", 0o644, (HERE / "cloud.cfg").read_bytes()),
        File("/etc/modprobe.d/live.conf", 0o644, (HERE / "modprobe.conf").read_bytes()),
        *(File(f"/etc/systemd/system/{name}", 0o777, link="/dev/null") for name in NOT_NEEDED),
    ]


def initrd(node: bytes, overlay: bytes) -> bytes:
    """The node's initramfs with the boot script and the module ``overlay`` appended. The script is chosen as
    casper is: by a file in it, and not by the kernel's command line. Linux unpacks archives that follow one
    another at multiples of 4 bytes."""
    added = cpio.archive(
        [
            File("/scripts/casper", 0o644, (HERE / "casper").read_bytes()),
            File("/conf/conf.d/default-boot-to-casper.conf", 0o644, b"export BOOT=casper\n"),
            File("/conf/conf.d/default-layer.conf", 0o644, f"LAYERFS_PATH={LAYERS[3]}.squashfs\n".encode()),
            File("/live/overlay.ko", 0o644, overlay),
            File("/live/insmod", 0o777, link="/usr/bin/kmod"),
        ],
        EPOCH,
    )
    return node + b"\0" * (-len(node) % 4) + added


def repack(base: Path, target: Path) -> bytes:
    """The base layer for living in: a node's is packed to be unpacked in one go, and reading a small file of it
    costs a MiB. Returns the kernel's module for overlays, which a node has no need of while it boots."""
    with tempfile.TemporaryDirectory(prefix="builder-live-", dir=target.parent) as folder:
        root = Path(folder) / "root"
        run(["unsquashfs", "-quiet", "-no-progress", "-dest", root, base], step="unpacking the base layer")
        run(
            [
                *("mksquashfs", root, target, "-noappend", "-no-progress", "-quiet", "-root-mode", "755"),
                *("-comp", "zstd", "-Xcompression-level", "1", "-b", "128K", "-no-fragments"),
            ],
            step="packing the live system",
        )
        (module,) = root.glob("usr/lib/modules/*/kernel/fs/overlayfs/overlay.ko*")
        data = module.read_bytes()
    return lzma.decompress(data) if module.suffix == ".xz" else data
