"""What a network-boot tree has for Ubuntu's own installer: its kernel and initramfs, and the remastered ISO.

The initramfs is the ISO's, with a check of the memory appended (``overlays/netlive``): casper fetches the ISO into
the file system of the initramfs and mounts it there (casper 1.498, scripts/casper, do_urlmount), so the ISO takes
its whole size of memory. The models are therefore left out of it; the late command takes them from the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder import cpio, render
from builder.errors import BuilderError, Exit
from builder.media import isoimage, livemedium
from builder.media.isoimage import IsoImage
from builder.media.liveiso import CASPER
from builder.media.payload import Payload
from builder.plan import Plan
from builder.spec.model import Cluster

# Bytes of memory beside the ISO: the unpacked initramfs, the live system, its snaps, and curtin. Ubuntu asks for
# 1.5 GiB to install from a medium; the initramfs of 24.04 unpacks to about 0.2 GiB.
SYSTEM = 2 << 30


@dataclass(frozen=True)
class Live:
    """``iso``: the name of the ISO among the boot files, and ``size`` its bytes."""

    iso: str
    size: int

    @property
    def memory(self) -> int:
        """Bytes that a machine needs to install."""
        return self.size + SYSTEM


@dataclass(frozen=True)
class Ubuntu:
    """What the ISO is made of: the base ISO, and the layers, lowest first."""

    iso: Path
    stack: Sequence[Path]


def require(cluster: Cluster) -> None:
    """Raises BuilderError (SPEC) for what must not go over a network."""
    if cluster.storage.luks:
        raise BuilderError(
            f"{cluster.name}: with media.installer: subiquity, storage.luks is not served over the network: the "
            "passphrase is in the node's document, which everybody on the cluster's subnet could read",
            hint="install encrypted nodes from a stick: make iso",
            code=Exit.SPEC,
        )


def fill(plan: Plan, ubuntu: Ubuntu, payload: Payload, boot: Path) -> Live:
    """Write kernel, initramfs and ISO to the folder ``boot``.

    Raises BuilderError (MEDIUM) if the ISO cannot be taken.
    """
    image = isoimage.read(ubuntu.iso)
    kernel, initrd = boot_files(image, hwe=plan.cluster.distribution.kernel == "hwe")
    (boot / "vmlinuz").write_bytes(_content(image, kernel))
    (boot / "initramfs.img").write_bytes(initramfs(_content(image, initrd), plan.epoch))
    iso = boot / f"{plan.cluster.name}.iso"
    livemedium.write(plan, ubuntu.iso, ubuntu.stack, without_models(payload), iso, stick_size=None)
    return Live(iso.name, iso.stat().st_size)


def boot_files(image: IsoImage, *, hwe: bool) -> tuple[str, str]:
    """Kernel and initramfs of the live system; with ``hwe`` the newer ones, if the ISO has them. Pure.

    Raises BuilderError (MEDIUM) if it has none.
    """
    for prefix in ("hwe-", "") if hwe else ("",):
        found = (f"{CASPER}/{prefix}vmlinuz", f"{CASPER}/{prefix}initrd")
        if all(name in image.files for name in found):
            return found
    raise BuilderError(
        f"{image.path} has no {CASPER}/vmlinuz with its initrd, which a boot over the network needs",
        hint="media.base_iso takes Ubuntu's live-server ISO, 24.04 or later",
        code=Exit.MEDIUM,
    )


def initramfs(ubuntu: bytes, epoch: int) -> bytes:
    """Ubuntu's, and ours after it: Linux unpacks archives that follow one another at multiples of 4 bytes."""
    return ubuntu + b"\0" * (-len(ubuntu) % 4) + cpio.archive(render.overlay("netlive", {}), epoch)


def without_models(payload: Payload) -> Payload:
    """The same manifest, and less of what it lists. Pure."""
    models = {model["path"] for model in payload.manifest["models"]}
    return replace(payload, files={path: file for path, file in payload.files.items() if path not in models})


def _content(image: IsoImage, name: str) -> bytes:
    return image.read(name, limit=1 << 30)
