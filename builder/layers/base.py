"""The base layer: the operating system, made by mmdebstrap from exactly the packages of the lock."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder import console, render
from builder.cache import Cache
from builder.errors import BuilderError
from builder.files import need_room
from builder.gpu import packages as gpu_packages
from builder.layers import squashfs
from builder.plan import Plan
from builder.run import pipe
from builder.sources import apt

# What a build leaves behind that no node may share or needs: keys, build-time apt and dpkg settings, the
# build's own archive. cloud-init writes the distribution's sources at first boot. An empty machine-id makes
# systemd write a new one.
_LEFTOVERS = (
    "etc/ssh/ssh_host_*",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/0000*",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "var/lib/dbus/machine-id",
    "var/log/apt/*",
    "var/log/bootstrap.log",
    "var/log/dpkg.log",
    "var/log/alternatives.log",
    "var/cache/ldconfig/aux-cache",
)


def make(plan: Plan, packages: Mapping[str, Path], cache: Cache) -> Path:
    """The base layer's squashfs, from the cache if it is there. ``packages``: blobs by sha256.

    Raises BuilderError quoting mmdebstrap if it fails.
    """
    assert plan.lock is not None
    product = cache.product("base", plan.base.digest)
    layer = product / plan.base.file
    if layer.exists():
        return layer
    locked = plan.lock.packages
    with console.step(f"base layer: {plan.target.name} {plan.target.codename}, {len(locked)} packages"):
        size = sum(package.size for package in locked)
        with cache.scratch("base") as work, cache.make("base", plan.base.digest) as part:
            need_room(work, 5 * size, step="the base layer")
            archive = work / "archive"
            archive.mkdir()
            apt.repository(archive, locked, packages, codename=plan.target.codename)
            overlay_tar(plan.base_files, work / "overlay.tar", plan.epoch)
            asked = set(plan.lock.asks["packages"])
            automatic = sorted(package.name for package in locked if package.name not in asked)
            (work / "automatic").write_text("\n".join(automatic))
            names = [package.name for package in locked]
            held = packages_held(plan)
            (work / "held").write_text("\n".join(held))
            mode = "root" if os.geteuid() == 0 else "unshare"
            pipe(
                argv(plan.target.codename, names, work, mode=mode, holds=bool(held)),
                squashfs.from_tar(part / plan.base.file),
                step="the base layer",
                env={**squashfs.environment(plan.epoch), "TMPDIR": str(work)},
                on_line=console.ticker("mmdebstrap"),
            )
    return layer


def packages_held(plan: Plan) -> tuple[str, ...]:
    """What no upgrade may touch: kernel and driver, where there is a driver, as one needs the other."""
    assert plan.lock is not None
    return gpu_packages.held(package.name for package in plan.lock.packages) if plan.cluster.gpu else ()


def argv(codename: str, names: Sequence[str], work: Path, *, mode: str, holds: bool = False) -> list[str | Path]:
    """The whole mmdebstrap command line. Pure. ``mode`` is "root", or "unshare" for a plain user.

    ``work`` holds ``archive/``, ``overlay.tar``, ``automatic`` (the names that only came as dependencies) and, if
    something ``holds``, ``held``.
    """
    hooks = [
        f"--essential-hook=tar-in {work}/overlay.tar /",
        f"--customize-hook=upload {work}/automatic /tmp/automatic",
        '--customize-hook=chroot "$1" xargs -a /tmp/automatic apt-mark auto >/dev/null && rm "$1/tmp/automatic"',
        *(_hold(work) if holds else ()),
        # A fixed hash where a fresh one would differ in every build; "*" lets nobody in by password.
        """--customize-hook=echo 'root:*' | chroot "$1" chpasswd -e""",
        '--customize-hook=cd "$1" && rm -rf ' + " ".join(_LEFTOVERS) + " && : >etc/machine-id",
        # Tells systemd that /etc and /var belong to this /usr; else the first boot rebuilds every cache in them.
        '--customize-hook=touch "$1/etc/.updated" "$1/var/.updated"',
    ]
    return [
        # What mmdebstrap mounts as root is seen by it alone, and goes with it even if it is killed.
        *(("unshare", "--mount", "--") if mode == "root" else ()),
        "mmdebstrap",
        f"--mode={mode}",
        "--variant=apt",
        "--format=tar",
        f"--include={','.join(names)}",
        "--dpkgopt=force-unsafe-io",  # the tree is thrown away; only the finished squashfs is synced
        '--aptopt=APT::Install-Recommends "false"',
        *hooks,
        codename,
        "-",
        f"deb [trusted=yes] copy:{work}/archive ./",
    ]


def _hold(work: Path) -> tuple[str, ...]:
    return (
        f"--customize-hook=upload {work}/held /tmp/held",
        '--customize-hook=chroot "$1" xargs -a /tmp/held apt-mark hold >/dev/null && rm "$1/tmp/held"',
    )


def overlay_tar(files: Sequence[render.File], target: Path, epoch: int) -> None:
    """The overlay as a tar, owned by root, for mmdebstrap's ``tar-in``."""
    with tarfile.open(target, "w") as tar:
        for file in files:
            if file.link is not None:
                raise BuilderError(f"overlays/base: {file.path}: links are not expected here")
            member = tarfile.TarInfo(file.path.lstrip("/"))
            member.size, member.mode, member.mtime = len(file.content), file.mode, epoch
            tar.addfile(member, io.BytesIO(file.content))
