"""Programs of the target, run inside its own root: no network, no rights on the host, nothing left behind.

The root is the base layer, unpacked once into the cache and shown read-only; a folder can be laid over it, as
the site layer will be on the node. bubblewrap and a user namespace do it, as root or as any user: the files
are then whoever's unpacked them, and the sandbox shows them as root's.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.cache import Cache
from builder.errors import BuilderError
from builder.run import Completed, run

# Half of a node's files; no program that we run inside reads them, and unpacking them takes time.
_NOT_NEEDED = (
    *("usr/lib/modules", "usr/src"),
    *(f"usr/share/{name}" for name in ("doc", "i18n", "info", "locale", "man", "zoneinfo")),
)
_OVERLAY = 'mount -t overlay overlay -o "lowerdir=$1" "$2"; shift 2; exec "$@"'


def tree(base: Path, digest: str, cache: Cache) -> Path:
    """The base layer as a folder; ``digest`` names the layer. Raises BuilderError if it cannot be unpacked."""
    folder = cache.product("tree", digest)
    if not folder.exists():
        with cache.make("tree", digest) as part:
            unsquash(base, part / "root")
    return folder / "root"


def unsquash(layer: Path, root: Path) -> None:
    """Unpack what programs need of a layer."""
    argv: list[str | Path] = [
        "unsquashfs",
        "-quiet",
        "-no-progress",
        "-no-xattrs",
        "-dest",
        root,
        "-excludes",
        layer,
        *_NOT_NEEDED,
    ]
    done = run(argv, step=f"unpacking {layer.name}", check=False)
    # 2: something could not be set; to a plain user that is the ownership and the device nodes of /dev.
    if done.returncode not in (0, 2):
        raise BuilderError(f"unpacking {layer.name} failed\n  | {done.stderr.strip()}")


def inside(
    root: Path,
    argv: Sequence[str],
    *,
    step: str,
    over: Path | None = None,
    binds: Mapping[str, Path] | None = None,
    check: bool = True,
) -> Completed:
    """Run a program of ``root``, with the folder ``over`` laid over it.

    ``binds``: name → folder of this machine, which appears writable as ``/mnt/<name>``.
    """
    as_root = os.geteuid() == 0
    if over is None:
        return run(bwrap_argv(root, argv, binds or {}, as_root=as_root), step=step, check=check)
    with tempfile.TemporaryDirectory(prefix="builder-overlay-") as mount:
        namespaces = ["--mount"] if as_root else ["--user", "--map-root-user", "--mount"]
        command: list[str | Path] = ["unshare", *namespaces, "--", "sh", "-ec", _OVERLAY, "sh"]
        command += [f"{over}:{root}", mount, *bwrap_argv(Path(mount), argv, binds or {}, as_root=True)]
        return run(command, step=step, check=check)


def bwrap_argv(root: Path, argv: Sequence[str], binds: Mapping[str, Path], *, as_root: bool) -> list[str | Path]:
    """The whole command line. Pure. Root needs no user namespace, which containers often forbid."""
    return [
        *("bwrap", "--die-with-parent", "--new-session"),
        *("--unshare-ipc", "--unshare-net", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
        *(() if as_root else ("--unshare-user", "--uid", "0", "--gid", "0")),
        *("--cap-add", "CAP_NET_ADMIN"),  # nft --check asks the kernel for the (empty) ruleset
        *("--ro-bind", root, "/"),
        *("--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--tmpfs", "/tmp", "--tmpfs", "/mnt"),
        *(word for name, folder in binds.items() for word in ("--bind", folder, f"/mnt/{name}")),
        *("--clearenv", "--setenv", "PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        *("--setenv", "HOME", "/root", "--setenv", "LANG", "C.UTF-8"),
        *("--chdir", "/", "--"),
        *argv,
    ]
